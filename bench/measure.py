"""The measures on the published networks: what they are, what is known of them, and the seconds.

python bench/measure.py ../shared/data --work runs --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from penult.measure import measure_features
from sparse_heads import features_of

# Mean Ψ at one half and mean μ on the training images, from the description of the method.
KNOWN = {
    "resnet20": (0.8091, 0.4669),
    "resnet32": (0.8223, 0.5136),
    "resnet56": (0.8340, 0.5203),
}
EXACT = 0.0005
MOST_SECONDS = 20


def report(found: dict[str, tuple[dict[str, Any], float]]) -> str:
    lines = [
        "# Measures of the published networks",
        "",
        f"`python bench/measure.py`, torch {torch.__version__}, {torch.get_num_threads()} threads. "
        "Penultimate layer, 50,000 training images, accuracies on 10,000 test images; all measures "
        "of `penult measure`, with intervals from 200 bootstrap samples.",
        "",
        "| network | Ψ at 0.5 | known | μ | known | seconds |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    said = []
    for name, (document, seconds) in found.items():
        psi = document["selectivity"]["psi"]["0.5"]["mean"]
        mu = document["selectivity"]["mu"]["mean"]
        known = KNOWN[name]
        lines.append(
            f"| {name} | {psi:.5f} | {known[0]:.4f} | {mu:.5f} | {known[1]:.4f} | {seconds:.1f} |"
        )
        for what, value, expected in (("Ψ", psi, known[0]), ("μ", mu, known[1])):
            met = "met" if abs(value - expected) <= EXACT else "**missed**"
            said.append(f"- {met}: {name}, {what} within {EXACT} of {expected}")
        met = "met" if seconds <= MOST_SECONDS else "**missed**"
        said.append(f"- {met}: {name}, all measures in {seconds:.1f} s (at most {MOST_SECONDS})")
    return "\n".join([*lines, "", *said, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with features/, cifar10/, checkpoints/")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "docs/benchmarks"
    )
    given = parser.parse_args()
    found = {}
    for name in KNOWN:
        train, test = features_of(given.shared, given.work, name)
        start = time.perf_counter()
        document = measure_features(train, train.require_head(), test)
        found[name] = document, time.perf_counter() - start
    text = report(found)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "measure.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
