"""A training step: bob against PyTorch eager + timm, float32, same threads, in one run.

    python benches/speed/step.py [--backend flex] [--backend tch] [--rounds 3] [--output docs/results/step.md]

Every round times PyTorch and each backend in turn, each in a process of its own, so that a drift of the machine meets all
alike; the table gives the median of the rounds' ratios (time of bob / time of PyTorch: below 1 is faster) with their range.
PyTorch trains timm's model with random weights in train mode, channels-first, without drop path, by `AdamW(lr=1e-4, weight_decay=0.05)` on the
cross-entropy; the loss counts as forward, `zero_grad` as optimizer.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from pathlib import Path

from forward import MODELS, REPOSITORY, peak_memory, processor, publish, side

PARTS = ["forward", "backward", "optimizer", "step"]
Step = dict[str, float]


def torch_child(model: str, batch: int, seconds: float, threads: int) -> None:
    """One measurement of PyTorch, printed as JSON: at least two steps of warm-up and five under the clock."""
    import timm
    import torch

    torch.set_num_threads(threads)
    # timm gives Swin V2 a drop path of 0.1 by default.
    net = timm.create_model(model, pretrained=False, drop_path_rate=0.0).train()
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.05)
    inputs = [torch.randn(batch, 3, side(model), side(model)) for _ in range(4)]
    labels = [torch.randint(0, 1000, (batch,)) for _ in inputs]
    Path("/proc/self/clear_refs").write_text("5")
    times = {part: [] for part in PARTS}

    def step(index: int) -> list[float]:
        clock = [time.perf_counter()]
        loss = torch.nn.functional.cross_entropy(net(inputs[index % 4]), labels[index % 4])
        clock.append(time.perf_counter())
        loss.backward()
        clock.append(time.perf_counter())
        optimizer.step()
        optimizer.zero_grad()
        clock.append(time.perf_counter())
        parts = [end - start for start, end in zip(clock, clock[1:], strict=False)]
        return [*parts, sum(parts)]

    start, warm = time.perf_counter(), 0
    while warm < 2 or time.perf_counter() - start < 1.0:
        step(warm)
        warm += 1
    start = time.perf_counter()
    while time.perf_counter() - start < seconds or len(times["step"]) < 5:
        for part, elapsed in zip(PARTS, step(len(times["step"])), strict=True):
            times[part].append(elapsed)
    found = {part: statistics.median(samples) for part, samples in times.items()}
    print(json.dumps({**found, "peak": peak_memory()}))


def measure_torch(model: str, batch: int, seconds: float, threads: int) -> Step:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        [sys.executable, __file__, "--child", model, "--batch", str(batch), "--seconds", str(seconds),
         "--threads", str(threads)],
        check=True, stdout=subprocess.PIPE, text=True, env=environment,
    ).stdout  # fmt: skip
    return json.loads(out.splitlines()[-1])


def measure_bob(model: str, backend: str, batch: int, threads: int) -> Step:
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        ["cargo", "xtask", "measure", "--backbone", f"{model}.random", "--mode", "train", "--batch", str(batch),
         "--backend", backend, "--json"],
        check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment,
    ).stdout  # fmt: skip
    found = json.loads(out)
    assert found["size"] == [side(model)] * 2, found["size"]
    return {**found["seconds"], "peak": found["peak_process_bytes"]}


def cells(steps: list[Step]) -> list[str]:
    """The parts in ms, one cell; the memory in MiB."""
    medians = [statistics.median(step[part] for step in steps) * 1e3 for part in PARTS]
    return [" / ".join(f"{ms:.0f}" for ms in medians), f"{statistics.median(s['peak'] for s in steps) / 2**20:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append")
    parser.add_argument("--model", action="append")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=6.0, help="of PyTorch's clock; bob's is that of the protocol")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        torch_child(arguments.child, arguments.batch, arguments.seconds, arguments.threads)
        return
    backends = arguments.backend or ["flex", "tch"]
    columns = "".join(f" {name} ms | {name} MiB | {name} ratio | {name} memory |" for name in backends)
    lines = [
        "# A training step against PyTorch",
        "",
        f"Made by `{' '.join(['python', 'benches/speed/step.py', *sys.argv[1:]])}`.",
        f"{processor() or platform.processor()}, {arguments.threads} threads, float32, batch {arguments.batch}, 224 px "
        f"(256 for SwinV2), {arguments.rounds} rounds in turn; PyTorch 2.9.1 eager + timm 1.0.31.",
        "Times: forward / backward / optimizer / step. Ratio: step of bob / step of PyTorch, median (range) of the rounds. "
        "MiB: peak of the whole process over the steps, the loaded model in it; memory: bob's over PyTorch's.",
        "",
        "| backbone | PyTorch ms | MiB |" + columns,
        "|---|---|---|" + "---|---|---|---|" * len(backends),
    ]
    print(lines[-2], lines[-1], sep="\n", flush=True)
    for model in arguments.model or MODELS:
        reference, found = [], {backend: [] for backend in backends}
        for _ in range(arguments.rounds):
            reference.append(measure_torch(model, arguments.batch, arguments.seconds, arguments.threads))
            for backend in backends:
                found[backend].append(measure_bob(model, backend, arguments.batch, arguments.threads))
        row = [model, *cells(reference)]
        for backend in backends:
            pairs = list(zip(found[backend], reference, strict=True))
            ratios = [ours["step"] / theirs["step"] for ours, theirs in pairs]
            memory = statistics.median(ours["peak"] / theirs["peak"] for ours, theirs in pairs)
            row += cells(found[backend])
            row += [f"{statistics.median(ratios):.2f} ({min(ratios):.2f}–{max(ratios):.2f})", f"{memory:.2f}"]
        lines.append(f"| {' | '.join(row)} |")
        print(lines[-1], flush=True)
    publish(lines, arguments.output)


if __name__ == "__main__":
    main()
