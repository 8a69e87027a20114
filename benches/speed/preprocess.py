"""Images per second of decoding and preprocessing, one thread: Pillow + timm's transform against bob-data.

    cargo build --release -p bob-data --example preprocess_speed [--features jpeg-simd]
    python benches/speed/preprocess.py target/release/examples/preprocess_speed [--folder FOLDER]

Both read the same JPEGs into memory first. For each image and step the fastest of several repeats counts, so that what
else the machine does counts little, and rounds alternate between the two. The default images are foolbox's twenty
ImageNet photographs of 512 x 512 pixels.
"""

import argparse
import io
import json
import os
import platform
import subprocess
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import PIL  # noqa: E402
import torch  # noqa: E402
import torchvision  # noqa: E402
from PIL import Image  # noqa: E402
from timm.data.transforms_factory import transforms_imagenet_eval  # noqa: E402
from torchvision.transforms import Resize  # noqa: E402


REPEATS = 5  # as in preprocess_speed.rs


def photographs():
    import foolbox

    return (Path(foolbox.__file__).parent / "data").glob("imagenet_*.jpg")


def milliseconds(step, inputs):
    """The mean over the inputs of the fastest repeat."""

    def fastest(item):
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            step(item)
            times.append(time.perf_counter() - start)
        return min(times)

    return sum(fastest(item) for item in inputs) * 1000 / len(inputs)


def pillow(files, images):
    resize = Resize(256, interpolation=Image.Resampling.BICUBIC)
    transform = transforms_imagenet_eval(img_size=224, crop_pct=0.875, interpolation="bicubic")

    def decode(data):
        return Image.open(io.BytesIO(data)).convert("RGB")

    return {
        "decode": milliseconds(decode, files),
        "resize": milliseconds(resize, images),
        "transform": milliseconds(transform, images),
        "all": milliseconds(lambda data: transform(decode(data)), files),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the built example preprocess_speed")
    parser.add_argument("--folder", type=Path, help="a folder of JPEGs")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    paths = sorted(arguments.folder.iterdir() if arguments.folder else photographs())
    files = [path.read_bytes() for path in paths]
    images = [Image.open(path).convert("RGB") for path in paths]
    ours, theirs = [], []
    for _ in range(arguments.rounds):
        ours.append(json.loads(subprocess.check_output([arguments.program, *paths])))
        theirs.append(pillow(files, images))
    report = {
        "machine": platform.processor() or platform.machine(),
        "images": len(paths),
        "jpeg_decoder": ours[0]["jpeg_decoder"],
        "versions": {"Pillow": PIL.__version__, "torchvision": torchvision.__version__},
        "milliseconds": {},
    }
    for step in theirs[0]:
        best = [min(round[step] for round in rounds) for rounds in (theirs, ours)]
        report["milliseconds"][step] = {
            "pillow": round(best[0], 3), "bob": round(best[1], 3), "times": round(best[0] / best[1], 2),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
