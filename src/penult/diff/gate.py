"""Gate: rules that a change must keep, judged by intervals and not by luck."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.intervals import exact_interval, score_interval
from penult.text import described, folded, nearest, number_of, one_line, some

CONFIDENCE = 0.95
RATES = ("negative_flips", "positive_flips")
MEASURES = ("accuracy", "class.NAME", "class.any", "group.ATTRIBUTE=VALUE", "group.any", *RATES)
RETURNED = "shortcut.returned"
WORDS = ("accuracy", *RATES)
_WORD = re.compile(rf"({'|'.join(WORDS)})(?![\w.])\s*")
_SHOWN = 100  # letters of a rule in messages
ANY = "any"
FAILS, PASSES, UNKNOWN = "fails", "passes", "not enough samples to tell"
UNSAID = "cannot be told"  # whatever the number of samples
_LIMIT = re.compile(r"(?P<number>[-+−]?([0-9]+(\.[0-9]*)?|\.[0-9]+))\s*(?P<unit>%?)")
_MOST_BYTES = 1 << 20
FARTHEST = 0.2  # a limit that no change comes to: an accuracy is meant


@dataclass(frozen=True)
class Rule:
    """One rule: what would make the change fail.

    Attributes:
        text: as it was given.
        what: `accuracy`, `class.NAME`, `class.any`, `group.ATTRIBUTE=VALUE`, `group.any`,
            `negative_flips`, `positive_flips` or `shortcut.returned`; a name in double quotes is
            that name, even if it is `any`.
        sign: "<" or ">"; "" for `shortcut.returned`.
        limit: a change of accuracy, or a rate, as a fraction.
    """

    text: str
    what: str
    sign: str = ""
    limit: float = 0.0

    @classmethod
    def read(cls, text: str) -> Rule:
        """A rule such as `accuracy < -0.5`: accuracy changes in points, rates in percent.

        Raises:
            InputError: no rule; shows the place at which reading ended.
        """
        said, shown = text.strip(), repr(one_line(text, _SHOWN))
        if said == RETURNED:
            return cls(said, RETURNED)
        place = max(said.rfind("<"), said.rfind(">"))  # names may have such signs, too
        what, sign = said[:place].strip(), said[place : place + 1]
        found = _LIMIT.fullmatch(said[place + 1 :].strip())
        if place < 1 or found is None or (_WORD.match(said) and what not in WORDS):
            raise InputError(f"rule {shown}: {_where(said)}")
        limit = float(found["number"].replace("−", "-")) / 100
        _check_name(shown, what)
        if what not in RATES and not -1 <= limit <= 1:
            raise InputError(
                f"rule {shown}: expected a change of accuracy from -100 to 100 points, "
                f"found {found['number'][:20]}"
            )
        if what not in RATES and (limit >= FARTHEST if sign == "<" else limit <= -FARTHEST):
            raise InputError(
                f"rule {shown}: rules are about changes, not about accuracies: this one would "
                f"fail unless it {'rises' if sign == '<' else 'falls'} by {abs(100 * limit):g} "
                f"points; `{what} < -0.5` fails where it falls by more than half a point"
            )
        if what in RATES and not 0 <= limit <= 1:
            raise InputError(
                f"rule {shown}: expected a rate from 0 to 100 %, found {found['number'][:20]}"
            )
        if what in RATES and not found["unit"]:
            raise InputError(
                f"rule {shown}: expected a rate in percent, with its sign: `{what} {sign} 1%`"
            )
        if what not in RATES and found["unit"]:
            raise InputError(
                f"rule {shown}: expected points of accuracy without %, as in `{what} < -0.5`"
            )
        return cls(said, what, sign, limit)

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {"rule": self.text, "what": self.what, "sign": self.sign, "limit": self.limit}


def read_gate(path: Path) -> tuple[list[Rule], bool]:
    """The rules of a file `penult-gate.toml`, and whether it is strict.

    The file has `fail_if`, a list of rules, and `strict`, true or false.

    Raises:
        InputError: no TOML, another key, a rule that cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path} is no file: expected a file of rules, such as penult-gate.toml")
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise InputError(f"{path} is larger than 1 MiB: no file of rules")
        found = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as TOML: {described(error)}") from error
    unknown = [name for name in found if name not in ("fail_if", "strict")]
    if unknown:
        raise InputError(f"{path}: unknown key {unknown[0][:_SHOWN]!r}; expected fail_if, strict")
    rules, strict = found.get("fail_if", []), found.get("strict", False)
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise InputError(f"{path}: expected a list of texts under `fail_if`")
    if type(strict) is not bool:
        raise InputError(
            f"{path}: expected true or false under `strict`, found {repr(strict)[:_SHOWN]}"
        )
    if not rules:
        raise InputError(
            f'{path} holds no rule: expected for example fail_if = ["accuracy < -0.5"]'
        )
    return [Rule.read(rule) for rule in rules], strict


