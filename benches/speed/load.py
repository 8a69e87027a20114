"""Loading a checkpoint of 350 MB: bob against PyTorch, in one run.

    python benches/speed/load.py [--model vit_base_patch16_224] [--rounds 5] [--output docs/results/load.md]

A timm model with random weights is written as safetensors and by `torch.save`; every round loads each file by PyTorch
(`safetensors.torch.load_file` or `torch.load`, then a strict `load_state_dict` into a model that exists already) and by bob
(from the file to the model, names, shapes and every value judged), each in a process of its own. The files are in the
page cache. Memory is what came on top of the started process; PyTorch's does not count the model that existed already.
PyTorch copies into memory that the model has; bob takes the memory too. So PyTorch is timed twice more: into a model that
takes its memory then (made on the device `meta`, then `to_empty`), and with the making of the model by
`timm.create_model`, which is what `timm.create_model(name, checkpoint_path=file)` does.
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

    def load(net: torch.nn.Module) -> float:
        start = time.perf_counter()
        if any(parameter.is_meta for parameter in net.parameters()):
            net.to_empty(device="cpu")
        state = load_file(path) if path.endswith(".safetensors") else torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict(state, strict=True)
        return time.perf_counter() - start

    seconds = load(net)
    peak = peak_memory() - before
    with torch.device("meta"):
        empty = timm.create_model(model, pretrained=False).eval()
    print(json.dumps({"seconds": seconds, "taken": load(empty), "creation": creation, "peak": peak}))


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
        "Memory: peak on top of the started process, over the size of the file. Ratios: time of bob / time of PyTorch, median "
        "(range) of the rounds. Copy: PyTorch into a model that has its memory already; taken: into one that takes it then, as "
        "bob's does; whole: with the time of making PyTorch's model, from a name to a loaded model on both sides.",
        "",
        "| file | MB | PyTorch ms | memory | bob ms | memory | copy | taken | whole |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / "model.safetensors", Path(folder) / "model.pth"]
        save_file(state, files[0])
        torch.save(state, files[1])
        for file in files:
            size = file.stat().st_size
            pairs = [(run([*theirs, str(file)]), run([*ours, str(file)])) for _ in range(arguments.rounds)]
            copy = [mine["seconds"] / reference["seconds"] for reference, mine in pairs]
            taken = [mine["seconds"] / reference["taken"] for reference, mine in pairs]
            whole = [mine["seconds"] / (reference["seconds"] + reference["creation"]) for reference, mine in pairs]
            row = [f"`{file.name}`", f"{size / 1e6:.0f}"]
            for side in zip(*pairs, strict=True):
                row += [f"{statistics.median(one['seconds'] for one in side) * 1e3:.0f}"]
                row += [f"{max(one['peak'] for one in side) / size:.2f}"]
            row += [f"{statistics.median(of):.2f} ({min(of):.2f}–{max(of):.2f})" for of in (copy, taken, whole)]
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    publish(lines, arguments.output)


if __name__ == "__main__":
    main()
