"""CIFAR-10 from scratch: bob against PyTorch eager + timm, the same recipe on the same images, k seeds each.

    python benches/speed/train_cifar10.py [--seeds 3] [--output docs/results/train-cifar10.md] [--runner PATH]

Two architectures of under a million parameters, which timm builds too. `benches/examples/train_cifar10.rs` trains bob's;
it also writes the images as its loader has them before augmentation (a class-balanced part of CIFAR-10, enlarged) with
the recipe, and PyTorch trains on those: same batch, schedule, AdamW, smoothing and distribution of crops and flips. Each
side draws its own weights, order and augmentation, so their losses agree within the noise of the seeds and not to the
digit. Runs take turns, each in a process of its own.

PyTorch has all images decoded and enlarged in memory before its clock starts; bob reads and decodes them within the clock
of its first epoch and enlarges them in every one. `--runner` names the example as it was built; without it `cargo` builds it. The data set comes from
`cargo xtask fetch cifar10`.
"""

import argparse
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from forward import REPOSITORY, processor

TARGET = 0.8
Run = dict[str, object]


def test_resnet(classes: int):
    import timm

    return timm.create_model("test_resnet", num_classes=classes)


def convnext_micro(classes: int):
    """bob's smallest ConvNeXt, which timm has no name for."""
    from timm.models.convnext import ConvNeXt

    return ConvNeXt(depths=(2, 2, 2, 2), dims=(32, 64, 96, 128), num_classes=classes)


# bob's name of an architecture, and how timm makes it.
MODELS: dict[str, Callable] = {"test_resnet": test_resnet, "convnext_micro": convnext_micro}


def torch_child(model: str, data: Path, seed: int, threads: int) -> None:
    """One training by PyTorch: a line of JSON an epoch, then one of the whole, as the example prints them."""
    import torch
    from safetensors import safe_open
    from torch.nn.functional import cross_entropy, pad

    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    with safe_open(data, "pt") as file:
        recipe = json.loads(file.metadata()["recipe"])
        images, labels, test_images, test_labels = (
            file.get_tensor(f"{split}_{what}") for split in ("train", "test") for what in ("images", "labels")
        )
    labels, test_labels = labels.long(), test_labels.long()
    mean, std = (torch.tensor(recipe[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    side, margin, batch = images.shape[1], recipe["padding"], recipe["batch"]
    padded = pad(images.permute(0, 3, 1, 2), [margin] * 4).contiguous()
    test_images = test_images.permute(0, 3, 1, 2).contiguous()

    def normalise(pixels: torch.Tensor) -> torch.Tensor:
        return (pixels.float() / 255 - mean) / std

    def augmented(indices: torch.Tensor) -> torch.Tensor:
        corners = torch.randint(0, 2 * margin + 1, (len(indices), 2)).tolist()
        crops = [
            padded[index, :, row : row + side, column : column + side]
            for index, (row, column) in zip(indices.tolist(), corners, strict=True)
        ]
        crops = torch.stack(crops)
        flipped = (torch.rand(len(indices)) < 0.5) & recipe["flip"]
        return normalise(torch.where(flipped.view(-1, 1, 1, 1), crops.flip(3), crops))

    net = MODELS[model](int(labels.max()) + 1)
    optimizer = torch.optim.AdamW(
        net.parameters(), lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"], betas=recipe["betas"],
        eps=recipe["epsilon"],
    )  # fmt: skip
    per_epoch = len(labels) // batch
    warmup, steps = recipe["warmup_epochs"] * per_epoch, recipe["epochs"] * per_epoch

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        # PyTorch also asks for the step after the last.
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1)))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    seconds = []
    for _ in range(recipe["epochs"]):
        start = time.perf_counter()
        net.train()
        losses = []
        for indices in torch.randperm(len(labels))[: per_epoch * batch].split(batch):
            loss = cross_entropy(net(augmented(indices)), labels[indices], label_smoothing=recipe["smoothing"])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        mean_loss = torch.stack(losses).double().mean().item()
        seconds.append(time.perf_counter() - start)
        net.eval()
        with torch.inference_mode():
            scores = [net(normalise(part)) for part in test_images.split(batch)]
        top1 = (torch.cat(scores).argmax(1) == test_labels).double().mean().item()
        speed = per_epoch * batch / seconds[-1]
        print(json.dumps({"loss": mean_loss, "images_per_second": speed, "top1": top1}))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    whole = len(seconds) * per_epoch * batch / sum(seconds)
    print(json.dumps({"parameters": parameters, "images_per_second": whole, **recipe}))


