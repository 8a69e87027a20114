"""Loading a checkpoint of 350 MB: bob against PyTorch, in one run.

    python benches/speed/load.py [--model vit_base_patch16_224] [--rounds 5] [--output docs/results/load.md]

A timm model with random weights is written as safetensors and by `torch.save`; every round loads each file by PyTorch
(`safetensors.torch.load_file` or `torch.load`, then a strict `load_state_dict` into a model that exists already) and by bob
(from the file to the model, names, shapes and every value judged), each in a process of its own. The files are in the
page cache. Memory is what came on top of the started process; PyTorch's does not count the model that existed already.
PyTorch copies into memory that the model has; bob takes the memory too, so the time of making PyTorch's model is told as
well.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from forward import REPOSITORY, peak_memory, processor, publish


def torch_child(model: str, path: str) -> None:
    """One load by PyTorch, printed as JSON."""
    import timm
    import torch
    from safetensors.torch import load_file

    start = time.perf_counter()
    net = timm.create_model(model, pretrained=False).eval()
    creation = time.perf_counter() - start
    Path("/proc/self/clear_refs").write_text("5")
    before = peak_memory()
    start = time.perf_counter()
    state = load_file(path) if path.endswith(".safetensors") else torch.load(path, map_location="cpu", weights_only=True)
    net.load_state_dict(state, strict=True)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "creation": creation, "peak": peak_memory() - before}))


def run(command: list[str]) -> dict:
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY).stdout
    return json.loads(out.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="vit_base_patch16_224")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child")
    arguments = parser.parse_args()
    if arguments.child:
        torch_child(arguments.model, arguments.child)
        return

    import timm
    import torch
    from safetensors.torch import save_file

    state = timm.create_model(arguments.model, pretrained=False).state_dict()
    ours = ["cargo", "run", "--quiet", "--release", "-p", "bob-benches", "--features", "flex", "--example", "load_weights",
            "--", arguments.model]  # fmt: skip
    theirs = [sys.executable, __file__, "--model", arguments.model, "--child"]
    lines = [
        "# Loading a checkpoint against PyTorch",
        "",
        f"Made by `{' '.join(['python', 'benches/speed/load.py', *sys.argv[1:]])}`.",
        f"{processor()}, {arguments.model} with random weights, files in the page cache, {arguments.rounds} rounds in turn.",
        "Memory: peak on top of the started process, over the size of the file. Ratio: time of bob / time of PyTorch, median "
        "(range) of the rounds; whole: the same with the time that PyTorch took to make the model, which bob's has in it.",
        "",
        "| file | MB | PyTorch ms | memory | bob ms | memory | ratio | whole |",
        "|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "model.safetensors", Path(folder) / "model.pth"]
        save_file(state, files[0])
        torch.save(state, files[1])
        for file in files:
            size = file.stat().st_size
            pairs = [(run([*theirs, str(file)]), run([*ours, str(file)])) for _ in range(arguments.rounds)]
            ratios = [mine["seconds"] / reference["seconds"] for reference, mine in pairs]
            whole = [mine["seconds"] / (reference["seconds"] + reference["creation"]) for reference, mine in pairs]
            row = [f"`{file.name}`", f"{size / 1e6:.0f}"]
            for side in zip(*pairs, strict=True):
                row += [f"{statistics.median(one['seconds'] for one in side) * 1e3:.0f}"]
                row += [f"{max(one['peak'] for one in side) / size:.2f}"]
            row += [f"{statistics.median(of):.2f} ({min(of):.2f}–{max(of):.2f})" for of in (ratios, whole)]
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    publish(lines, arguments.output)


if __name__ == "__main__":
    main()
