"""Does the number of features that a decision needs go with the depth of the network?

Fits sparse heads with 1 to 20 features per class to the CIFAR-10 ResNets of depth 20, 32 and 56,
and to any other analysed networks that are named, and measures all of them. A table, a plot of the
accuracy that is lost against k, and the answer with its intervals.

    python bench/depth.py ../shared/data --work runs --out docs/benchmarks --run 44=runs/mine
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from penult.features.features import Features
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.measure import Settings, measure_features
from penult.measure.compare import side_by_side
from penult.plotting import new_figure, plain_style, save_figure
from penult.runs.run import Run
from sparse_heads import features_of

DEPTHS = {20: "resnet20", 32: "resnet32", 56: "resnet56"}
KS = tuple(range(1, 21))
SHOWN = (1, 2, 3, 5, 8)
NEEDED = "features per class for the decision"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKS = ("o", "s", "^", "D", "v", "P")


def measured(train: Features, test: Features, settings: Settings) -> dict[str, Any]:
    head = train.require_head()
    path = fit_path(train, test, Plan(KS))
    heads = {step.k: step.head for step in path.steps}
    return measure_features(train, head, test, heads=heads, settings=settings)


def cell(found: dict[str, Any]) -> str:
    if found["value"] is None:
        return "–"
    value = found["value"]
    shown = str(value) if isinstance(value, int) else f"{value:.4g}"
    if not found["interval"]:
        return shown
    return f"{shown} [{found['interval'][0]:.4g}, {found['interval'][1]:.4g}]"


def trend(cells: Sequence[dict[str, Any]]) -> str:
    """Rises or falls, where every step goes one way and the ends' intervals are apart."""
    if any(found["value"] is None or not found["interval"] for found in cells):
        return "no interval"
    values = [found["value"] for found in cells]
    first, last = cells[0]["interval"], cells[-1]["interval"]
    if values == sorted(values) and first[1] < last[0]:
        return "rises"
    if values == sorted(values, reverse=True) and last[1] < first[0]:
        return "falls"
    return "no clear trend"


def losses(documents: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Points of accuracy that k features per class lose, with their paired intervals."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for document in documents:
        for step in document["dimension"]["decision"]["k"]["steps"]:
            if step["n"] in SHOWN:
                interval = [100 * end for end in step["interval"]]
                row = {"value": 100 * step["loss"], "interval": interval}
                rows.setdefault(f"points lost at k = {step['n']}", []).append(row)
    return rows


def answer(depths: Sequence[int], rows: dict[str, list[dict[str, Any]]], points: float) -> str:
    """The question's answer, in words made from the numbers."""
    needed = rows[NEEDED]
    parts = [f"{cell(found)} at depth {depth}" for depth, found in zip(depths, needed, strict=True)]
    said = {
        "rises": "The number rises with depth.",
        "falls": "The number falls with depth: the deeper network needs fewer features.",
        "no clear trend": "The intervals of the shallowest and the deepest network overlap, or the "
        "steps between do not go one way: the number alone does not show that it goes with depth.",
        "no interval": "Not every network reaches the tolerance within 20 features.",
    }[trend(needed)]
    lost = {name: trend(row) for name, row in rows.items() if name.startswith("points lost")}
    for way in ("falls", "rises"):
        ks = [name.rsplit(" ", 1)[1] for name, found in lost.items() if found == way]
        if ks:
            said += f" What is lost at a given k {way} with depth at k = {', '.join(ks)}"
            said += f", of k = {', '.join(map(str, SHOWN))}."
    return (
        f"Features per class that lose at most {points:.1f} points, refitted heads: "
        f"{', '.join(parts)} (in brackets the range that the 95 % interval of the paired loss "
        f"allows). {said} There is one network for each depth, so what its training seed did "
        "cannot be told from what its depth did: other checkpoints can be added with `--run`."
    )


@plain_style()
def plot(documents: dict[int, dict[str, Any]], path: Path) -> None:
    figure = new_figure(6.4, 4.4)
    axis = figure.subplots()
    for i, (depth, document) in enumerate(documents.items()):
        steps = document["dimension"]["decision"]["k"]["steps"]
        ks = [step["n"] for step in steps]
        style = {"color": COLOURS[i % 6], "marker": MARKS[i % 6]}
        losses = [100 * step["loss"] for step in steps]
        axis.plot(ks, losses, label=f"depth {depth}", ms=4, lw=1.5, **style)
        low, high = ([100 * step["interval"][end] for step in steps] for end in (0, 1))
        axis.fill_between(ks, low, high, color=style["color"], alpha=0.18, lw=0)
    tolerance = 100 * next(iter(documents.values()))["settings"]["tolerance"]
    axis.axhline(tolerance, color="black", lw=1, ls=":", label=f"{tolerance:.1f} points")
    axis.axhline(0, color="grey", lw=0.8)
    axis.set(xlabel="k, features per class", ylabel="accuracy lost to the dense head, points")
    axis.set(xscale="log", ylim=(-0.5, 6))
    axis.set_xticks([1, 2, 3, 5, 8, 10, 15, 20], ["1", "2", "3", "5", "8", "10", "15", "20"])
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend()
    save_figure(figure, path)


def report(documents: dict[int, dict[str, Any]]) -> str:
    depths = list(documents)
    rows = losses([*documents.values()]) | side_by_side([*documents.values()])
    settings = documents[depths[0]]["settings"]
    lines = [
        "# Depth and the number of features that a decision needs",
        "",
        f"`python bench/depth.py`, torch {torch.__version__}. CIFAR-10: 50,000 training images to "
        "fit and measure, 10,000 test images for accuracies; 95 % intervals in brackets.",
        "",
        answer(depths, rows, 100 * settings["tolerance"]),
        "",
        "![accuracy lost against features per class](depth.svg)",
        "",
        "| | " + " | ".join(f"depth {depth}" for depth in depths) + " | with depth |",
        "| --- " * (len(depths) + 2) + "|",
    ]
    for name, row in rows.items():
        lines.append(f"| {name} | {' | '.join(map(cell, row))} | {trend(row)} |")
    lines += [
        "",
        "*rises* and *falls* are said only where every step goes one way and the intervals of the "
        "shallowest and the deepest network are apart. The intervals are over samples, not over "
        "trainings. Many rows are looked at: one of twenty may trend by chance.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("shared", type=Path, help="folder with features/, cifar10/, checkpoints/")
    parser.add_argument("--work", type=Path, required=True, help="folder for runs")
    parser.add_argument("--run", action="append", default=[], help="DEPTH=FOLDER of a run")
    parser.add_argument("--tolerance", type=float, default=0.005)
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "docs/benchmarks"
    )
    given = parser.parse_args()
    settings = Settings(tolerance=given.tolerance)
    parts = {depth: features_of(given.shared, given.work, name) for depth, name in DEPTHS.items()}
    for text in given.run:
        depth, folder = text.split("=", 1)
        run = Run.open(folder)
        parts[int(depth)] = run.train(), run.evaluation()
    documents = {
        depth: measured(train, test, settings) for depth, (train, test) in sorted(parts.items())
    }
    given.out.mkdir(parents=True, exist_ok=True)
    page = report(documents)
    (given.out / "depth.md").write_text(page, encoding="utf-8")
    plot(documents, given.out / "depth.svg")
    print(page)


if __name__ == "__main__":
    main()
