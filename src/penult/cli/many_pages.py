"""What many runs have in common and in what they differ, as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.text import called, number_of, one_line, percent, unbroken

ROWS_SHOWN = 10
NAME = 60


def many_page(document: Mapping[str, Any]) -> RenderableType:
    """The verdict, accuracies with what a seed and what the change does, samples, evidence."""
    names = ", ".join(one_line(name, NAME) for name in document["seeds"])
    title = f"Seeds: {names}"
    if document["changed"]:
        title += f"; changed: {', '.join(one_line(name, NAME) for name in document['changed'])}"
    lines: list[RenderableType] = [
        Text(title, style="bold"),
        Text(unbroken(document["verdict"])),
        Text(),
    ]
    lines += _rows("By class", "class", document["classes"])
    for attribute, rows in document["groups"].items():
        lines += [Text(), *_rows(f"By {one_line(attribute, NAME)}", "value", rows)]
    return Group(*lines, Text(), *_samples(document), Text(), *_evidence(document["evidence"]))


def _rows(title: str, key: str, rows: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    changed = bool(rows) and "change" in rows[0]
    table = Table(box=None, pad_edge=False)
    table.add_column(key)
    headings = ["samples", "seeds (%)", "by seed (± points)"]
    headings += ["changed (%)", "by the change (points)", ""] if changed else []
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in rows[:ROWS_SHOWN]:
        cells = [f"{row['n_samples']:,}", percent(row["mean"]), f"{100 * row['sd']:.2f}"]
        if changed:
            ends = " to ".join(f"{100 * end:+z.2f}" for end in row["interval"])
            cells += [
                percent(row["changed_mean"]),
                f"{100 * row['change']:+z.2f} ({ends})",
                "beyond seeds" if row["sure"] else "",
            ]
        table.add_row(Text(called(row[key], NAME)), *cells)
    said = f"{title}: mean over the seeds, and the standard deviation that a seed makes"
    if changed:
        n = sum(row["sure"] for row in rows)
        said = f"{title}: {n} of {len(rows)} changed beyond what seeds do, with 95 % confidence"
    left = len(rows) - ROWS_SHOWN
    more = [Text(f"… and {left:,} more: --json", style="dim")] if left > 0 else []
    return [Text(unbroken(said), style="bold"), table, *more]


def _samples(document: Mapping[str, Any]) -> list[RenderableType]:
    found = document["samples"]
    said = [
        f"Of {number_of(document['n_samples'], 'samples')} every seed is right on "
        f"{found['always_right']:,}, none on {found['always_wrong']:,}; {found['by_seed']:,} are "
        "right by luck of the seed"
    ]
    for key, text in (("broken", "broke"), ("mended", "mended")):
        if key in found:
            ids = ", ".join(one_line(name, NAME) for name in found[key]["ids"][:3])
            first = f", the first: {ids}" if ids else ""
            n = number_of(found[key]["n_samples"], "samples")
            said.append(f"The change {text} {n} on which all seeds agreed{first}")
    return [Text(line) for line in said]


def _evidence(rows: Sequence[Mapping[str, Any]]) -> list[RenderableType]:
    table = Table(box=None, pad_edge=False)
    table.add_column("class")
    changed = any(row["by_change"] is not None for row in rows)
    for heading in ("between seeds (%)", *(("by the change (%)", "") if changed else ())):
        table.add_column(heading, justify="right")
    for row in rows[:ROWS_SHOWN]:
        cells = [_whole(row["by_seed"])]
        if changed:
            cells += [_whole(row["by_change"]), "beyond seeds" if row["beyond"] else ""]
        table.add_row(Text(called(row["class"], NAME)), *cells)
    title = "How much of what a class rests on differs between two runs"
    return [Text(title, style="bold"), table]


def _whole(part: float | None) -> str:
    return "–" if part is None else f"{100 * part:.0f}"