def run(command: list[object], threads: int, environment: dict[str, str]) -> Run:
    """The whole's line of a training, with the lines of its epochs under `epochs`."""
    environment = {**environment, **os.environ, "RAYON_NUM_THREADS": str(threads), "OMP_NUM_THREADS": str(threads)}
    out = subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY, env=environment
    ).stdout
    *epochs, whole = [json.loads(line) for line in out.splitlines()]
    print(Path(str(command[0])).name, whole, [epoch["loss"] for epoch in epochs], file=sys.stderr, flush=True)
    return {**whole, "epochs": epochs}


def kept_heap() -> dict[str, str]:
    """The settings of the heap that the driver gives its workers."""
    return dict(re.findall(r'\("(MALLOC_\w+)", "(\d+)"\)', (REPOSITORY / "xtask/src/launch.rs").read_text()))


def build(backend: str) -> Path:
    """The example, built with `backend`."""
    out = subprocess.run(
        ["cargo", "build", "--release", "-p", "bob-benches", "--features", backend, "--example", "train_cifar10",
         "--message-format", "json"],
        check=True, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY,
    ).stdout  # fmt: skip
    paths = [json.loads(line).get("executable") for line in out.splitlines()]
    return Path(next(path for path in reversed(paths) if path))


def data_sets() -> Path:
    """Where `cargo xtask fetch` puts data sets."""
    above = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("BOB_CACHE") or Path(above) / "bob") / "datasets"


def spread(values: list[float], digits: int, unit: float = 1.0) -> str:
    """Mean and range."""
    mean, low, high = (value * unit for value in (statistics.mean(values), min(values), max(values)))
    return f"{mean:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def losses(runs: list[Run], epoch: int) -> list[float]:
    return [run["epochs"][epoch]["loss"] for run in runs]


def loss_row(model: str, epoch: int, ours: list[Run], theirs: list[Run]) -> tuple[list[str], bool]:
    ours, theirs = losses(ours, epoch), losses(theirs, epoch)
    difference = statistics.mean(ours) - statistics.mean(theirs)
    error = math.sqrt(statistics.variance(ours) / len(ours) + statistics.variance(theirs) / len(theirs))
    within = abs(difference) <= 2 * error
    row = [model, str(epoch + 1), spread(ours, 3), spread(theirs, 3), f"{difference:+.4f}", f"{2 * error:.4f}"]
    return [*row, "yes" if within else "**no**"], within


def speed_row(model: str, ours: list[Run], theirs: list[Run]) -> list[str]:
    median = lambda runs, key: statistics.median(run[key] for run in runs)
    ratios = [run["ratio"] for run in ours]
    against = [a["images_per_second"] / b["images_per_second"] for a, b in zip(ours, theirs, strict=True)]
    top1 = lambda runs: spread([run["epochs"][-1]["top1"] for run in runs], 1, 100)
    return [
        model, f"{ours[0]['parameters']:,}", top1(ours), top1(theirs), f"{median(ours, 'images_per_second'):.0f}",
        f"{median(ours, 'measure_images_per_second'):.0f}", spread(ratios, 2), f"{median(theirs, 'images_per_second'):.0f}",
        spread(against, 2),
    ]  # fmt: skip


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]


def chance(seeds: int) -> float:
    """How often means of draws of one normal distribution are further apart than two standard errors."""
    from scipy.stats import t

    return 2 * t.sf(2.0, 2 * (seeds - 1))


