"""Conclusion: what a reader should take away, in two sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penult.text import percent


def conclusion(document: Mapping[str, Any]) -> list[str]:
    """Two sentences: how few features do, and where they fail or what to look at.

    Args:
        document: a report's, complete but for the conclusion.
    """
    return [_enough(document), _where(document)]


def _enough(document: Mapping[str, Any]) -> str:
    about, head = document["about"], document["head"]
    low, high = (100 * end for end in head["interval"])
    loss = 100 * head["loss"]
    k = f"{head['k']} of {about['n_features']:,} features per class"
    on = "evaluation" if about["evaluated_on"] == "eval" else "analysed"
    if abs(loss) < 0.005:
        change = "as many as the dense head"
    else:
        more = "less" if loss > 0 else "more"
        change = f"{abs(loss):.2f} points {more} than the dense head"
    return (
        f"With {k}, the sparse head has {percent(head['accuracy'])}% of the "
        f"{about['n_eval_samples']:,} {on} images right, {change} (95% interval of the loss: "
        f"{_signed(low)} to {_signed(high)} points), and agrees with it on "
        f"{percent(head['agreement'])}% of them."
    )


def _where(document: Mapping[str, Any]) -> str:
    classes = document["classes"]
    lost = [
        (row["dense"] - row["sparse"], row["name"])
        for row in classes
        if row["dense"] is not None and row["sparse"] is not None
    ]
    measured = [row for row in classes if row["sparse"] is not None]
    if not measured:
        return "No class has evaluation images, so nothing can be said of single classes."
    weakest = min(measured, key=lambda row: row["sparse"])
    if weakest["sparse"] == 1:
        sentence = "Every class is right on all of its images"
    else:
        sentence = f"The weakest class is {_quoted(weakest['name'])} ({percent(weakest['sparse'])}%"
        if weakest["confused"] is not None:
            sentence += f", most often taken for {_quoted(classes[weakest['confused']]['name'])}"
        sentence += ")"
    loss, name = max(lost)
    if loss > 0 and name != weakest["name"]:
        sentence += f"; with so few features {_quoted(name)} loses most, {100 * loss:.2f} points"
    elif loss > 0:
        sentence += f", and it also loses most with so few features, {100 * loss:.2f} points"
    n_flat = sum(row["flat"] or row["dead"] for row in document["features"])
    n_unread = sum(row["readers"] == 0 for row in document["features"])
    n_features = len(document["features"])
    unread = f"{n_unread:,} of {n_features:,} features {'is' if n_unread == 1 else 'are'}"
    extra = f"; {unread} read by no class" if n_unread else ""
    if n_flat:
        what = "is dead or hardly differs" if n_flat == 1 else "are dead or hardly differ"
        which = f", and {n_flat:,}" if n_unread else f"; {n_flat:,} of the features"
        extra += f"{which} {what} between classes"
    return f"{sentence}{extra}."


def _signed(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _quoted(name: str) -> str:
    name = name.strip() or "(no name)"
    return name if len(name) <= 60 else f"{name[:57]}…"