def check_rules(
    rules: Sequence[Rule], class_names: Sequence[str], groups: Mapping[str, Sequence[str]]
) -> None:
    """Refuse rules on classes and groups that there are not, before anything is computed.

    Args:
        rules: to be judged.
        class_names: of the samples.
        groups: values of each attribute.

    Raises:
        InputError: an unknown name; says the nearest.
    """
    for rule in rules:
        kind, _, name = rule.what.partition(".")
        if kind not in ("class", "group") or (name == ANY and kind == "class"):
            continue
        shown = repr(one_line(rule.text, _SHOWN))
        known = [*class_names]
        if kind == "group":
            if not groups:
                raise InputError(
                    f"rule {shown}: the samples have no groups: give them with penult groups"
                )
            known = [f"{one}={value}" for one, values in groups.items() for value in values]
        if name != ANY and _named(name, known) not in known:
            raise InputError(f"rule {shown}: {_unknown(kind, _named(name, known), known)}")


def judge_rules(rules: Sequence[Rule], document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each rule says of a comparison.

    A rule fails only where the whole 95 % interval of what it is about lies beyond its limit, and
    passes only where the whole interval lies within; else there are not enough samples to tell. A
    rule about any of several classes or groups looks at each with an interval as much wider as all
    of them together need (Bonferroni 1936).

    Args:
        rules: that were checked, see `check_rules`.
        document: from `penult.diff.compare.compare_sides`.

    Returns:
        For each rule its text, the verdict, the value with its interval, and whose it is.
    """
    return [_judge(rule, document) for rule in rules]


def _judge(rule: Rule, document: Mapping[str, Any]) -> dict[str, Any]:
    if rule.what == RETURNED:
        return {**rule.document(), **_of_returned(document)}
    if rule.what in RATES:
        counts = document["flips"][rule.what.removesuffix("_flips")]
        n = document["samples"]["n_samples"]
        ends = exact_interval(counts["n_samples"], n)
        return _said(rule, [("all samples", counts["rate"], ends)])
    from scipy.special import ndtri  # slow to import

    rows = _rows(rule.what, document)
    z = float(ndtri(1 - (1 - CONFIDENCE) / 2 / max(1, len(rows))))
    found = []
    for name, counts in rows:
        if counts["n_samples"]:
            low, high = score_interval(counts["lost"], counts["won"], counts["n_samples"], z)
            found.append((name, -counts["loss"], (-high, -low)))
    return _said(rule, found)


def _of_returned(document: Mapping[str, Any]) -> dict[str, Any]:
    """The verdict on shortcuts that are back: none is, only where those of the old side are known.

    Under "why" stands what is to be said where none is.
    """
    back, judged = document["evidence"]["returned"], document["evidence"]["judged"]
    verdict, why = PASSES, "none is back"
    if back:
        verdict = FAILS
    elif not judged["n_verdicts"]:
        old = document["old"]
        verdict = UNSAID
        why = (
            f"nobody has judged a feature of {one_line(old['name'], _SHOWN)} yet, so that none can "
            f"be back: penult verdict {one_line(old['run'], _SHOWN)} FEATURE:CLASS shortcut"
        )
    elif judged["n_lost"]:
        verdict = UNSAID
        why = (
            f"{judged['n_lost']:,} of {number_of(judged['n_shortcuts'], 'shortcuts')} cannot be "
            "followed: the new side has no feature like it, or no sample is of its class"
        )
    elif not judged["n_shortcuts"]:
        why = f"{number_of(judged['n_verdicts'], 'verdicts')} so far, none of a shortcut"
    names = [f"{row['feature']}:{row['class']}" for row in back]
    return {"verdict": verdict, "value": len(back), "whose": names, "why": why}


def _said(rule: Rule, found: Sequence[tuple[str, float, tuple[float, float]]]) -> dict[str, Any]:
    """The verdict on a rule from the values and intervals of all that it is about."""
    less = rule.sign == "<"
    beyond = [one for one in found if (one[2][1] < rule.limit if less else one[2][0] > rule.limit)]
    within = [
        one for one in found if (one[2][0] >= rule.limit if less else one[2][1] <= rule.limit)
    ]
    verdict = FAILS if beyond else PASSES if len(within) == len(found) and found else UNKNOWN
    # Those that fail, else those that leave it open, else all: the worst is told.
    told = beyond or [one for one in found if one not in within] or found
    told = sorted(told, key=lambda one: one[1] if less else -one[1])
    worst = told[0] if told else None
    return {
        **rule.document(),
        "verdict": verdict,
        "value": None if worst is None else worst[1],
        "interval": None if worst is None else list(worst[2]),
        "whose": [name for name, _, _ in told],
    }


def _rows(what: str, document: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    kind, _, name = what.partition(".")
    if kind == "accuracy":
        return [("all samples", document["overall"])]
    if kind == "class":
        rows = [(row["class"], row) for row in document["classes"]]
    else:
        rows = [
            (f"{attribute}={row['value']}", row)
            for attribute, values in document["groups"].items()
            for row in values
        ]
    wanted = _named(name, {row[0] for row in rows})
    return [row for row in rows if name == ANY or row[0] == wanted]


def _named(name: str, known: Collection[str]) -> str:
    """The name that a rule means: without double quotes, where they are none of its own.

    Where there is none, the only one that is the same but for its case, its blanks or its form of
    Unicode; else as it is given.
    """
    bare = name[1:-1]
    if len(name) > 1 and name[0] == name[-1] == '"' and (bare in known or name not in known):
        name = bare
    if name in known:
        return name
    alike = [one for one in known if folded(one) == folded(name)]
    return alike[0] if len(alike) == 1 else name


def _check_name(shown: str, what: str) -> None:
    kind, dot, name = what.partition(".")
    if what in WORDS or (kind == "class" and dot and name):
        return
    if kind == "group" and (name == ANY or "=" in name):
        return
    if what == RETURNED:
        raise InputError(f"rule {shown}: {RETURNED} takes no limit: write it alone")
    near = nearest(what, (*WORDS, "class.any", "group.any", RETURNED))
    hint = (
        f"did you mean {some(near)}?" if near else f"there are {', '.join((*MEASURES, RETURNED))}"
    )
    found = repr(one_line(what, _SHOWN))
    raise InputError(f"rule {shown}: unknown {found} at position 1; {hint}")


def _where(text: str) -> str:
    """What is wrong with a rule, and at which position."""
    if not text:
        return "expected a rule such as `accuracy < -0.5`, found none"
    if text[0] in "<>":
        return "expected what the rule is about at position 1, such as accuracy"
    start = _sign_place(text)
    if text[start : start + 1] not in ("<", ">"):
        found = repr(text[start : start + 20]) if text[start:] else "its end"
        if nearest(text[:_SHOWN], [RETURNED]):
            return f"did you mean {RETURNED}?"
        return (
            f"expected < or > at position {start + 1}, found {found}; write for example "
            "`accuracy < -0.5`"
        )
    rest = text[start + 1 :]
    place = start + 1 + len(rest) - len(rest.lstrip()) + 1
    number = re.match(r"[-+−]?[0-9.]+\s*%?\s*", text[place - 1 :])
    if number is not None and place - 1 + number.end() < len(text):
        place += number.end()
        return (
            f"expected nothing after the number, found {text[place - 1 :][:20]!r} at position "
            f"{place}"
        )
    found = repr(text[place - 1 :][:20]) if text[place - 1 :] else "its end"
    return f"expected a number at position {place}, found {found}"


def _sign_place(text: str) -> int:
    """Where the < or > of a rule stands, or should: behind what it is about."""
    word = _WORD.match(text)
    if word is not None:
        return word.end()
    last = max(text.rfind("<"), text.rfind(">"))
    if last >= 0:
        return last
    # The name of a class or a group may hold anything: what stands before the number at the end.
    name = text.find("=") + 1 if text.startswith("group.") else 0
    end = re.search(r"(?<=\S)(\s*[=!≤≥≠]+\s*|\s+)[-+−]?[0-9.]+\s*%?$", text[name:][-_SHOWN:])
    if end is None:
        return len(text)
    at = max(name, len(text) - _SHOWN) + end.start()
    return at + len(text[at:]) - len(text[at:].lstrip())


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    hint = f"did you mean {_listed(near)}?" if near else f"there are {_listed(list(known))}"
    return f"no {what} is called {one_line(name, _SHOWN)!r}: {hint}"


def _listed(names: Sequence[str]) -> str:
    return some([one_line(name, _SHOWN) for name in names])
