"""Which architectures become ONNX, and what goes of each if half of its features are unread.

Random weights, small sizes, images of 64 × 64 pixels; those that the head finder is tested on.

    python bench/export_architectures.py --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from penult.errors import InputError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from architectures import FOUND  # noqa: E402
from exported_architecture import ExportedArchitecture, exported  # noqa: E402


def row(name: str, made: ExportedArchitecture) -> str:
    fewer = f"{made.before:,} → {made.after:,} (−{100 * (1 - made.after / made.before):.1f} %)"
    return (
        f"| {name} | {made.n_read:,} of {made.n_features:,} | {made.in_onnxruntime:.0e} | {fewer} "
        f"| {said(made)} |"
    )


def said(made: ExportedArchitecture) -> str:
    """The layers that became smaller and what stopped it, the commonest reasons first."""
    smaller = [f"{one['layer']} {one['before']} → {one['after']}" for one in made.dropped.layers]
    parts = smaller[:2] + ([f"{len(smaller) - 2} more"] if len(smaller) > 2 else [])
    if made.dropped.kept:
        first = made.dropped.kept[0]
        why = first["why"].split(" (by ")[0]
        tail = ": a residual stream" if first["why"].endswith("a residual stream") else ""
        more = len(made.dropped.kept) - 1
        others = f", and {more} more" if more else ""
        parts.append(f"at {first['at']}{others}: {why}{tail}")
    return "; ".join(parts)


def report(rows: list[str]) -> str:
    lines = [
        "# Exports of many architectures",
        "",
        "Made by `python bench/export_architectures.py --out docs/benchmarks`. Each network has "
        "random weights, small sizes and images of 64 × 64 pixels; its head reads half of the "
        "features. It is traced, what makes only the other half is taken out (`--drop-unread`), "
        "and the ONNX file is run in onnxruntime on batches of one and of three images. The "
        "difference is the greatest of a logit from the whole network in torch, as a fraction of "
        "the largest logit.",
        "",
        "| network | features read | difference | parameters | smaller layers; what stopped it |",
        "| --- | ---: | ---: | ---: | --- |",
        *rows,
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE.parent / "docs" / "benchmarks")
    parser.add_argument("--only", action="append", help="one of the networks; by default all")
    arguments = parser.parse_args()
    rows = []
    for name in arguments.only or FOUND:
        build, _ = FOUND[name]
        try:
            rows.append(row(name, exported(build())))
        except InputError as error:
            rows.append(f"| {name} | | | | {error} |")
        print(rows[-1], flush=True)
        (arguments.out / "export_architectures.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
