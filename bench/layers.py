"""What it costs to keep the outputs of all blocks of ResNet-56, beyond the bare forward loop.

Runs the forward loop and `collect_layers` (blocks found, pooled, written) in turn over the same
images, several times, and compares medians; then measures the peak memory over few and over many
images, each in a process of its own.

    python bench/layers.py --weights ../shared/data/checkpoints/resnet56-4bfd9763.th
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penult.data.open import ArrayImages
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.features.layers import collect_layers
from penult.network.calling import evaluating
from penult.network.load import load_model

Row = dict[str, Any]

HERE = Path(__file__).parent
NETWORK = f"{HERE / 'cifar_resnet.py'}:resnet"
HOW = Pass(batch_size=100)
LIMIT = 1.3


def images(n: int) -> ArrayImages:
    """Random pixels of the size of CIFAR-10's: neither loop's time depends on what they show."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (n, 32, 32, 3), dtype=torch.uint8, generator=generator)
    return ArrayImages(pixels.numpy(), torch.arange(n) % 10)


def bare(model: nn.Module, data: ArrayImages) -> float:
    """Seconds of the forward loop alone."""
    source = ImageSource(data, Transform(), HOW)
    start = time.perf_counter()
    with evaluating(model), torch.no_grad():
        for batch in source.batches(0):
            model(source.inputs(batch, torch.device("cpu")))
    return time.perf_counter() - start


def whole(model: nn.Module, data: ArrayImages) -> tuple[float, int]:
    """Seconds of the pass over all blocks, from nothing to the last folder; number of blocks."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        found = collect_layers(model, data, "all", folder, transform=Transform(), how=HOW)
        return time.perf_counter() - start, len(found)


def compare(model: nn.Module, n: int, rounds: int) -> Row:
    data = images(n)
    bare(model, images(HOW.batch_size))
    pairs = [(bare(model, data), *whole(model, data)) for _ in range(rounds)]
    ratios = [b / a for a, b, _ in pairs]
    return {
        "n_samples": n,
        "n_blocks": pairs[0][2],
        "bare": statistics.median(a for a, _, _ in pairs),
        "whole": statistics.median(b for _, b, _ in pairs),
        "ratio": statistics.median(ratios),
        "spread": [min(ratios), max(ratios)],
    }


def peak_memory(n: int) -> float:
    """Peak resident memory, in MB, of a pass over all blocks of ResNet-20."""
    command = [sys.executable, __file__, "--peak", str(n)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.splitlines()[-1])


def print_peak(n: int) -> None:
    whole(load_model(f"{NETWORK}20", weights="random").model, images(n))
    # Not getrusage: its peak is the parent's where that was larger.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def report(rows: list[Row], memory: dict[int, float]) -> str:
    lines = [
        "# All blocks in one pass: what it costs beyond the forward loop",
        "",
        f"`python bench/layers.py`, torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads. ResNet-56, 32 × 32, batches of {HOW.batch_size}; "
        "medians of pairs run in turn. The whole pass finds head and blocks, pools them in the "
        "forward pass and writes a folder of features for each.",
        "",
        "| images | blocks | forward loop, s | whole pass, s | ratio | least … most |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row["spread"]
        lines.append(
            f"| {row['n_samples']:,} | {row['n_blocks']} | {row['bare']:.2f} | {row['whole']:.2f} "
            f"| {row['ratio']:.2f} | {low:.2f} … {high:.2f} |"
        )
    lines += ["", f"Target: a ratio of at most {LIMIT}.", ""]
    if memory:
        peaks = ", ".join(f"{n:,} images {mb:.0f} MB" for n, mb in memory.items())
        raw = (max(memory) - min(memory)) * 32 * 32 * 3 / 2**20
        lines += [
            f"Peak memory, all 9 blocks of ResNet-20, images in memory: {peaks}; the images "
            f"themselves account for {raw:.0f} MB of the difference.",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", default="random", help="checkpoint of ResNet-56")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    parser.add_argument("--images", type=int, nargs="+", default=[500, 2000])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-memory", action="store_true", help="skip the passes for memory")
    arguments = parser.parse_args()
    model = load_model(f"{NETWORK}56", weights=arguments.weights).model
    rows = [compare(model, n, arguments.rounds) for n in arguments.images]
    memory = {} if arguments.no_memory else {n: peak_memory(n) for n in (2500, 10000)}
    text = report(rows, memory)
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "layers.md").write_text(text, encoding="utf-8")
    missed = [row["n_samples"] for row in rows if row["ratio"] > LIMIT]
    print(json.dumps({"rows": rows, "memory_mb": memory, "missed": missed}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(int(sys.argv[2]))
    else:
        main()
