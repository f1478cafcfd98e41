"""Suspects, as a person reads them in the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.text import one_line, percent

NAME = 16


def shortcuts_page(document: Mapping[str, Any], shown: int) -> RenderableType:
    """The suspects, worst first, and how to read them."""
    lines: list[RenderableType] = []
    if document["pairs"] or document["pooled"] is None:
        lines += _pairs(document, shown)
    if document["pooled"] is not None:
        lines += [*([Text()] if lines else []), *_pooled(document, shown)]
    lines += [Text(f"Note: {note}", style="yellow") for note in document["notes"]]
    return Group(*lines)


def _pooled(document: Mapping[str, Any], shown: int) -> list[RenderableType]:
    """Features over all classes that have few samples."""
    pooled = document["pooled"]
    title = (
        f"{pooled['n_suspects']:,} of {pooled['n_features']:,} features are suspects over all "
        f"{pooled['n_classes']:,} classes with few samples ({_sampled(document)})"
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("feature", "overuse", "q", "off"):
        table.add_column(heading, justify="left" if heading == "feature" else "right")
    table.add_column("most for")
    for row in pooled["features"][:shown]:
        found = row["overuse"]
        names = ", ".join(one_line(name, NAME) for name in row["classes"])
        cells = (f"{found['score']:.1f}", _q(found), f"{-100 * row['off']['loss']:+z.2f}")
        style = "" if found["suspect"] else "dim"
        table.add_row(str(row["feature"]), *cells, Text(names), style=style)
    note = (
        "overuse: by how many standard errors what the feature adds to the logits of all these "
        "classes is too large for these samples. off: exact change of accuracy over all samples, "
        "in points, if it is switched off for all classes. most for: the classes for which it is "
        "overused most."
    )
    return [Text(title, style="bold"), table, Text(), Text(note)]


def _pairs(document: Mapping[str, Any], shown: int) -> list[RenderableType]:
    n = document["n_suspects"]
    title = (
        f"{n:,} of {document['n_pairs']:,} pairs of a class and a feature are suspects "
        f"({_sampled(document)})"
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    table.add_column("feature")
    headings = ("overuse", "q", "gap", "called high", "else", "AUC", "off")
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_column("carries, verdict")
    for row in document["pairs"][:shown]:
        table.add_row(*_cells(row), style="" if row["overuse"]["suspect"] else "dim")
    gaps = document["gaps"]
    lines: list[RenderableType] = [Text(title, style="bold"), table]
    left = len(document["pairs"]) - shown
    if left > 0:
        lines.append(Text(f"… and {left:,} more: --listed, or --json", style="dim"))
    lines += [
        Text(),
        Text(
            "overuse: by how many standard errors the weight is too large for these samples, alone "
            "and next to those of the training. gap: "
            "accuracy in the class where it is high less where it is low, in points (95 % "
            "interval). called: percent of other classes' samples called this class, where it is "
            "as high as in the class and else. AUC: how well those and the class's own are told "
            "apart (1 always, 0.5 not). "
            "off: exact change of accuracy over all samples, in points, if it is switched "
            "off for the class. carries: the group that it tells apart best, with the AUC."
        ),
        Text(
            f"Gaps that differ from zero at that rate: {gaps['n_found']:,}; with the values "
            f"permuted within the classes: {gaps['n_by_chance']:,}. A gap alone is no shortcut: "
            "hard samples are low in what the class is rightly known by.",
        ),
    ]
    return lines


def _q(overuse: Mapping[str, Any]) -> str:
    return "–" if overuse["q"] is None else f"{overuse['q']:.1g}"


def _sampled(document: Mapping[str, Any]) -> str:
    """`false discovery rate 5 %, 3,000 samples of eval next to 4,000 of train`."""
    rate = percent(document["rate"]).rstrip("0").rstrip(".")
    samples = f"{document['n_samples']:,} samples of {document['part']}"
    if document["n_compared"] is None:
        return samples
    return f"false discovery rate {rate} %, {samples} next to {document['n_compared']:,} of train"


def _cells(row: Mapping[str, Any]) -> list[Text | str]:
    name = str(row["feature"]) if row["feature"] is not None else f"direction {row['direction']}"
    gap, pull, off = row["gap"], row["pull"], row["off"]["overall"]
    told = "–"
    if gap is not None:
        low, high = (100 * end for end in gap["interval"])
        told = f"{100 * gap['value']:+.0f} ({low:+.0f}…{high:+.0f})"
    called = elsewhere = area = "–"
    if pull is not None:
        called = f"{100 * pull['called']:.1f}"
        if pull["called_elsewhere"] is not None:
            elsewhere = f"{100 * pull['called_elsewhere']:.1f}"
        area = f"{pull['auc']:.2f}"
    best = row["carries"][:1]
    last = [f"{one_line(one['value'], NAME)} {one['auc']:.2f}" for one in best]
    if row["verdict"] is not None:
        last.append(row["verdict"]["verdict"])
    return [
        Text(one_line(row["class"], NAME)),
        name,
        f"{row['overuse']['score']:.1f}",
        _q(row["overuse"]),
        told,
        called,
        elsewhere,
        area,
        f"{-100 * off['loss']:+z.2f}",
        Text(", ".join(last)),
    ]
