"""What a head costs in accuracy, and what was edited: parts of the pages of exports."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from penult.edit.edit import parse_edit
from penult.export.shipment import Shipment
from penult.features.groups import Groups
from penult.heads.comparison import Comparison, PairedCounts, compare_heads
from penult.intervals import accuracy_interval
from penult.network.link import decided
from penult.runs.groups import evaluated_part, groups_of
from penult.text import code_block, in_markdown, number_of, percent

CLASSES_SHOWN = 30  # more are folded away
CHANGED_SHOWN = 10


def accuracy_parts(shipment: Shipment, found: Comparison, groups: Groups | None) -> Iterator[str]:
    """Overall, by class and by group, in Markdown."""
    yield _overall(shipment, found.overall)
    yield from _by_class(shipment, found)
    yield from _by_group(shipment, found, groups)


def compared_heads(shipment: Shipment) -> tuple[Comparison, Groups | None]:
    """Decisions of the network as it was and as it is now, and the groups of these samples."""
    run, shipped, samples = shipment.run, shipment.shipped, shipment.samples
    dense, features = run.train().require_head(), run.evaluation()
    if shipped.origin.get("tuned") != "network":
        groups = groups_of(run, evaluated_part(run))
        return compare_heads(dense, [shipped.head], features)[0], groups
    # The stored features are not those of the tuned network.
    assert shipment.logits is not None
    before = decided(dense(samples.features), dense.link)
    after = decided(shipment.logits, dense.link)
    return Comparison(samples.labels, before, after, dense.n_classes), None


def _overall(shipment: Shipment, counts: PairedCounts) -> str:
    run, about = shipment.run, counts.document()
    part = "evaluation data" if run.has_evaluation else "analysed data"
    if shipment.shipped.origin.get("tuned") == "network":
        part += ", spread evenly over them"
    whose = (
        "the labels are the classes that the network itself gave, so that being right means to "
        "agree with it; "
        if run.own_labels
        else ""
    )
    decisions = f", {counts.n_decisions:,} decisions yes or no" if counts.per_sample > 1 else ""
    low, high = (100 * value for value in counts.interval)
    rows = "\n".join(
        f"| {name} | {percent(about[key])} % | {_range(about[f'{key}_interval'])} |"
        for name, key in (("the network as it was", "before"), ("this one", "after"))
    )
    return (
        f"On {counts.n_samples:,} samples of the run's {part}{decisions} ({whose}all intervals are "
        f"of 95 % confidence):\n\n| | right | interval |\n| --- | ---: | ---: |\n{rows}\n\n"
        f"{number_of(counts.lost, 'decisions')} that {'was' if counts.lost == 1 else 'were'} right "
        f"became wrong, {counts.won:,} that {'was' if counts.won == 1 else 'were'} wrong became "
        f"right: the change is {-high:+z.2f} to {-low:+z.2f} points."
    )


def _by_class(shipment: Shipment, found: Comparison) -> Iterator[str]:
    names = shipment.class_names
    rows = [
        (in_markdown(name), counts)
        for name, counts in zip(names, found.by_class(), strict=True)
        if counts.n_samples
    ]
    yield "### By class"
    if len(rows) <= CLASSES_SHOWN:
        yield _table(rows)
        return
    changed = sorted(rows, key=lambda row: -abs(row[1].lost - row[1].won))[:CHANGED_SHOWN]
    changed = [row for row in changed if row[1].lost != row[1].won]
    if changed:
        yield "The classes that change most:"
        yield _table(changed)
    yield f"<details><summary>All {len(rows):,} classes with samples</summary>"
    yield _table(rows)
    yield "</details>"


def _by_group(shipment: Shipment, found: Comparison, groups: Groups | None) -> Iterator[str]:
    if groups is None or found.labels.ndim > 1:
        return
    for attribute in groups.attributes.values():
        of = attribute.groups(found.labels)
        rows = []
        for group in sorted(set(of[of >= 0].tolist())):
            name, value = attribute.named(group, shipment.class_names)
            words = f"{in_markdown(name)}, {in_markdown(value)}"
            rows.append((words, _counts(found, of == group)))
        if rows:
            yield f"### By class and {in_markdown(attribute.name)}"
            yield _table(rows)


def _counts(found: Comparison, of: Tensor) -> PairedCounts:
    return PairedCounts.of(found.labels[of], found.before[of], found.after[of])


def _table(rows: list[tuple[str, PairedCounts]]) -> str:
    lines = [
        "| | samples | as it was | this one | interval |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, counts in rows:
        interval = accuracy_interval(counts.n_after, counts.n_samples)
        before, after = (
            f"{percent(n / counts.n_samples)} %" for n in (counts.n_before, counts.n_after)
        )
        n = f"{counts.n_samples:,}"
        lines.append(f"| {name} | {n} | {before} | {after} | {_range(interval)} |")
    return "\n".join(lines)


def _range(interval: Any) -> str:
    low, high = interval
    return f"{percent(low)} to {percent(high)} %"


def edit_parts(shipment: Shipment) -> Iterator[str]:
    """What each edit of the head does and why, in Markdown; nothing where there was none."""
    recipe = shipment.shipped.origin.get("recipe")
    if recipe is None:
        return
    yield "## The edits"
    if recipe.get("note"):
        yield in_markdown(recipe["note"], 1000)
    lines = []
    for number, edit in enumerate(recipe["edits"], 1):
        why = f": {in_markdown(edit['reason'], 1000)}" if edit.get("reason") else ""
        lines.append(f"{number}. {in_markdown(parse_edit(edit, 'edit').described())}{why}")
    yield "\n".join(lines) or "None."
    yield "<details><summary>The same as a file for <code>penult edit --recipe</code></summary>"
    yield code_block(json.dumps(recipe, indent=2, ensure_ascii=False), "json")
    yield "</details>"
