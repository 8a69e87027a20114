"""Feature extraction: bob against PyTorch eager + timm, same threads, in one run.

    python benches/speed/forward.py [--backend flex] [--backend tch] [--rounds 3] [--output docs/results/forward.md]
    python benches/speed/forward.py --dtype bf16 --backend tch --output docs/results/forward-bf16.md

Every round times PyTorch and each backend in turn, each in a process of its own, so that a drift of the machine meets all
alike; the table gives the median of the rounds' ratios (time of bob / time of PyTorch: below 1 is faster) with their range.
PyTorch runs `forward_head(forward_features(x), pre_logits=True)` under `inference_mode` on random weights: in float32
channels-first, in bfloat16 under `torch.autocast` and channels-last. Stable Diffusion is diffusers', whose packages
`fixtures/make_models_diffusion.py` names; without them say by `--model` what is wanted.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
MODELS = ["resnet50", "convnext_tiny", "vit_small_patch16_224", "swinv2_tiny_window8_256", "efficientnet_b0"]
# Of diffusers and transformers.
DIFFUSION = "stable_diffusion_v1"
# One more of every other family.
FAMILIES = [*MODELS, "mobilenetv2_100", "regnetx_004", "resnet50_clip", "vit_small_patch14_dinov2", "samvit_base_patch16",
            "dm_nfnet_f0", "nfnet_l0", "nf_resnet50", DIFFUSION]  # fmt: skip


def side(model: str) -> int:
    """Side of the images in pixels."""
    return 256 if model.endswith("_256") or model == DIFFUSION else 224


def network(model: str):
    """timm's network, for images of `side`."""
    import timm

    # Those that want to know.
    options = {"img_size": side(model)} if model.startswith(("vit_", "samvit_", "swinv2_")) else {}
    return timm.create_model(model, pretrained=False, **options).eval()


def embedder(model: str, memory_format):
    """What makes embeddings of images: timm's network, or diffusers' with the embedding of the prompt at hand."""
    if model == DIFFUSION:
        sys.path.insert(0, str(REPOSITORY / "fixtures"))
        from make_models_diffusion import IDS, full, outputs, prompt

        autoencoder, unet, encoder = full()
        context = prompt(encoder, IDS)
        networks = [network.to(memory_format=memory_format) for network in (autoencoder, unet)]
        return lambda images: outputs(*networks, context, images)["embedding"]
    net = network(model).to(memory_format=memory_format)
    return lambda images: net.forward_head(net.forward_features(images), pre_logits=True)


def peak_memory() -> int:
    """Largest resident size of this process since the last reset, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def torch_child(model: str, batch: int, seconds: float, threads: int, dtype: str) -> None:
    """One measurement of PyTorch, printed as JSON."""
    import torch

    torch.set_num_threads(threads)
    memory_format = torch.channels_last if dtype == "bf16" else torch.contiguous_format
    embed = embedder(model, memory_format)
    inputs = [torch.randn(batch, 3, side(model), side(model)) for _ in range(4)]
    inputs = [images.contiguous(memory_format=memory_format) for images in inputs]
    Path("/proc/self/clear_refs").write_text("5")
    times = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bf16"):
        warm = time.perf_counter()
        while time.perf_counter() - warm < seconds / 2:
            embed(inputs[0])
        start = time.perf_counter()
        while time.perf_counter() - start < seconds or len(times) < 3:
            begin = time.perf_counter()
            embed(inputs[len(times) % 4])
            times.append(time.perf_counter() - begin)
    print(json.dumps({"seconds": statistics.median(times), "peak": peak_memory(), "version": torch.__version__}))


def measure_torch(model: str, batch: int, seconds: float, threads: int, dtype: str) -> tuple[float, int]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        [sys.executable, __file__, "--child", model, "--batch", str(batch), "--seconds", str(seconds),
         "--threads", str(threads), "--dtype", dtype],
        check=True, capture_output=True, text=True, env=environment,
    ).stdout  # fmt: skip
    found = json.loads(out.splitlines()[-1])
    return found["seconds"], found["peak"]


def measure_bob(model: str, backend: str, batch: int, threads: int, dtype: str) -> tuple[float, int]:
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        ["cargo", "xtask", "measure", "--backbone", f"{model}.random", "--mode", "infer", "--batch", str(batch),
         "--size", str(side(model)), "--backend", backend, "--dtype", dtype, "--json"],
        check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment,
    ).stdout  # fmt: skip
    found = json.loads(out)
    seconds = found["latency_ms"]["p50"] / 1000 if batch == 1 else batch / found["images_per_second"]
    assert found["size"] == [side(model)] * 2, found["size"]
    return seconds, found["peak_process_bytes"]


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def publish(lines: list[str], output: Path | None) -> None:
    """Write the lines to the file, or print them where there is none."""
    text = "\n".join(lines).rstrip() + "\n"
    if output:
        output.write_text(text)
    else:
        print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append")
    parser.add_argument("--model", action="append")
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--dtype", default="f32", choices=["f32", "bf16"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        torch_child(arguments.child, arguments.batch[0], arguments.seconds, arguments.threads, arguments.dtype)
        return
    backends = arguments.backend or ["flex", "tch"]
    lines = [
        "# Feature extraction against PyTorch",
        "",
        f"Made by `{' '.join(['python', 'benches/speed/forward.py', *sys.argv[1:]])}`.",
        f"{processor()}, {arguments.threads} threads, {arguments.dtype}, 224 px (256 for SwinV2), {arguments.rounds} "
        "rounds in turn; PyTorch 2.9.1 eager + timm 1.0.31 (Stable Diffusion: diffusers 0.42.1, 256 px).",
        "Ratio: time of bob / time of PyTorch, median (range) of the rounds. "
        "MiB: peak of the whole process over the forward passes, the loaded model in it.",
        "",
        "| backbone | batch | PyTorch ms | MiB | " + " | ".join(f"{b} ms | {b} MiB | {b} ratio" for b in backends) + " |",
        "|---|---|---|---|" + "---|---|---|" * len(backends),
    ]
    for model in arguments.model or FAMILIES:
        for batch in arguments.batch or [8, 1]:
            reference, found = [], {backend: [] for backend in backends}
            for _ in range(arguments.rounds):
                reference.append(measure_torch(model, batch, arguments.seconds, arguments.threads, arguments.dtype))
                for backend in backends:
                    found[backend].append(measure_bob(model, backend, batch, arguments.threads, arguments.dtype))
            row = f"| {model} | {batch} | {statistics.median(s for s, _ in reference) * 1e3:.0f}"
            row += f" | {reference[0][1] / 2**20:.0f}"
            for backend in backends:
                ratios = [ours / theirs for (ours, _), (theirs, _) in zip(found[backend], reference, strict=True)]
                row += f" | {statistics.median(s for s, _ in found[backend]) * 1e3:.0f}"
                row += f" | {found[backend][0][1] / 2**20:.0f}"
                row += f" | {statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})"
            lines.append(row + " |")
            print(lines[-1], flush=True)
    publish(lines, arguments.output)


if __name__ == "__main__":
    main()
