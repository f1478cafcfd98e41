"""What edits do, as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.cli.group_pages import NAME
from penult.cli.multi_label_pages import decisions_changed, decisions_overall, is_multi_label
from penult.text import number_of, one_line, percent

ROWS_SHOWN = 8
FLIPS_SHOWN = 5


def edit_page(document: Mapping[str, Any]) -> RenderableType:
    """The edits, then accuracy before and after: overall, by class, by group; and what flips."""
    head = document["head"]
    name = (
        "the dense head"
        if head == "dense"
        else f"the sparse head {head['select']}, k = {head['k']}"
    )
    n = document["n_samples"]
    lines: list[RenderableType] = [
        Text(f"Edits of {name}, measured on {n:,} samples of {document['part']}", style="bold")
    ]
    for number, edit in enumerate(document["edits"], 1):
        reason = f"  ({one_line(edit['reason'], 80)})" if edit.get("reason") else ""
        lines.append(Text(f"{number:>3}  {one_line(edit['described'], 80)}{reason}"))
    if not document["edits"]:
        lines.append(Text("  none: the head is what it was"))
    lines += [Text(f"Note: {one_line(note)}", style="yellow") for note in document["notes"]]
    multi_label = is_multi_label(document)
    said = decisions_overall if multi_label else overall
    lines += [Text(), Text(said(document["overall"])), Text()]
    classes = sorted(document["classes"], key=lambda row: -abs(row["loss"]))
    if multi_label:
        lines += decisions_changed(classes, ROWS_SHOWN)
    else:
        lines += _changes("By class", classes, ("class",))
    for attribute, found in document["groups"].items():
        lines += [Text(), *_groups(attribute, found)]
    lines += [Text(), *_flips(document["flips"], "decisions" if multi_label else "samples")]
    return Group(*lines)


def overall(counts: Mapping[str, Any]) -> str:
    """Accuracy before and after in a sentence, with what is known of the difference."""
    return (
        f"All samples: {percent(counts['before'])} → {percent(counts['after'])} % right; "
        f"{counts['lost']:,} lost, {counts['won']:,} won; the change is {change(counts)} points "
        "(95 % interval)"
    )


def change(counts: Mapping[str, Any]) -> str:
    """The 95 % interval of the change of accuracy, in points: better is positive."""
    low, high = counts["interval"]
    return f"{-100 * high:+z.2f} to {-100 * low:+z.2f}"


def _changes(
    title: str, rows: Sequence[Mapping[str, Any]], names: Sequence[str], shown: int = ROWS_SHOWN
) -> list[RenderableType]:
    changed = [row for row in rows if row["lost"] or row["won"]]
    if not changed:
        return [Text(f"{title}: no sample is won or lost", style="bold")]
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name)
    for heading in ("samples", "before (%)", "after (%)", "change in points"):
        table.add_column(heading, justify="right")
    for row in changed[:shown]:
        table.add_row(
            *(Text(one_line(row[name], NAME)) for name in names),
            f"{row['n_samples']:,}",
            percent(row["before"]),
            percent(row["after"]),
            change(row),
            style="" if row.get("ranked", True) else "dim",
        )
    left = len(changed) - shown
    more = [Text(f"… and {left:,} more: --json", style="dim")] if left > 0 else []
    same = len(rows) - len(changed)
    heading = f"{title}, where samples are won or lost" if same else title
    return [Text(heading, style="bold"), table, *more]


def _groups(attribute: str, found: Mapping[str, Any]) -> list[RenderableType]:
    page = _changes(f"By {one_line(attribute, NAME)}", found["groups"], ("class", "value"))
    before, after = found["before"], found["after"]
    if before["worst"] is not None and after["worst"] is not None:
        page.append(Text(f"Worst group: {_worst(before['worst'])} → {_worst(after['worst'])}"))
    for name, key in (
        ("samples", "mean"),
        ("groups as in training", "mean_by_training"),
        ("groups", "mean_of_groups"),
    ):
        if before[key] is not None:
            text = f"Mean over the {name}: {percent(before[key])} → {percent(after[key])} %"
            page.append(Text(text))
    return page


def _worst(row: Mapping[str, Any]) -> str:
    name = f"{one_line(row['class'], NAME)}, {one_line(row['value'], NAME)}"
    return f"{name} {percent(row['accuracy'])} %"


def _flips(flips: Mapping[str, Any], what: str) -> list[RenderableType]:
    page: list[RenderableType] = []
    for kind, title in (
        ("right_to_wrong", "Right before, wrong now"),
        ("wrong_to_right", "Wrong before, right now"),
    ):
        found = flips[kind]
        page.append(Text(f"{title}: {number_of(found['n_samples'], what)}", style="bold"))
        if not found["samples"]:
            continue
        table = Table(box=None, pad_edge=False)
        for heading in ("sample", "before", "after", "by features"):
            table.add_column(heading, overflow="fold")
        for sample in found["samples"][:FLIPS_SHOWN]:
            responsible = ", ".join(
                f"{part['feature']} ({part['change']:+.2f})" for part in sample["features"]
            )
            cells = (sample["id"], sample["before"], sample["after"])
            table.add_row(*(Text(one_line(cell, NAME)) for cell in cells), responsible)
        page.append(table)
        left = found["n_samples"] - min(FLIPS_SHOWN, len(found["samples"]))
        if left:
            page.append(Text(f"… and {left:,} more: --json", style="dim"))
    return page
