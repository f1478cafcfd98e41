"""What changed between two sides, as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.cli.edit_pages import change
from penult.diff.gate import FAILS, PASSES
from penult.diff.text import (
    FLIPS,
    change_of,
    evidence_said,
    feature_name,
    in_words,
    matched_said,
    rested_on,
    ruled,
    samples_said,
    sizes,
    suspects_said,
)
from penult.text import called, number_of, one_line, percent, unbroken

ROWS_SHOWN = 8
FLIPS_SHOWN = 5
NAME = 60
COLOURS = {FAILS: "red", PASSES: "green"}


def diff_page(document: Mapping[str, Any]) -> RenderableType:
    """The verdict, the rules, accuracies, flips, evidence, and how samples and features match."""
    old, new = (one_line(document[side]["name"], 60) for side in ("old", "new"))
    lines: list[RenderableType] = [
        Text(f"{old} → {new}", style="bold"),
        Text(unbroken(document["verdict"])),
    ]
    if document.get("gate"):
        lines.append(Text())
        for row in document["gate"]:
            style = COLOURS.get(row["verdict"], "yellow")
            lines.append(Text(f"{one_line(row['rule'], 60)}: {ruled(row)}", style=style))
    lines += [Text(), *_changes("By class", document["classes"], "class")]
    for attribute, rows in document["groups"].items():
        lines += [Text(), *_changes(f"By {one_line(attribute, NAME)}", rows, "value")]
    for kind, title in FLIPS.items():
        lines += [Text(), *_flips(title, document["flips"][kind])]
    lines += [Text(), *_evidence(document)]
    first, *more = suspects_said(document["suspects"])
    lines += [Text(), Text(first, style="bold"), *map(Text, more)]
    lines += [Text(), *_probabilities(document), Text(matched_said(document["matched"]))]
    lines += [Text(text, style="dim") for text in samples_said(document["samples"])]
    return Group(*lines)


def _changes(title: str, rows: Sequence[Mapping[str, Any]], name: str) -> list[RenderableType]:
    changed = [row for row in rows if row["lost"] or row["won"]]
    if not changed:
        return [Text(f"{title}: no sample is won or lost", style="bold")]
    table = Table(box=None, pad_edge=False)
    table.add_column(name)
    for heading in ("samples", "before (%)", "after (%)", "change in points", ""):
        table.add_column(heading, justify="right")
    for row in changed[:ROWS_SHOWN]:
        worse = "red" if row["loss"] > 0 else "green"
        table.add_row(
            Text(called(row[name], NAME)),
            f"{row['n_samples']:,}",
            percent(row["before"]),
            percent(row["after"]),
            change(row),
            "changed" if row["sure"] else "",
            style=worse if row["sure"] else "",
        )
    left = len(changed) - ROWS_SHOWN
    more = [Text(f"… and {left:,} more: --json", style="dim")] if left > 0 else []
    n_sure = sum(row["sure"] for row in rows)
    said = (
        f"{title}: {n_sure} of {len(rows)} changed, with 95 % confidence for all of them together"
    )
    return [Text(said, style="bold"), table, *more]


def _flips(title: str, found: Mapping[str, Any]) -> list[RenderableType]:
    low, high = (percent(end) for end in found["interval"])
    n = number_of(found["n_samples"], "samples")
    said = f"{title}: {n}, {percent(found['rate'])} % ({low} to {high})"
    page: list[RenderableType] = [Text(said, style="bold")]
    if not found["samples"]:
        return page
    table = Table(box=None, pad_edge=False)
    for heading in ("sample", "before", "after", "by features (change of the right class's lead)"):
        table.add_column(heading, overflow="fold")
    for row in found["samples"][:FLIPS_SHOWN]:
        parts = [
            f"{feature_name(part)} ({part['after'] - part['before']:+.2f})"
            for part in row["features"]
        ]
        cells = (row["id"], row["before"], row["after"])
        table.add_row(*(Text(called(cell, NAME)) for cell in cells), ", ".join(parts))
    page.append(table)
    left = found["n_samples"] - FLIPS_SHOWN
    if left > 0:
        page.append(Text(f"… and {left:,} more: --json", style="dim"))
    return page


def _evidence(document: Mapping[str, Any]) -> list[RenderableType]:
    found, said = document["evidence"], Text(evidence_said(document), style="bold")
    classes = found["classes"]
    if not classes:
        return [said]
    left = found["n_classes"] - ROWS_SHOWN
    more = [Text(f"… and {left:,} more: --json", style="dim")] if left > 0 else []
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    if not found["comparable"]:
        table.add_column("rested on features (share of its evidence)", overflow="fold")
        table.add_column("rests on features", overflow="fold")
        for row in classes[:ROWS_SHOWN]:
            table.add_row(Text(called(row["class"], NAME)), *map(in_words, rested_on(row)))
        return [said, table, *more]
    table.add_column("changed by", justify="right")
    table.add_column("features (share of the class's evidence before → now)", overflow="fold")
    for row in classes[:ROWS_SHOWN]:
        features = "; ".join(map(change_of, row["features"]))
        table.add_row(
            Text(called(row["class"], NAME)), f"{100 * row['changed']:.0f}\u00a0%", features
        )
    return [said, table, *more]


def _probabilities(document: Mapping[str, Any]) -> list[RenderableType]:
    found = document["probabilities"]
    table = Table(box=None, pad_edge=False)
    for heading in ("", "before", "now"):
        table.add_column(heading, justify="right" if heading else "left")
    sides = [found["old"], found["new"]]
    for name, key in (
        ("mean confidence (%)", "confidence"),
        ("calibration error (%)", "calibration_error"),
    ):
        table.add_row(name, *(_known(side[key], percent) for side in sides))
    table.add_row("log loss", *(_known(side["log_loss"], "{:.4f}".format) for side in sides))
    for row in sizes(document):
        table.add_row(*row)
    agreement = document["overall"]["agreement"]
    kl = "" if found["kl"] is None else f"; mean divergence of the probabilities {found['kl']:.4f}"
    said = f"The same class for {percent(agreement)} % of the samples{kl}"
    return [Text(said, style="bold"), table]


def _known(value: float | None, said: Callable[[float], str]) -> str:
    return "–" if value is None else said(value)
