"""The linear probe's grid as 40 single runs in PyTorch: the other half of `linear_probe_speed`.

    cargo run --release -p bob-classification --example linear_probe_speed -- 512 1280
    python benches/speed/linear_probe.py 512 1280

The work is that of `crates/bob-classification/protocols/linear-probe.toml` on as many random embeddings: features
standardised, a fifth held out, then for each of 8 learning rates x 5 weight decays 30 epochs of SGD at batch 32 and the
accuracy on the held-out fifth, and one run more of the selected setting on everything. Nothing is spent on a data
loader: features are one tensor in memory and a batch is one indexing. `--epochs` shortens every run; the time it would
take in full is then in proportion, and printed as such. Threads default to all cores.
"""

import argparse
import json
import math
import time

import torch

RATES = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1]
DECAYS = [0.0, 1e-4, 1e-3, 1e-2, 1e-1]
EPOCHS, WARMUP, BATCH, IMAGES, CLASSES = 30, 3, 32, 10_000, 10


def train(x, y, rate, decay, epochs):
    head = torch.nn.Linear(x.shape[1], CLASSES)
    torch.nn.init.zeros_(head.weight)
    optimizer = torch.optim.SGD(head.parameters(), lr=rate, momentum=0.9, weight_decay=decay)
    per_epoch = math.ceil(len(x) / BATCH)
    warmup, steps = WARMUP * per_epoch, EPOCHS * per_epoch
    factor = lambda t: (t + 1) / warmup if t < warmup else 0.5 * (1 + math.cos(math.pi * (t - warmup) / (steps - warmup)))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(epochs):
        for indices in torch.randperm(len(x)).split(BATCH):
            loss = torch.nn.functional.cross_entropy(head(x[indices]), y[indices])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return head


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dims", type=int, nargs="+")
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    for dim in arguments.dims:
        y = torch.arange(IMAGES) % CLASSES
        x = 0.2 * (torch.rand(CLASSES, dim) - 0.5)[y] + torch.rand(IMAGES, dim) - 0.5
        start = time.perf_counter()
        held_out = torch.rand(IMAGES) < 0.2
        rest, rest_y = x[~held_out], y[~held_out]
        mean, std = rest.mean(0), rest.std(0, correction=0)
        rest, validation, validation_y = (rest - mean) / std, (x[held_out] - mean) / std, y[held_out]
        best = (-1.0, None)
        for rate in RATES:
            for decay in DECAYS:
                head = train(rest, rest_y, rate, decay, arguments.epochs)
                with torch.no_grad():
                    accuracy = (head(validation).argmax(1) == validation_y).double().mean().item()
                best = max(best, (accuracy, (rate, decay)), key=lambda one: one[0])
        train((x - x.mean(0)) / x.std(0, correction=0), y, *best[1], arguments.epochs)
        seconds = time.perf_counter() - start
        print(json.dumps({
            "dim": dim, "images": IMAGES, "settings": len(RATES) * len(DECAYS), "epochs": arguments.epochs,
            "batch": BATCH, "threads": torch.get_num_threads(), "seconds": round(seconds, 3),
            "seconds_in_full": round(seconds * EPOCHS / arguments.epochs, 3), "validation_top1": round(best[0], 4),
        }), flush=True)


if __name__ == "__main__":
    main()