def asked(words: list[str]) -> list[str]:
    """The arguments without the runner, whose path is of this machine only."""
    if "--runner" in words:
        at = words.index("--runner")
        return words[:at] + words[at + 2 :]
    return words


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="flex")
    parser.add_argument("--model", action="append", choices=sorted(MODELS))
    parser.add_argument("--seeds", type=int, default=3, help="at least 2")
    parser.add_argument("--images", type=int, default=5120)
    parser.add_argument("--test-images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--runner", type=Path, metavar="PATH")
    parser.add_argument("--output", type=Path)
    parser.add_argument("--child", nargs=3, metavar=("MODEL", "DATA", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    threads = arguments.threads
    if arguments.child:
        model, data, seed = arguments.child
        torch_child(model, Path(data), int(seed), threads)
        return

    runner = arguments.runner.resolve() if arguments.runner else build(arguments.backend)
    models = arguments.model or list(MODELS)
    options = [
        "--datasets", data_sets(), "--images", arguments.images, "--test-images", arguments.test_images, "--epochs",
        arguments.epochs, "--backend", arguments.backend,
    ]  # fmt: skip
    loss_rows, speed_rows, failed, begun = [], [], 0, time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "cifar10.safetensors"
        subprocess.run([str(word) for word in [runner, models[0], *options, "--export", data]], check=True)
        for model in models:
            ours, theirs = [], []
            for seed in range(arguments.seeds):
                child = [sys.executable, __file__, "--threads", threads, "--child", model, data, seed]
                theirs.append(run(child, threads, {}))
                ours.append(run([runner, model, *options, "--seed", seed], threads, kept_heap()))
            assert ours[0]["parameters"] == theirs[0]["parameters"], (ours[0], theirs[0])
            for epoch in range(arguments.epochs):
                row, within = loss_row(model, epoch, ours, theirs)
                loss_rows.append(row)
                failed += not within
            speed_rows.append(speed_row(model, ours, theirs))
            recipe = theirs[0]
    minutes = (time.perf_counter() - begun) / 60
    command = " ".join(["python", "benches/speed/train_cifar10.py", *asked(sys.argv[1:])])
    lines = [
        "# CIFAR-10 from scratch against PyTorch",
        "",
        f"Made by `{command}` in {minutes:.0f} minutes.",
        f"{processor()}, {threads} threads, float32, `{arguments.backend}`; PyTorch 2.9.1 eager + timm 1.0.31. "
        f"{arguments.images:,} training and {arguments.test_images:,} test images of CIFAR-10, as many of each class, enlarged to "
        f"64 px; {arguments.epochs} epochs, {arguments.seeds} seeds a side, in turn.",
        f"Recipe of both: batch {recipe['batch']}, AdamW of {recipe['learning_rate']} and decay {recipe['weight_decay']:.2g} on "
        f"every parameter, {recipe['warmup_epochs']} epoch of linear warm-up, then a cosine; label smoothing "
        f"{recipe['smoothing']}; random crops of the image padded by {recipe['padding']}, flips; no drop path. Each side draws "
        "its own weights (by timm's rules), order and augmentation.",
        f"It is a short run on {arguments.images / 50_000:.0%} of CIFAR-10's training images: it shows that training is the "
        "same and what loading costs, and is no benchmark of accuracy.",
        "",
        "## Loss",
        "",
        "The mean over an epoch's steps of the training loss; then mean (range) over the seeds. Within noise: the means differ "
        "by at most two standard errors of their difference, `sqrt(s1²/k + s2²/k)` of the sample deviations. That is a small "
        f"sample: with {arguments.seeds} seeds of equal deviation a cell of two equal trainings falls outside "
        f"{chance(arguments.seeds):.0%} of the time, and the epochs of one run are not independent.",
        "",
        *table(
            ["architecture", "epoch", "bob", "PyTorch", "difference", "two standard errors", "within noise"], loss_rows
        ),
        "",
        f"{len(loss_rows) - failed} of {len(loss_rows)} within noise.",
        "",
        "## Speed",
        "",
        "Top-1 in percent after the last epoch, mean (range). Images/s of whole training epochs, medians of the seeds: bob's "
        "with enlarging, augmentation and the wait for the loader, and in the first epoch reading and decoding; PyTorch's on "
        "images already decoded and enlarged in memory, augmentation included. `measure` is the images/s of training steps "
        "alone on inputs that lie ready, by `bob_efficiency::measure_training`, in the same process after the training. "
        f"Ratios: mean (range). Target: epoch / `measure` at least {TARGET}.",
        "",
        *table(
            ["architecture", "parameters", "bob top-1", "PyTorch top-1", "bob epoch", "`measure`", "epoch / `measure`",
             "PyTorch epoch", "bob / PyTorch"],
            speed_rows,
        ),  # fmt: skip
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    if arguments.output:
        arguments.output.write_text(text)


if __name__ == "__main__":
    main()
