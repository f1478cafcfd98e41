"""How many features guarantee a prediction: ResNet-20 and ResNet-56, dense and sparse heads.

Takes every fifth test image of the runs that `bench/report.py` made, finds the smallest sufficient
reason of each by the greedy rule and by proof, and times both.

    python bench/reasons.py --work runs
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path
from typing import Any

import torch

from penult.explain.reasons import Box, reason_sizes
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head
from penult.runs.run import Run

Row = dict[str, Any]

HERE = Path(__file__).parent
SIZES = (1, 2, 3, 5, 10, 20)
EVERY = 5


def measured(network: str, name: str, head: Head | SparseHead, run: Run, box: Box) -> Row:
    z, labels = run.evaluation().arrays()
    z, labels = z[::EVERY], labels[::EVERY]
    begun = time.perf_counter()
    quick = reason_sizes(head, z, box, exact=False)
    middle = time.perf_counter()
    found = reason_sizes(head, z, box)
    end = time.perf_counter()
    sizes = found.sizes.double()
    right = found.predicted == labels
    return {
        "network": network,
        "head": name,
        "quantiles": sizes.quantile(torch.tensor([0, 0.05, 0.5, 0.95, 1]).double()).tolist(),
        "right": float(sizes[right].mean()),
        "wrong": float(sizes[~right].mean()),
        "relevant": float(found.relevant.double().mean()),
        "exact": found.exact,
        "quick": float((quick.sizes == found.sizes).double().mean()),
        "seconds": (middle - begun, end - middle),
    }


def page(rows: list[Row]) -> str:
    threads = os.environ.get("OMP_NUM_THREADS") or os.cpu_count()
    lines = [
        "# Sufficient reasons: how many features guarantee a prediction",
        "",
        f"`python bench/reasons.py --work runs`, torch {torch.__version__}, {platform.machine()}, "
        f"{threads} threads. Every fifth test image of CIFAR-10, 2,000 of all classes; the box of "
        "the 50,000 training images. Features in the smallest set: least, 5 %, median, 95 %, most; "
        "the mean where the head is right and where it is wrong; how many features could matter "
        "at all; how often the size is proven smallest, and how often the greedy rule has it at "
        "once; seconds of the greedy rule and of the proofs for all images.",
        "",
        "| network | head | least … median … most | right | wrong | could matter | proven | greedy "
        "| s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        sizes = " ".join(f"{value:.0f}" for value in row["quantiles"])
        quick, proven = row["seconds"]
        lines += [
            f"| {row['network']} | {row['head']} | {sizes} | {row['right']:.1f} | "
            f"{row['wrong']:.1f} | {row['relevant']:.1f} | {100 * row['exact']:.1f} % | "
            f"{100 * row['quick']:.0f} % | {quick:.1f}, {proven:.1f} |"
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--work", type=Path, default=Path("runs"))
    options.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    given = options.parse_args()
    rows = []
    for network in ("resnet20", "resnet56"):
        run = Run.open(given.work / network)
        box = Box.of(run.train())
        heads: dict[str, Head | SparseHead] = {"dense": run.train().require_head()}
        heads |= {f"sparse, k = {k}": run.head("curvature", k) for k in SIZES}
        for name, head in heads.items():
            rows.append(measured(network, name, head, run, box))
            print(rows[-1])
    (given.out / "reasons.md").write_text(page(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
