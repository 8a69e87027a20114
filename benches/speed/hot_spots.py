"""Where the time of a backbone goes: `perf record` of the worker, as a table of shares by kind of operation.

    python benches/speed/hot_spots.py --backbone resnet50.random [--mode train] [--backend flex] [--batch 8] [--top 10]

Nothing is instrumented: the processor is sampled while `cargo xtask measure` runs, loading and warm-up included, and every
sample goes to the first group below that its function's name fits, or to the group of the nearest caller that fits one.
Shares are of the processor time of all threads, not of wall time; waiting threads are listed apart. The worker is built with
names that say the types too (`-C symbol-mangling-version=v0`), without which what runs in the thread pool is only called
`FnOnce::call_once`; the first time that takes minutes, and nothing else of it changes. It needs Linux's `perf`
and `/proc/sys/kernel/perf_event_paranoid` at 2 or below; without hardware counters it takes the processor clock.
"""

import argparse
import os
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

from forward import REPOSITORY

# First the groups that a function's own name decides, in order; then those that its callers may.
GROUPS = [
    ("product, tile", r"bob_ops::flex::product::.*(tile|kernel|micro)|gemm_(f32|common)::.*microkernel|sgemm|dnnl|gemm_kernel"),
    ("product, packing", r"bob_ops::flex::(product::(.*pack|left)|turn|patches)|gemm_common::.*pack|im2col|col2im|jit_uni_reorder"),
    ("product, other", r"bob_ops::flex::(product|conv)\b|gemm_|addmm|convolution"),
    ("depthwise", r"bob_ops::flex::depthwise|depthwise"),
    ("norm", r"bob_ops::(flex::)?norm|batch_norm|layer_norm|LayerNorm"),
    ("attention", r"bob_ops::(flex::)?attention|softmax|flash_attention"),
    ("pooling", r"bob_ops::(flex::)?pool|max_pool|avg_pool|mean_pool"),
    ("optimizer", r"adamw|AdamW|burn_optim"),
    ("elementwise", r"bob_ops::(flex::(elementwise|math|sums|vector)|activation|epilogue)|burn_flex::ops::(unary|binary)"
                    r"|TensorIterator|vectorized_loop|binary_kernel|gelu|silu|relu|threshold"),
    ("loss", r"bob_ops::(flex::)?cross_entropy"),
    ("other burn", r"burn_|bob_ops|bob_models|bob_efficiency|at::|c10::"),
]  # fmt: skip
ALLOCATION = r"^(_?_?(libc_)?(malloc|free|calloc|realloc|_int_malloc|_int_free|unlink_chunk)|memset|__memset|mmap|munmap)"
COPYING = r"mem(cpy|move)"
WAITING = r"sched_yield|rayon_core::(sleep|registry::WorkerThread::wait_until)|crossbeam|futex|gomp|omp_|__kmp"
KERNEL = r"^\[k\]|page_fault|clear_page"


def compiled(groups: list[tuple[str, str]]) -> list[tuple[str, re.Pattern[str]]]:
    return [(name, re.compile(pattern)) for name, pattern in groups]


# Decided by the function itself, whoever calls it.
LEAVES = compiled([("allocation", ALLOCATION), ("waiting", WAITING), ("kernel (page faults)", KERNEL)])
BY_NAME = compiled(GROUPS)
COPIES = re.compile(COPYING)


def group(stack: list[str]) -> str:
    """The group of a sample from its function, innermost first."""
    for name, pattern in LEAVES:
        if pattern.search(stack[0]):
            return name
    for function in stack:
        # A closure that runs in a thread pool bears the pool's name and its own: the innermost of ours counts.
        for name, pattern in BY_NAME:
            if pattern.search(function):
                return "copying" if COPIES.search(stack[0]) and name == "other burn" else name
    return "copying" if COPIES.search(stack[0]) else "other"


def samples(data: Path) -> list[list[str]]:
    """The stacks of a recording, innermost function first."""
    command = ["perf", "script", "-i", data, "-F", "ip,sym,dso", "--no-inline"]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    stacks, stack = [], []
    for line in [*text.splitlines(), ""]:
        if not line.strip():
            if stack:
                stacks.append(stack)
            stack = []
            continue
        name = line.strip().split(" ", 1)[-1]
        name, _, library = name.rpartition(" (")
        stack.append(f"[k] {name}" if "kernel" in library else name)
    return stacks


def event() -> str:
    """Cycles where the machine counts them, else the clock."""
    probe = subprocess.run(["perf", "stat", "-e", "cycles:u", "true"], capture_output=True, text=True)
    works = probe.returncode == 0 and "not supported" not in probe.stderr and "not counted" not in probe.stderr
    return "cycles:u" if works else "cpu-clock"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--mode", default="train", choices=["infer", "train"])
    parser.add_argument("--backend", default="flex")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--top", type=int, default=10, help="functions to list below the table")
    parser.add_argument("--frequency", type=int, default=199, help="samples a second")
    arguments = parser.parse_args()
    measure = ["cargo", "xtask", "measure", "--backbone", arguments.backbone, "--mode", arguments.mode,
               "--batch", str(arguments.batch), "--backend", arguments.backend]  # fmt: skip
    environment = {**os.environ, "RUSTFLAGS": f"{os.environ.get('RUSTFLAGS', '')} -C symbol-mangling-version=v0".strip()}
    # Builds the worker, which then refuses the name: no compiler is to be sampled below.
    nobody = ["cargo", "xtask", "measure", "--backbone", "none", "--backend", arguments.backend]
    subprocess.run(nobody, cwd=REPOSITORY, env=environment, capture_output=True, check=False)
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "perf.data"
        # The driver becomes the worker; cargo and the driver are a few samples. Release builds have no frame pointers.
        subprocess.run(
            ["perf", "record", "--quiet", "-e", event(), "-F", str(arguments.frequency), "--call-graph", "dwarf,4096",
             "-o", data, *measure],
            check=True, cwd=REPOSITORY, env=environment, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        stacks = samples(data)
    groups = Counter(group(stack) for stack in stacks)
    total = sum(groups.values())
    print(f"{arguments.backbone}, {arguments.mode}, {arguments.backend}, batch {arguments.batch}: {total} samples\n")
    print("| operation | share |\n|---|---|")
    for name, count in groups.most_common():
        print(f"| {name} | {100 * count / total:.1f} % |")
    print("\n| function | group | share |\n|---|---|---|")
    leaves = Counter((stack[0], group(stack)) for stack in stacks)
    for (name, of), count in leaves.most_common(arguments.top):
        print(f"| `{re.sub(r'::h[0-9a-f]{16}', '', name)[:100]}` | {of} | {100 * count / total:.1f} % |")


if __name__ == "__main__":
    main()
