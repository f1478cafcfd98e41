"""What the pass costs beyond the bare forward loop, and how its memory grows with the images.

Runs the forward loop and the whole pass (features written, moments and counts kept) in turn over
the same loader, several times, and compares medians; then measures the peak memory of a pass over
5,000 and over 50,000 images, each in a process of its own.

    python bench/collect.py ../shared/data --out docs/benchmarks
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
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penult.data.open import ArrayImages, ImageData, open_data
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.features.collect import network_shards, usable_head
from penult.features.influence import Evidence, sizes_within
from penult.features.shard_folder import ShardFolder
from penult.features.shards import Block
from penult.network.calling import evaluating
from penult.network.load import import_torchvision, load_model

Row = dict[str, Any]

HERE = Path(__file__).parent
RESNET20 = f"{HERE / 'cifar_resnet.py'}:resnet20"
LIMITS = {"overhead": 0.05, "memory_mb": 50.0}


def bare(model: nn.Module, source: ImageSource) -> float:
    """Seconds of the forward loop alone."""
    start = time.perf_counter()
    with evaluating(model), torch.no_grad():
        for batch in source.batches(0):
            model(source.inputs(batch, torch.device("cpu")))
    return time.perf_counter() - start


def passed(
    model: nn.Module, source: ImageSource, how: Pass, each: Callable[[Block], None]
) -> float:
    """Seconds of the pass with its features written; each block is given to `each`."""
    head = usable_head(model, source)
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        shards = ShardFolder(Path(folder) / "features", head, None, how.store, {})
        shards.fill(network_shards(model, source, head, how), each)
        return time.perf_counter() - start


def whole(model: nn.Module, source: ImageSource, how: Pass) -> float:
    """Seconds of the pass with all that `penult analyze` keeps."""
    head = usable_head(model, source)
    evidence = Evidence.zeros(head.weight, sizes_within(head.n_features))
    return passed(model, source, how, lambda block: evidence.update(block.features, block.labels))


def compare(name: str, model: nn.Module, source: ImageSource, how: Pass, rounds: int) -> Row:
    bare(model, source)
    pairs = [(bare(model, source), whole(model, source, how)) for _ in range(rounds)]
    ratios = [b / a for a, b in pairs]
    return {
        "network": name,
        "n_samples": source.n_samples,
        "batch_size": how.batch_size,
        "bare": statistics.median(a for a, _ in pairs),
        "whole": statistics.median(b for _, b in pairs),
        "overhead": statistics.median(ratios) - 1,
        "spread": [min(ratios) - 1, max(ratios) - 1],
    }


def subset(archive: Path, n: int, out: Path) -> Path:
    """The first images of every class of an archive, n in all."""
    with zipfile.ZipFile(archive) as whole_zip, zipfile.ZipFile(out, "w") as part:
        by_class: dict[str, list[str]] = {}
        for entry in whole_zip.namelist():
            if not entry.endswith("/"):
                by_class.setdefault(entry.split("/")[0], []).append(entry)
        for entries in by_class.values():
            for entry in sorted(entries)[: n // len(by_class)]:
                part.writestr(entry, whole_zip.read(entry))
    return out


def peak_memory(archive: Path, weights: Path) -> float:
    """Peak resident memory, in MB, of `penult analyze` over an archive."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--peak", str(archive), str(weights), folder]
        printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(printed.splitlines()[-1])


def print_peak(archive: Path, weights: Path, folder: Path) -> None:
    from penult.cli.app import app

    arguments = [RESNET20, str(archive), "--weights", str(weights), "--out", str(folder / "run")]
    app(["analyze", *arguments, "--batch-size", "500", "--json"], standalone_mode=False)
    # Not getrusage: its peak is the parent's where that was larger.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    print(int(status.split("VmHWM:")[1].split()[0]) / 1024)


def cifar(shared: Path, n: int, folder: Path) -> ImageData:
    return open_data(subset(shared / "cifar10" / "train.zip", n, folder / f"{n}.zip"))


def report(rows: list[Row], memory: dict[int, float]) -> str:
    lines = [
        "# The pass: what it costs beyond the forward loop",
        "",
        f"`python bench/collect.py`, torch {torch.__version__}, {platform.machine()}, "
        f"{torch.get_num_threads()} threads; medians of pairs run in turn.",
        "",
        "| network | images | batch | forward loop, s | whole pass, s | overhead | least … most |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        low, high = row["spread"]
        lines.append(
            f"| {row['network']} | {row['n_samples']:,} | {row['batch_size']} | {row['bare']:.2f} "
            f"| {row['whole']:.2f} | {100 * row['overhead']:+.1f} % "
            f"| {100 * low:+.1f} … {100 * high:+.1f} % |"
        )
    lines += ["", f"Target: at most {100 * LIMITS['overhead']:.0f} % more.", ""]
    if memory:
        few, many = memory.values()
        lines += [
            "Peak memory of `penult analyze`, ResNet-20, images in a zip: "
            + ", ".join(f"{n:,} images {mb:.0f} MB" for n, mb in memory.items())
            + f"; {many - few:+.0f} MB (target: within {LIMITS['memory_mb']:.0f} MB).",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with cifar10/ and checkpoints/")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-memory", action="store_true", help="skip the passes for memory")
    arguments = parser.parse_args()
    shared, rounds = arguments.shared, arguments.rounds
    weights = shared / "checkpoints" / "resnet20-12fca82f.th"
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        how = Pass(batch_size=500)
        resnet20 = load_model(RESNET20, weights=weights).model
        source = ImageSource(cifar(shared, 5000, folder), Transform(), how)
        rows.append(compare("ResNet-20, 32 × 32", resnet20, source, how, rounds))
        how = Pass(batch_size=32)
        torch.manual_seed(0)
        resnet50 = import_torchvision().models.resnet50()
        pixels = torch.randint(0, 256, (128, 224, 224, 3), dtype=torch.uint8).numpy()
        source = ImageSource(ArrayImages(pixels, torch.arange(128) % 10), Transform(), how)
        rows.append(compare("ResNet-50, 224 × 224", resnet50.eval(), source, how, rounds))
        memory = {}
        if not arguments.no_memory:
            cifar(shared, 5000, folder)
            archives = {5000: folder / "5000.zip", 50000: shared / "cifar10" / "train.zip"}
            memory = {n: peak_memory(archive, weights) for n, archive in archives.items()}
    text = report(rows, memory)
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "collect.md").write_text(text, encoding="utf-8")
    missed = [row["network"] for row in rows if row["overhead"] > LIMITS["overhead"]]
    print(json.dumps({"rows": rows, "memory_mb": memory, "missed": missed}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--peak"]:
        print_peak(*map(Path, sys.argv[2:]))
    else:
        main()
