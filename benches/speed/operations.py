"""Where the time of a training step goes, by operation and against the machine's own bound.

    python benches/speed/operations.py [--backend flex] [--batch 8] [--model NAME] [--output docs/results/operations.md]

Each table is that of `cargo xtask measure --mode train --profile`. The bound above it is what the multiplications alone
take at the rate of PyTorch's matrix product on this machine in this run: twice the model's multiply-accumulates are its
operations forward, and a step takes three times as many (values, and the gradients of inputs and of weights).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from forward import MODELS, REPOSITORY, processor, publish, side


def xtask(*arguments: str, threads: int) -> object:
    environment = {**os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        ["cargo", "xtask", *arguments, "--json"],
        check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment,
    ).stdout  # fmt: skip
    return json.loads(out)


def product_rate(threads: int) -> float:
    """Operations a second of PyTorch's product of square float32 matrices, the median of 21."""
    import torch

    torch.set_num_threads(threads)
    width = 2048
    left, right, out = (torch.randn(width, width) for _ in range(3))
    times = []
    for _ in range(21):
        begin = time.perf_counter()
        torch.mm(left, right, out=out)
        times.append(time.perf_counter() - begin)
    return 2 * width**3 / statistics.median(times)


def table(model: str, backend: str, batch: int, threads: int, macs: float, rate: float) -> list[str]:
    """The profile of one model as Markdown."""
    found = xtask("measure", "--backbone", f"{model}.random", "--mode", "train", "--profile", "--batch", str(batch),
                  "--backend", backend, threads=threads)  # fmt: skip
    assert found["size"] == [side(model)] * 2, found["size"]
    step, bound = found["seconds"], 3 * 2 * macs * batch / rate
    lines = [
        f"## {model} on {backend}",
        "",
        f"A step takes {step * 1e3:.0f} ms; its multiplications alone take at least {bound * 1e3:.0f} ms "
        f"({6 * macs * batch / 1e9:.0f} GFLOP).",
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
    rate = product_rate(arguments.threads)
    macs = {one["name"]: one["macs"] for one in xtask("list", "backbones", threads=arguments.threads)}
    lines = [
        "# Training steps by operation",
        "",
        f"Made by `{' '.join(['python', 'benches/speed/operations.py', *sys.argv[1:]])}`.",
        f"{processor()}, {arguments.threads} threads, float32, batch {arguments.batch}, 224 px (256 for SwinV2). "
        f"PyTorch's product of 2048 x 2048 matrices runs at {rate / 1e9:.0f} GFLOP/s here.",
        "",
    ]
    for model in arguments.model or MODELS:
        for backend in arguments.backend or ["flex"]:
            lines += table(model, backend, arguments.batch, arguments.threads, macs[f"{model}.random"], rate)
            print(lines[-1], flush=True)
    publish(lines, arguments.output)


if __name__ == "__main__":
    main()
