"""The published networks end to end: images to dense accuracy and restricted dense weights.

Runs `penult analyze` for every checkpoint on the training images, evaluated on the test images, and
compares with the published numbers.

    python bench/published.py ../shared/data --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from penult.cli.app import app
from penult.runs.run import Run

HERE = Path(__file__).parent
NETWORKS = {
    "resnet20": ("resnet20-12fca82f.th", 91.73),
    "resnet32": ("resnet32-d509ac18.th", 92.63),
    "resnet56": ("resnet56-4bfd9763.th", 93.39),
}
LEAST_OVERLAP = {5: 47, 10: 95, 20: 196}


def analyze(shared: Path, name: str, out: Path) -> tuple[dict[str, Any], float]:
    """The summary of a run and the seconds that it took."""
    images = shared / "cifar10"
    arguments = ["analyze", f"{HERE / 'cifar_resnet.py'}:{name}", str(images / "train.zip")]
    arguments += ["--weights", str(shared / "checkpoints" / NETWORKS[name][0])]
    arguments += ["--eval", str(images / "test.zip"), "--out", str(out), "--batch-size", "500"]
    start = time.perf_counter()
    app(arguments, standalone_mode=False)
    return Run.open(out).summary(), time.perf_counter() - start


def overlap(summary: dict[str, Any], published: Path, k: int) -> int:
    """How many of the published features are among those found."""
    known = json.loads((published / f"resnet20_cifar10_k{k}.json").read_text())
    found = list(summary["influence"]["frequency"][str(k)]["classes"].values())
    return sum(len(set(found[int(c)]) & set(features)) for c, features in known.items())


def report(found: dict[str, tuple[dict[str, Any], float]], overlaps: dict[int, int]) -> str:
    sizes = list(next(iter(found.values()))[0]["influence"]["frequency"])
    lines = [
        "# The published networks, from images",
        "",
        f"`python bench/published.py`, torch {torch.__version__}, {torch.get_num_threads()} "
        "threads. CIFAR-10: 50,000 training images analysed, accuracy (%) on the 10,000 test "
        "images; `frequency`, dense weights restricted to k features per class, no refit.",
        "",
        "| network | dense | published | " + " | ".join(f"k = {k}" for k in sizes) + " | seconds |",
        "| --- " * (len(sizes) + 4) + "|",
    ]
    for name, (summary, seconds) in found.items():
        row = [summary["influence"]["frequency"][k]["accuracy"] for k in sizes]
        cells = [f"{100 * accuracy:.2f}" for accuracy in (summary["dense"]["accuracy"], *row)]
        cells.insert(1, f"{NETWORKS[name][1]:.2f}")
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {seconds:.0f} |")
    shared = ", ".join(
        f"{n} of {10 * k} (at least {LEAST_OVERLAP[k]}) at k = {k}" for k, n in overlaps.items()
    )
    lines += ["", f"ResNet-20's features that the authors published too: {shared}.", ""]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with cifar10/ and checkpoints/")
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = {name: analyze(arguments.shared, name, Path(folder) / name) for name in NETWORKS}
    published = arguments.shared / "published_filters"
    overlaps = {k: overlap(found["resnet20"][0], published, k) for k in LEAST_OVERLAP}
    text = report(found, overlaps)
    print(text)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "published.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
