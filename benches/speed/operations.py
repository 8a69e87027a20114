"""Where the time of a training step goes, by operation and against the machine's own bound.

    python benches/speed/operations.py [--backend flex] [--batch 8] [--model NAME] [--output docs/results/operations.md]

Each table is that of `cargo xtask measure --mode train --profile`. The bound above it is what the multiplications alone
take at the rate of PyTorch's matrix product on this machine, the mean of right before and right after, as it drifts: twice
the model's multiply-accumulates are its operations forward, and a step takes three times as many (values, and the
gradients of inputs and of weights). Below it is what PyTorch's bare products take on the shapes of the model's own linear
layers, without bias, activation or residual, which ours have in them: few rows or columns run slower than large squares.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from unittest.mock import patch

from forward import MODELS, REPOSITORY, processor, publish, side


def xtask(*arguments: str, threads: int) -> object:
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        ["cargo", "xtask", *arguments, "--json"],
        check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment,
    ).stdout  # fmt: skip
    return json.loads(out)


def product_rate(threads: int) -> float:
    """Operations a second of PyTorch's product of square float32 matrices, the median of 41."""
    import torch

    torch.set_num_threads(threads)
    width = 2048
    left, right, out = (torch.randn(width, width) for _ in range(3))
    times = []
    for _ in range(41):
        begin = time.perf_counter()
        torch.mm(left, right, out=out)
        times.append(time.perf_counter() - begin)
    return 2 * width**3 / statistics.median(times)


def linear_shapes(model: str, batch: int) -> Counter[tuple[int, int, int]]:
    """Rows, inputs and outputs of timm's linear layers, and how many there are of each."""
    import timm
    import torch
    from torch.nn import functional

    shapes, linear = Counter(), functional.linear

    def counted(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        outer, inner = weight.shape
        shapes[x.numel() // inner, inner, outer] += 1
        return linear(x, weight, bias)

    # Not every layer is called as a module.
    with torch.device("meta"), patch.object(functional, "linear", counted):
        timm.create_model(model, pretrained=False)(torch.empty(batch, 3, side(model), side(model)))
    return shapes


def linear_seconds(shapes: Counter[tuple[int, int, int]], threads: int) -> float:
    """Seconds of PyTorch's products of these layers: values, and the gradients of inputs and of weights; of each the
    median of seven."""
    import torch

    torch.set_num_threads(threads)
    total = 0.0
    for (rows, inner, outer), count in shapes.items():
        x, grad, weight = torch.randn(rows, inner), torch.randn(rows, outer), torch.randn(outer, inner)
        for left, right in [(x, weight.T), (grad, weight), (grad.T, x)]:
            times = []
            for _ in range(7):
                begin = time.perf_counter()
                torch.mm(left, right)
                times.append(time.perf_counter() - begin)
            total += count * statistics.median(times)
    return total


def table(model: str, backend: str, batch: int, threads: int, macs: float) -> list[str]:
    """The profile of one model as Markdown."""
    before = product_rate(threads)
    found = xtask("measure", "--backbone", f"{model}.random", "--mode", "train", "--profile", "--batch", str(batch),
                  "--backend", backend, threads=threads)  # fmt: skip
    assert found["size"] == [side(model)] * 2, found["size"]
    rate = (before + product_rate(threads)) / 2
    step, bound = found["seconds"], 3 * 2 * macs * batch / rate
    shapes = linear_shapes(model, batch)
    theirs = linear_seconds(shapes, threads)
    ours = sum(row["forward"] + row["backward"] for row in found["operations"] if row["operation"] == "linear")
    flops = sum(6 * rows * inner * outer * count for (rows, inner, outer), count in shapes.items())
    lines = [
        f"## {model} on {backend}",
        "",
        f"A step takes {step * 1e3:.0f} ms; its multiplications alone take {bound * 1e3:.0f} ms at the rate of PyTorch's "
        f"product ({6 * macs * batch / 1e9:.0f} GFLOP, {rate / 1e9:.0f} GFLOP/s). "
        f"Its linear layers take {ours * 1e3:.0f} ms, PyTorch's bare products of the same shapes {theirs * 1e3:.0f} ms "
        f"({flops / 1e9:.0f} GFLOP).",
        "",
        "| operation | calls | forward ms | backward ms | share |",
        "|---|---|---|---|---|",
    ]
    for row in found["operations"]:
        if "seconds" in row:
            cells = [row["operation"], "", f"{row['seconds'] * 1e3:.1f}", ""]
        else:
            cells = [row["operation"], str(row["calls"]), *(f"{row[key] * 1e3:.1f}" for key in ("forward", "backward"))]
        lines.append(f"| {' | '.join(cells)} | {row['share'] * 100:.1f} % |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append")
    parser.add_argument("--model", action="append")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    macs = {one["name"]: one["macs"] for one in xtask("list", "backbones", threads=arguments.threads)}
    lines = [
        "# Training steps by operation",
        "",
        f"Made by `{' '.join(['python', 'benches/speed/operations.py', *sys.argv[1:]])}`.",
        f"{processor()}, {arguments.threads} threads, float32, batch {arguments.batch}, 224 px (256 for SwinV2).",
        "",
    ]
    for model in arguments.model or MODELS:
        for backend in arguments.backend or ["flex"]:
            lines += table(model, backend, arguments.batch, arguments.threads, macs[f"{model}.random"])
            print(lines[-1], flush=True)
    publish(lines, arguments.output)


if __name__ == "__main__":
    main()
