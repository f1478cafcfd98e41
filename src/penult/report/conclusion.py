"""Conclusion: what a reader should take away, in a few sentences made from the numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penult.features.groups import FEWEST_RANKED
from penult.intervals import accuracy_interval, paired_interval
from penult.text import percent

MOST_TIED = 2  # so many classes that a class is equally often taken for are named


def conclusion(document: Mapping[str, Any]) -> list[str]:
    """How good the network is, how few features do, where they fail and what to look at.

    Args:
        document: a report's, complete but for the conclusion.

    Returns:
        Two sentences, or three where a sparse head is explained.
    """
    found = [_network(document), _where(document)]
    return found if document["head"] is None else [found[0], _enough(document), found[1]]


def _network(document: Mapping[str, Any]) -> str:
    about = document["about"]
    if about.get("own_labels"):
        return (
            f"The labels of the {about['n_eval_samples']:,} {_images(about)} are the network's own "
            "classes, so nothing can be said of how often it is right."
        )
    if about["multi_label"]:
        return _decisions(document)
    commonest = about["commonest"]
    sentence = (
        f"The network gets {percent(about['dense_accuracy'])}% of the "
        f"{about['n_eval_samples']:,} {_images(about)} right"
    )
    if about["n_classes"] > 1:
        name = _quoted(document["classes"][commonest["class"]]["name"])
        sentence += (
            f"; always saying {name}, the commonest class, would get "
            f"{percent(commonest['accuracy'])}%"
        )
    return f"{sentence}."


def _decisions(document: Mapping[str, Any]) -> str:
    """How well the network decides each class by itself."""
    about = document["about"]
    sentence = (
        f"On {about['n_eval_samples']:,} {_images(about)} the network has "
        f"{percent(about['dense_accuracy'])}% of its yes-or-no decisions, one for each class, "
        "right; always giving the commoner answer would have "
        f"{percent(about['commonest']['accuracy'])}%"
    )
    known = [row["average_precision"] for row in document["classes"]]
    known = [value for value in known if value is not None]
    if known:
        mean = sum(known) / len(known)
        sentence += f". Its mean average precision over the classes is {percent(mean)}%"
    return f"{sentence}."


def _enough(document: Mapping[str, Any]) -> str:
    about, head = document["about"], document["head"]
    low, high = (100 * end for end in head["interval"])
    loss = 100 * head["loss"]
    which = "these decisions" if about["multi_label"] else "them"
    if about.get("own_labels"):
        return (
            f"With {head['k']} of its {about['n_features']:,} features per class, the sparse head "
            f"says the same as the network on {percent(head['agreement'])}% of {which}."
        )
    if abs(loss) < 0.005:
        change = "as many as the network"
    else:
        more = "fewer" if loss > 0 else "more"
        change = f"{abs(loss):.2f} points {more} than the network"
    return (
        f"With {head['k']} of its {about['n_features']:,} features per class, the sparse head gets "
        f"{percent(head['accuracy'])}% right, {change} ({_between(low, high)}, with 95 % "
        f"confidence), and says the same as the network on "
        f"{percent(head['agreement'])}% of {which}."
    )


def _between(low: float, high: float) -> str:
    """The ends of an interval of the loss, in words: a loss below zero is a gain."""
    if high < 0:
        return f"between {-high:.2f} and {-low:.2f} points more"
    if low < 0:
        return f"between {-low:.2f} points more and {high:.2f} fewer"
    return f"between {low:.2f} and {high:.2f} points fewer"


def _images(about: Mapping[str, Any], n: int = 2) -> str:
    kind = _kind(about) if n != 1 else _kind(about).removesuffix("s")
    return f"evaluation {kind}" if about["evaluated_on"] == "eval" else f"analysed {kind}"


def _kind(about: Mapping[str, Any]) -> str:
    """What the samples are: "images" or "texts"."""
    return str(about.get("samples", "images"))


def _where(document: Mapping[str, Any]) -> str:
    classes, head = document["classes"], document["head"]
    which = "dense" if head is None else "sparse"
    measured = [row for row in classes if row[which] is not None]
    if document["about"].get("own_labels"):
        return _agreed(document, measured)
    if not measured:
        kind = _kind(document["about"])
        return f"No class has evaluation {kind}, so nothing can be said of single classes."
    if document["about"]["multi_label"]:
        return _hardest(document)
    if all(row[which] == 1 for row in measured):
        sentence = f"Every class is right on all of its {_kind(document['about'])}"
        return f"{sentence}{_remarks(document)}."
    ranked = [row for row in measured if row["n_eval"] >= FEWEST_RANKED]
    if not ranked:
        return f"{_too_few(document, measured)}{_remarks(document)}."
    weakest = min(ranked, key=lambda row: _highest(row, which))
    sentence = (
        f"The weakest class is {_quoted(weakest['name'])} ({percent(weakest[which])}% of its "
        f"{weakest['n_eval']:,} {_kind(document['about'])} right{_taken_for(weakest, classes)})"
    )
    loser = max(ranked, key=surely_lost)
    if head is not None and surely_lost(loser) > 0:
        lost = f"{100 * (loser['dense'] - loser['sparse']):.2f} points"
        if loser is weakest:
            sentence += f", and it also loses most by the sparse head, {lost}"
        else:
            sentence += (
                f"; {_quoted(loser['name'])} loses most by the sparse head, {lost} on "
                f"{loser['n_eval']:,} {_kind(document['about'])}"
            )
    return f"{sentence}{_remarks(document)}."


def _agreed(document: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    """Where the sparse head says least what the network says, whose own classes are the labels."""
    n_features = len(document["features"])
    said = f"The network reads {n_features:,} features{_remarks(document)}."
    ranked = [row for row in measured if row["n_eval"] >= FEWEST_RANKED]
    if document["head"] is None or not ranked or document["about"]["multi_label"]:
        return said
    least = min(ranked, key=lambda row: _highest(row, "sparse"))
    if least["sparse"] == 1:
        return (
            f"The two agree on every class of {FEWEST_RANKED} {_kind(document['about'])} or more."
        )
    return (
        f"They agree least on {_quoted(least['name'])} ({percent(least['sparse'])}% of its "
        f"{least['n_eval']:,} {_kind(document['about'])}{_taken_for(least, document['classes'])})"
        f"{_remarks(document)}."
    )


def _highest(row: Mapping[str, Any], which: str) -> float:
    """Upper end of the interval of a class's accuracy: few samples do not make a class weak."""
    return accuracy_interval(row[which] * row["n_eval"], row["n_eval"])[1]


