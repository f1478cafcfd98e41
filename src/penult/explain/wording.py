"""Wording: what an explanation says in words, the same in pictures, notebooks and the terminal."""

from __future__ import annotations

import re
from collections.abc import Sequence

from penult.explain.decision import Decision
from penult.text import one_line

LONGEST_SHOWN = 48


def short(name: str) -> str:
    """A name on one line of a picture or a terminal."""
    return one_line(name, LONGEST_SHOWN)


def remarks(found: Decision) -> list[str]:
    """What to know before reading on: the heads differ, or the image is unlike the data."""
    said = []
    if found.dense_predicted != found.predicted:
        own, other = (short(found.class_names[c]) for c in (found.dense_predicted, found.predicted))
        said.append(
            f"The network itself says {own}; this explains the {found.head_name}, which says "
            f"{other}. Explain the network's own (dense) head to see why the network does "
            "(--dense)."
        )
    if found.outside:
        worst = found.outside[0]
        more = len(found.outside) - 1
        also = f" ({more} other feature{'s' if more > 1 else ''} too)" if more else ""
        said.append(
            f"This {found.kind} is unlike the analysed {found.kind}s: its feature {worst.feature} "
            f"is {worst.value:.3g}, and it lies between {worst.low:.3g} and {worst.high:.3g} in "
            f"all of them{also}."
        )
    return said


def words_of(found: Decision, i: int, n: int = 3) -> str:
    """The words that add most to the feature of term i: `zebra +1.2, the −0.1`."""
    if found.words is None or i >= len(found.words.features):
        return ""
    return _listed(found.words.top(found.words.features[i], n))


def words_that_decide(found: Decision, n: int = 8) -> str:
    """The words that add most to the decision, as a sentence."""
    if found.words is None or not found.words.words:
        return ""
    of = short(found.class_names[found.terms.of])
    said = f"What each word adds to {of}: {_listed(found.words.top(found.words.decision, n))}."
    if found.words.end < len(found.words.text):
        said += " The text is longer than the network takes: it reads no further than marked."
    return said


def _listed(pairs: Sequence[tuple[str, float]]) -> str:
    return ", ".join(f"{one_line(word, 24)} {signed(f'{value:+.2f}')}" for word, value in pairs)


def one_decision(found: Decision) -> str:
    """A decision on one class by itself: its logit against 0, and whether that is right."""
    name, total = short(found.class_names[1]), found.terms.total
    side = "above 0, so it is given" if found.predicted else "not above 0, so it is not given"
    said = f"logit of {name} = {signed(f'{total:.4f}')}, {side} ({found.probability():.1%})"
    if found.label is None or found.label == found.predicted:
        return said
    return f"{said}; the data says that it {'has' if found.label else 'does not have'} the class"


def sufficient(found: Decision) -> str:
    """The sufficient reason as a sentence."""
    reason = found.reason
    if not reason.valid:
        if found.several is not None:
            return "No set of features guarantees this decision: the logit is level with 0."
        return "No set of features guarantees this class: two classes are level."
    n, of = len(reason.features), reason.n_features
    fewer = "fewer do not suffice" if reason.exact else f"at least {reason.bound:,} are needed"
    name = short(found.class_names[reason.predicted])
    decided = f"the {'prediction' if found.several is None else 'decision'}, {name}"
    if n == 0:
        return (
            f"No feature is needed to guarantee {decided}: it stays the same whatever values the "
            f"{of:,} features take within the ranges seen in the analysed data."
        )
    held = "this one keeps its value" if n == 1 else "these keep their values"
    said = (
        f"{n:,} of the {of:,} features guarantee{'s' if n == 1 else ''} {decided}: as long as "
        f"{held}, it stays the same whatever values the others take within the ranges seen in the "
        f"analysed data ({fewer})."
    )
    if found.several is not None:
        return said
    return f"{said} Features that only rival classes read count too."


def summary(found: Decision) -> str:
    """What is explained, and how it ends."""
    names, terms = found.class_names, found.terms
    if terms.against is None:
        return f"{names[terms.of]}: logit {terms.total:.3f}"
    side = "ahead of" if terms.total > 0 else "behind"
    return f"{names[terms.of]} {side} {names[terms.against]} by {abs(terms.total):.3f}"


def equation(found: Decision) -> str:
    """The sum that the terms make, as a title: `logit of cat − logit of dog = +1.20`."""
    terms, names = found.terms, found.class_names
    if terms.against is None:
        return f"logit of {short(names[terms.of])} = {signed(f'{terms.total:.3f}')}, the sum of"
    of, against = short(names[terms.of]), short(names[terms.against])
    return f"logit of {of} − logit of {against} = {signed(f'{terms.total:+.3f}')}, the sum of"


def signed(text: str) -> str:
    """Numbers with the minus sign that people write, and none before a zero."""
    return re.sub(r"-(?=0(\.0*)?(?![\d.e]))", "", text).replace("-", "−")
