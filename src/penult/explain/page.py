"""What an explanation says in the terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from penult.explain.decision import Decision
from penult.explain.given_classes import GivenClasses
from penult.explain.shading import shaded
from penult.explain.wording import (
    one_decision,
    remarks,
    short,
    sufficient,
    words_of,
    words_that_decide,
)
from penult.text import one_line

FEATURES_LISTED = 12
BAR, NARROW = 24, 12


def explanation_page(explanation: Decision) -> RenderableType:
    """The page that `penult explain` prints: the decision, its terms, and what would do."""
    said = [Text(remark, style="yellow") for remark in remarks(explanation)]
    notes = Text(one_line(explanation.note), style="dim")
    return Group(
        _heading(explanation),
        *said,
        Text(),
        *_text(explanation),
        _table(explanation),
        Text(),
        Text(sufficient(explanation)),
        *_listed(explanation),
        notes,
    )


def _heading(explanation: Decision) -> RenderableType:
    if explanation.several is not None:
        return _lines(_decision_on_one(explanation, explanation.several))
    names, terms = explanation.class_names, explanation.terms
    lines = [(explanation.kind.capitalize(), short(explanation.image))]
    if explanation.label is not None:
        lines.append(("Label", short(names[explanation.label])))
    own = f"{short(names[explanation.dense_predicted])} ({explanation.probability(dense=True):.1%})"
    called = f"{short(names[explanation.predicted])} ({explanation.probability():.1%})"
    lines.append(("Network", f"calls it {own}"))
    lines.append(("Explained", f"the {explanation.head_name}, which calls it {called}"))
    of = short(names[terms.of])
    if terms.against is None:
        lines.append(("Logit", f"{of} = {terms.total:.4f}"))
    else:
        against = short(names[terms.against])
        lines.append(("Between", f"logit {of} − logit {against} = {terms.total:+.4f}"))
    return _lines(lines)


def _decision_on_one(explanation: Decision, several: GivenClasses) -> list[tuple[str, str]]:
    """The heading of a decision on one class of multi-label data."""
    lines = [(explanation.kind.capitalize(), short(explanation.image))]
    if several.labels is not None:
        lines.append(("Labels", several.names(several.labels)))
    lines.append(("Network", f"gives it {several.names(several.dense_given)}"))
    given = several.names(several.given)
    lines.append(("Explained", f"the {explanation.head_name}, which gives it {given}"))
    lines.append(("Decision", one_decision(explanation)))
    return lines


def _lines(lines: list[tuple[str, str]]) -> Text:
    text = Text()
    for i, (name, value) in enumerate(lines):
        text.append(f"{name:<11}", style="bold")
        text.append(value + ("\n" if i < len(lines) - 1 else ""))
    return text


def _text(explanation: Decision) -> list[RenderableType]:
    """The text with its words shaded by what they add, orange for the class and blue against."""
    if explanation.text is None:
        return []
    found = explanation.words
    if found is None:
        return [Text(one_line(explanation.text)), Text()]
    shown = Text()
    for part, strength in found.parts():
        shade = shaded(strength)
        style = "" if shade is None else "black on rgb({},{},{})".format(*shade)
        shown.append(one_line(part), style=style)
    of = short(explanation.class_names[explanation.terms.of])
    legend = Text(f"Orange speaks for {of}, blue against.", style="dim")
    return [shown, Text(), Text(words_that_decide(explanation)), legend, Text()]


def _table(explanation: Decision) -> RenderableType:
    terms = explanation.terms
    table = Table(box=None, pad_edge=False)
    weight = "weight" if terms.against is None else "weights' difference"
    for name in ("feature", "value", weight, "contribution"):
        table.add_column(name, justify="right")
    table.add_column("", justify="left")
    if explanation.words is not None:
        table.add_column("words that add most to it", justify="left")
    shown = terms.terms[:FEATURES_LISTED]
    largest = max((abs(term.contribution) for term in shown), default=1.0) or 1.0
    width = BAR if explanation.words is None else NARROW
    for i, term in enumerate(shown):
        length = round(abs(term.contribution) / largest * width)
        bar = Text("━" * length, style="green" if term.contribution > 0 else "red")
        table.add_row(
            str(term.feature),
            f"{term.value:.4f}",
            f"{term.weight:+.4f}",
            f"{term.contribution:+.4f}",
            bar,
            *([] if explanation.words is None else [Text(words_of(explanation, i))]),
        )
    rest = terms.terms[FEATURES_LISTED:]
    if rest:
        table.add_row(f"{len(rest)} others", "", "", f"{terms.rest(FEATURES_LISTED):+.4f}", "")
    table.add_row("bias", "", "", f"{terms.bias:+.4f}", "")
    table.add_row("sum", "", "", f"{terms.total:+.4f}", "", style="bold")
    return table


def _listed(explanation: Decision) -> list[RenderableType]:
    reason = explanation.reason
    if not reason.valid or not reason.features:
        return []
    shown = ", ".join(map(str, reason.features[:FEATURES_LISTED]))
    more = len(reason.features) - FEATURES_LISTED
    left = f" and {more} more" if more > 0 else ""
    against = "the nearest rival" if explanation.several is None else "the opposite"
    text = f"These are {shown}{left}, first what counts most against {against}."
    return [Text(text, style="dim")]
