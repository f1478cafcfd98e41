"""Accuracy by group, as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.text import one_line, percent

GROUPS_SHOWN = 8
NAME = 32


def groups_page(document: Mapping[str, Any]) -> RenderableType:
    """Accuracy in every group of every attribute, worst first, and what sparse heads hide."""
    pages: list[RenderableType] = []
    for name, found in document["attributes"].items():
        pages += [Text(), *_attribute(name, found, document["part"])]
    return Group(*pages[1:])


def group_rows(
    rows: Sequence[Mapping[str, Any]],
    shown: int = GROUPS_SHOWN,
    names: Sequence[str] = ("class", "value"),
) -> Table:
    """A table of groups: class, value, samples, accuracy with its interval."""
    table = Table(box=None, pad_edge=False)
    for name in names:
        table.add_column(name)
    for title in ("samples", "accuracy (%)", "95 % interval"):
        table.add_column(title, justify="right")
    for row in rows[:shown]:
        style = "" if row["ranked"] else "dim"
        table.add_row(
            *(Text(one_line(row[name], NAME)) for name in names),
            f"{row['n_samples']:,}",
            percent(row["accuracy"]),
            interval(row["interval"]),
            style=style,
        )
    return table


def interval(ends: Sequence[float]) -> str:
    """An interval of fractions in percent."""
    return f"{percent(ends[0])} to {percent(ends[1])}"


def means(found: Mapping[str, Any]) -> str:
    """The mean accuracies in a sentence: published numbers mix the two up."""
    if found["mean"] is None:
        return "No sample has a group."
    text = f"Mean over {_which(found)} {percent(found['mean'])} %"
    if found["mean_by_training"] is not None:
        text += (
            f"; with the groups as frequent as in training {percent(found['mean_by_training'])} %"
        )
    return f"{text}; mean over the groups {percent(found['mean_of_groups'])} %"


def _attribute(name: str, found: Mapping[str, Any], part: str) -> list[RenderableType]:
    rows = found["groups"]
    short = one_line(name, NAME)
    page: list[RenderableType] = []
    by_value = found.get("by_value", ())  # runs of earlier versions have none
    if len(by_value) > 1:
        page.append(
            Text(f"All classes by {short}: accuracy of the dense head on {part}", style="bold")
        )
        page.append(group_rows(by_value, names=("value",)))
        left = len(by_value) - GROUPS_SHOWN
        if left > 0:
            page.append(Text(f"… and {left:,} more values: --json", style="dim"))
        page.append(Text())
    title = f"Groups by {short}: accuracy of the dense head on {part}, worst first"
    page += [Text(title, style="bold"), group_rows(rows)]
    if len(rows) > GROUPS_SHOWN:
        page.append(Text(f"… and {len(rows) - GROUPS_SHOWN:,} more groups: --json", style="dim"))
    if any(not row["ranked"] for row in rows):
        page.append(Text("Groups of fewer than 10 samples come last and are never the worst."))
    page.append(Text(means(found)))
    if found["n_without"]:
        page.append(Text(f"{found['n_without']:,} samples have no group.", style="dim"))
    page += _sparse(found)
    return page


def _sparse(found: Mapping[str, Any]) -> list[RenderableType]:
    if not found["sparse"] or found["worst"] is None:
        return []
    table = Table(box=None, pad_edge=False)
    table.add_column("k")
    for title in (f"{_which(found)} (%)", "worst group (%)"):
        table.add_column(title, justify="right")
    table.add_column("which")
    table.add_row(
        "dense", percent(found["mean"]), percent(found["worst"]["accuracy"]), _name(found)
    )
    for row in found["sparse"]:
        worst = percent(row["worst"]["accuracy"])
        table.add_row(str(row["k"]), percent(row["mean"]), worst, _name(row), style="cyan")
    lines: list[RenderableType] = [Text(), Text("Sparse heads", style="bold"), table]
    lines += [Text(_warning(row), style="yellow") for row in found["sparse"] if row["hidden"]]
    return lines


def _which(found: Mapping[str, Any]) -> str:
    """What the means are of: samples without a group count in none of them."""
    return "the samples with a group" if found.get("n_without") else "the samples"


def _name(row: Mapping[str, Any]) -> Text:
    return Text(f"{one_line(row['worst']['class'], NAME)}, {one_line(row['worst']['value'], NAME)}")


def _warning(row: Mapping[str, Any]) -> str:
    lost, overall = row["hidden"][0], row["overall"]
    n_more = len(row["hidden"]) - 1
    more = f", and {n_more} more group{'s' if n_more > 1 else ''} likewise" if n_more else ""
    return (
        f"k = {row['k']}: {one_line(lost['class'], NAME)}, {one_line(lost['value'], NAME)} loses "
        f"more than twice as much as all samples: {percent(lost['before'])} → "
        f"{percent(lost['after'])} % of {lost['n_samples']:,}, all together "
        f"{percent(overall['before'])} → {percent(overall['after'])} %{more}"
    )
