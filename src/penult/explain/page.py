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
    signed,
    sufficient,
    words_of,
    words_that_decide,
)
from penult.text import one_line

FEATURES_LISTED = 12
BAR, NARROW = 28, 14


def explanation_page(explanation: Decision) -> RenderableType:
    """The page that `penult explain` prints: the decision, its terms, and what would do."""
    said = [Text(remark, style="yellow") for remark in remarks(explanation)]
    notes = Text(one_line(explanation.note), style="dim")
    return Group(
        *said,
        _heading(explanation),
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
        lines.append(("Logit", f"{of} = {signed(f'{terms.total:.4f}')}"))
    else:
        against = short(names[terms.against])
        lines.append(("Between", f"logit {of} − logit {against} = {signed(f'{terms.total:+.4f}')}"))
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
    terms, of_text = explanation.terms, explanation.words is not None
    table = Table(box=None, pad_edge=False)
    weight = "weight" if terms.against is None else "weights' difference"
    for name in ("feature", "value", weight, "contribution"):
        table.add_column(name, justify="right")
    table.add_column("", justify="left")
    if of_text:
        table.add_column("words that add most to it", justify="left")
    shown, rest = terms.terms[:FEATURES_LISTED], terms.terms[FEATURES_LISTED:]
    bars = _bars([term.contribution for term in shown], NARROW if of_text else BAR)
    for i, (term, bar) in enumerate(zip(shown, bars, strict=True)):
        table.add_row(
            str(term.feature),
            signed(f"{term.value:.4f}"),
            signed(f"{term.weight:+.4f}"),
            signed(f"{term.contribution:+.4f}"),
            bar,
            *([Text(words_of(explanation, i))] if of_text else []),
        )
    # Apart: what many features add and what many others take away may hide each other in one sum.
    for side, sign in (("for", 1), ("against", -1)):
        added = [term.contribution for term in rest if sign * term.contribution > 0]
        if added:
            table.add_row(f"{len(added):,} others {side}", "", "", signed(f"{sum(added):+.4f}"), "")
    table.add_row("bias", "", "", signed(f"{terms.bias:+.4f}"), "")
    table.add_row("sum", "", "", signed(f"{terms.total:+.4f}"), "", style="bold")
    return table


def _bars(values: list[float], width: int) -> list[Text]:
    """A bar for each value, those below 0 to the left of one line and those above to its right."""
    low, high = min([0.0, *values]), max([0.0, *values])
    unit = width / ((high - low) or 1)
    left = round(-low * unit)
    bars = []
    for value in values:
        length = round(abs(value) * unit)
        if value < 0:
            bars.append(Text(" " * (left - length) + "━" * length + "│", style="red"))
        else:
            bars.append(Text(" " * left + "│" + "━" * length, style="green"))
    return bars


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
