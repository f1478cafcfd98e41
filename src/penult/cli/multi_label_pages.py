"""What a run of multi-label data found, as a person reads it in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.network.link import SIGMOID
from penult.text import one_line, percent

SHOWN = 20
EXPLAINED = (
    "multi-label: each class is a yes-or-no decision of its own, yes where its logit is above 0; "
    "accuracy: right decisions over all samples and classes; balanced: mean of the accuracies on "
    "the samples of a class and on all others, 50 % by guessing; average precision: area under the "
    "curve of precision over recall, by guessing the class's part of the samples"
)


def is_multi_label(document: Mapping[str, Any]) -> bool:
    """Whether a summary, or the document of a path, is of multi-label data."""
    return document.get("link") == SIGMOID


def dense_lines(dense: Mapping[str, Any]) -> list[str]:
    """How the network does, for the heading."""
    low, high = map(percent, dense["interval"])
    lines = [
        f"[bold]Dense[/]     {percent(dense['accuracy'])} % of the decisions right, 95 % interval "
        f"{low} to {high}"
    ]
    if "balanced_accuracy" in dense:
        lines.append(
            f"          balanced accuracy {shown(dense['balanced_accuracy'])} %, mean average "
            f"precision {shown(dense['mean_average_precision'])} %"
        )
    lines.append(
        f"[bold]Baseline[/]  {percent(dense['commonest']['accuracy'])} % right by always giving "
        "the commoner answer for each class"
    )
    return lines


def ratings_table(summary: Mapping[str, Any]) -> list[RenderableType]:
    """The fitted heads: balanced accuracy and average precision beside accuracy."""
    rows = [row for row in summary["path"] if "balanced_accuracy" in row]
    if not rows:
        return []
    table = Table(box=None, pad_edge=False)
    for name in ("k", "accuracy (%)", "balanced (%)", "mean average precision (%)"):
        table.add_column(name, justify="right")
    for row in (*rows, {**summary["dense"], "k": "dense"}):
        names = ("accuracy", "balanced_accuracy", "mean_average_precision")
        table.add_row(str(row["k"]), *(shown(row.get(name)) for name in names))
    title = Text(f"Fitted heads ({rows[0]['select']}, logistic refit for each class)", style="bold")
    return [title, table, Text()]


def seen_first(
    classes: Iterable[str], counts: Sequence[int], place: Mapping[str, int]
) -> list[str]:
    """Classes in their order, those without samples last: nothing was seen of them."""
    return sorted(classes, key=lambda name: counts[place[name]] == 0)


def classes_table(
    summary: Mapping[str, Any], score: str, k: int, only: Sequence[str]
) -> RenderableType:
    """The features of each class, with how well the network tells it from the rest."""
    classes = summary["influence"][score][str(k)]["classes"]
    place = {name: c for c, name in enumerate(summary["class_names"])}
    counts, dense = summary["class_counts"], summary["dense"]
    names = list(only) or seen_first(classes, counts, place)[:SHOWN]
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold", max_width=40)
    own = summary["judge"].get("own_labels", False)  # of which the network is always right
    columns = ("analysed", "judged", "right (%)", "balanced (%)", "average precision (%)")
    for name in columns[:1] if own else columns:
        table.add_column(name, justify="right")
    table.add_column("features")
    for name in names:
        c = place[name]
        n_right = dense["n_right"][c] / max(1, dense["n_samples"][c])
        rated = [shown(dense[key][c]) if key in dense else "" for key in _BY_CLASS]
        positive = f"{dense['n_positive'][c]:,}" if "n_positive" in dense else ""
        kept = " ".join(f"{feature:>4}" for feature in classes[name])
        judged = () if own else (positive, percent(n_right), *rated)
        table.add_row(Text(one_line(name)), f"{counts[c]:,}", *judged, Text(kept))
    title = f"Features that decide each class ({score}, k = {k}; the most influential first)"
    page: list[RenderableType] = [Text(title, style="bold"), table]
    left = len(classes) - len(names)
    if not only and left > 0:
        page.append(Text(f"… and {left:,} more classes: --class NAME, or --json", style="dim"))
    page.append(Text(EXPLAINED, style="dim"))
    return Group(*page)


def decisions_overall(counts: Mapping[str, Any]) -> str:
    """What an edit does to all decisions, in a sentence, with what is known of the difference."""
    low, high = counts["interval"]
    text = (
        f"All decisions, one for each sample and class: {percent(counts['before'])} → "
        f"{percent(counts['after'])} % right; {counts['lost']:,} lost, {counts['won']:,} won; the "
        f"change is {-100 * high:+z.2f} to {-100 * low:+z.2f} points (95 % interval)"
    )
    if "mean_average_precision" in counts:
        text += f"; mean average precision {_both(counts['mean_average_precision'])} %"
    return text


def decisions_changed(rows: Sequence[Mapping[str, Any]], most: int) -> list[RenderableType]:
    """The classes of which an edit changes a decision, most changed first."""
    changed = [row for row in rows if row["lost"] or row["won"]]
    if not changed:
        return [Text("By class: no decision is won or lost", style="bold")]
    table = Table(box=None, pad_edge=False)
    table.add_column("class", overflow="fold", max_width=30)
    names = ("have it", "right (%)", "lost", "won", "points (95 %)", "average precision")
    for name in names:
        table.add_column(name, justify="right")
    for row in changed[:most]:
        low, high = row["interval"]
        table.add_row(
            Text(one_line(row["class"])),
            f"{row['n_positive']:,}" if "n_positive" in row else "",
            f"{percent(row['before'])} → {percent(row['after'])}",
            f"{row['lost']:,}",
            f"{row['won']:,}",
            f"{-100 * high:+z.2f} to {-100 * low:+z.2f}",
            _both(row.get("average_precision", (None, None))),
        )
    left = len(changed) - most
    more = [Text(f"… and {left:,} more: --json", style="dim")] if left > 0 else []
    title = "By class, each a yes-or-no decision of its own, where decisions are won or lost"
    return [Text(title, style="bold"), table, *more]


def _both(values: Sequence[float | None]) -> str:
    before, after = map(shown, values)
    return f"{before} → {after}" if before else ""


def shown(value: float | None) -> str:
    """A fraction as percent; nothing where it is not known."""
    return "" if value is None else percent(value)


_BY_CLASS = ("balanced", "average_precision")