def surely_lost(row: Mapping[str, Any]) -> float:
    """Lower end of the interval of what the sparse head loses on a class."""
    return paired_interval(*row["changed"])[0]


def _too_few(document: Mapping[str, Any], measured: Sequence[Mapping[str, Any]]) -> str:
    """Why no class is named: none has the samples for it."""
    most = max(row["n_eval"] for row in measured)
    return (
        f"No class has more than {most:,} {_images(document['about'], most)}, too few to tell "
        f"which class is the weakest: {FEWEST_RANKED} of a class would be needed"
    )


def _taken_for(row: Mapping[str, Any], classes: Sequence[Mapping[str, Any]]) -> str:
    """What the samples of a class are called that are called something else."""
    found = row["taken"]
    if not found:
        return ""
    most = found[0][1]
    ties = [_quoted(classes[d]["name"]) for d, n in found if n == most]
    if most > 1 and len(ties) == 1:
        return f", most often taken for {ties[0]}, {_times(most)}"
    if len(ties) == len(found) <= MOST_TIED:
        return ", taken " + " and ".join(f"{_times(most)} for {name}" for name in ties)
    return ""


def _times(n: int) -> str:
    return {1: "once", 2: "twice"}.get(n, f"{n:,} times")


def _hardest(document: Mapping[str, Any]) -> str:
    """The class of multi-label data that is told worst from the rest, and how it fails."""
    known = [row for row in document["classes"] if row["average_precision"] is not None]
    if not known:
        return f"No class has evaluation {_kind(document['about'])}{_remarks(document)}."
    rows = [row for row in known if row["n_eval"] >= FEWEST_RANKED]
    if not rows:
        return f"{_too_few(document, known)}{_remarks(document)}."
    worst = min(rows, key=lambda row: row["average_precision"])
    n_evaluated = document["about"]["n_eval_samples"]
    return (
        f"The class told worst from the rest is {_quoted(worst['name'])} (average precision "
        f"{percent(worst['average_precision'])}%, by guessing "
        f"{percent(worst['n_eval'] / max(1, n_evaluated))}%): it is missed on "
        f"{worst['missed']:,} of its {worst['n_eval']:,} {_kind(document['about'])} and given to "
        f"{worst['false']:,} others{_remarks(document)}."
    )


def _remarks(document: Mapping[str, Any]) -> str:
    """What to look at among the features."""
    features = document["features"]
    extra = ""
    if document["head"] is not None:
        n_left = sum(row["deciding"] > 0 and row["readers"] == 0 for row in features)
        n_deciding = sum(row["deciding"] > 0 for row in features)
        if n_left:
            extra += (
                f"; the sparse head leaves out {n_left:,} of the {n_deciding:,} features that "
                "decide classes in the network"
            )
    n_flat = sum(row["flat"] or row["dead"] for row in features)
    if n_flat:
        what = "is dead or hardly differs" if n_flat == 1 else "are dead or hardly differ"
        extra += f"; {n_flat:,} of the features {what} between classes"
    return extra


def _quoted(name: str) -> str:
    name = name.strip() or "(no name)"
    return name if len(name) <= 60 else f"{name[:57]}…"
