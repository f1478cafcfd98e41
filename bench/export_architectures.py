"""Which architectures become ONNX, and what goes of each if half of its features are unread.

Random weights, small sizes, images of 64 × 64 pixels; those that the head finder is tested on. What
goes is compared with the parameters on which no logit depends, and with Torch-Pruning.

    python bench/export_architectures.py --out docs/benchmarks
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import nn

from penult.errors import InputError

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests"))

from architectures import FOUND  # noqa: E402
from exported_architecture import (  # noqa: E402
    N_SAMPLES,
    SIDE,
    ExportedArchitecture,
    exported,
)
from unread_oracles import TorchPruned, n_unneeded, torch_pruned  # noqa: E402

SAME = 1e-5  # of the largest logit


def row(name: str, model: nn.Module) -> str:
    made = exported(model)
    layer, head = model.get_submodule(made.head.name), made.head
    with torch.no_grad():
        layer.weight.copy_(head.weight.view_as(layer.weight))  # type: ignore[operator, arg-type]
    images = torch.randn(N_SAMPLES, 3, SIDE, SIDE)
    pruned = torch_pruned(model, head, made.read, images)
    unneeded = n_unneeded(model, head.name, tuple(images.shape))
    before, gone = made.before["parameters"], made.gone("parameters")
    times = 100 * made.gone("multiplications") / made.before["multiplications"]
    return (
        f"| {name} | {len(made.read):,} of {head.n_features:,} | {made.in_onnxruntime:.0e} "
        f"| {before:,} | {gone:,} ({100 * gone / before:.1f} %) | {unneeded:,} | {times:.1f} % "
        f"| {of_others(pruned)} | {said(made)} |"
    )


def of_others(pruned: TorchPruned) -> str:
    """What Torch-Pruning took out, and whether the logits are the same."""
    if pruned.gone is None:
        return f"stops: {pruned.error}"
    if pruned.difference is None:
        return f"{pruned.gone:,}, does not run: {pruned.error}"
    same = (
        "same logits" if pruned.difference <= SAME else f"logits differ by {pruned.difference:.0e}"
    )
    return f"{pruned.gone:,}, {same}"


def said(made: ExportedArchitecture) -> str:
    """The layers that became smaller and what stopped it, the commonest reasons first."""
    smaller = [f"{one['layer']} {one['before']} → {one['after']}" for one in made.dropped.layers]
    parts = smaller[:2] + ([f"{len(smaller) - 2} more"] if len(smaller) > 2 else [])
    if made.dropped.positions:
        one = made.dropped.positions[0]
        more = len(made.dropped.positions) - 1
        others = f" and {more} more" if more else ""
        parts.append(f"{one['layer']}{others} at {one['after']} of {one['before']} positions")
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
        "How much could go at most is told by the gradient: parameters (but the head's own) on "
        "which no logit depends for any of nine images of noise, with activations that are nowhere "
        "flat. [Torch-Pruning](https://github.com/VainF/Torch-Pruning) takes the unread features "
        "out of the head's inputs with all that its dependency graph couples with them, without "
        "hints about a network; its logits are compared with those of the whole network likewise. "
        "[Why penult does not use "
        "it](../export.md#smaller---drop-unread).",
        "",
        "| network | features read | difference | parameters | gone | no logit depends on | "
        "multiplications gone | Torch-Pruning | smaller layers; what stopped it |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | --- | --- |",
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
            rows.append(row(name, build()))
        except InputError as error:
            rows.append(f"| {name} | | | | | | | | {error} |")
        print(rows[-1], flush=True)
        (arguments.out / "export_architectures.md").write_text(report(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
