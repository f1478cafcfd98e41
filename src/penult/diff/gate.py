"""Gate: rules that a change must keep, judged by intervals and not by luck."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.intervals import accuracy_interval, paired_interval
from penult.text import described, nearest, some

CONFIDENCE = 0.95
RATES = ("negative_flips", "positive_flips")
MEASURES = ("accuracy", "class.NAME", "class.any", "group.ATTRIBUTE=VALUE", "group.any", *RATES)
RETURNED = "shortcut.returned"
ANY = "any"
FAILS, PASSES, UNKNOWN = "fails", "passes", "not enough samples to tell"
_RULE = re.compile(
    r"(?P<what>.+?)\s*(?P<sign><|>)\s*(?P<limit>[-+−]?(\d+(\.\d*)?|\.\d+))\s*(?P<unit>%?)"
)
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
        said = text.strip()
        if said == RETURNED:
            return cls(said, RETURNED)
        found = _RULE.fullmatch(said)
        if found is None:
            raise InputError(f"rule {text!r}: {_where(said)}")
        what, sign = found["what"].strip(), found["sign"]
        limit = float(found["limit"].replace("−", "-")) / 100
        _check_name(text, what)
        if what not in RATES and not -1 <= limit <= 1:
            raise InputError(
                f"rule {text!r}: expected a change of accuracy from -100 to 100 points, "
                f"found {found['limit'][:20]}"
            )
        if what not in RATES and (limit >= FARTHEST if sign == "<" else limit <= -FARTHEST):
            raise InputError(
                f"rule {text!r}: rules are about changes, not about accuracies: this one would "
                f"fail unless it {'rises' if sign == '<' else 'falls'} by {abs(100 * limit):g} "
                f"points; `{what} < -0.5` fails where it falls by more than half a point"
            )
        if what in RATES and not 0 <= limit <= 1:
            raise InputError(
                f"rule {text!r}: expected a rate from 0 to 100 %, found {found['limit'][:20]}"
            )
        if what in RATES and not found["unit"]:
            raise InputError(
                f"rule {text!r}: expected a rate in percent, with its sign: `{what} {sign} 1%`"
            )
        if what not in RATES and found["unit"]:
            raise InputError(
                f"rule {text!r}: expected points of accuracy without %, as in `{what} < -0.5`"
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
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as TOML: {described(error)}") from error
    unknown = [name for name in found if name not in ("fail_if", "strict")]
    if unknown:
        raise InputError(f"{path}: unknown key {unknown[0]!r}; expected fail_if, strict")
    rules, strict = found.get("fail_if", []), found.get("strict", False)
    if not isinstance(rules, list) or not all(isinstance(rule, str) for rule in rules):
        raise InputError(f"{path}: expected a list of texts under `fail_if`")
    if type(strict) is not bool:
        raise InputError(f"{path}: expected true or false under `strict`, found {strict!r}")
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
        if kind == "class" and name != ANY and _unquoted(name) not in class_names:
            raise InputError(
                f"rule {rule.text!r}: {_unknown('class', _unquoted(name), class_names)}"
            )
        if kind != "group":
            continue
        if not groups:
            raise InputError(
                f"rule {rule.text!r}: the samples have no groups: give them with penult groups"
            )
        known = [f"{attribute}={value}" for attribute, values in groups.items() for value in values]
        if name != ANY and _unquoted(name) not in known:
            raise InputError(f"rule {rule.text!r}: {_unknown('group', _unquoted(name), known)}")


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
        found = document["evidence"]["returned"]
        names = [f"{row['feature']}:{row['class']}" for row in found]
        verdict = FAILS if found else PASSES
        return {**rule.document(), "verdict": verdict, "value": len(found), "whose": names}
    if rule.what in RATES:
        counts = document["flips"][rule.what.removesuffix("_flips")]
        n = document["samples"]["n_samples"]
        ends = accuracy_interval(counts["n_samples"], n)
        return _said(rule, [("all samples", counts["rate"], ends)])
    from scipy.special import ndtri  # slow to import

    rows = _rows(rule.what, document)
    z = float(ndtri(1 - (1 - CONFIDENCE) / 2 / max(1, len(rows))))
    found = []
    for name, counts in rows:
        if counts["n_samples"]:
            low, high = paired_interval(counts["lost"], counts["won"], counts["n_samples"], z)
            found.append((name, -counts["loss"], (-high, -low)))
    return _said(rule, found)


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
    return [row for row in rows if name == ANY or _unquoted(name) == row[0]]


def _unquoted(name: str) -> str:
    return name[1:-1] if len(name) > 2 and name[0] == name[-1] == '"' else name


def _check_name(text: str, what: str) -> None:
    kind, dot, name = what.partition(".")
    if what in ("accuracy", *RATES) or (kind == "class" and dot and name):
        return
    if kind == "group" and (name == ANY or "=" in name):
        return
    if what == RETURNED:
        raise InputError(f"rule {text!r}: {RETURNED} takes no limit: write it alone")
    near = nearest(what, ("accuracy", "class.any", "group.any", *RATES, RETURNED))
    hint = (
        f"did you mean {some(near)}?" if near else f"there are {', '.join((*MEASURES, RETURNED))}"
    )
    raise InputError(f"rule {text!r}: unknown {what!r} at position 1; {hint}")


def _where(text: str) -> str:
    """What is wrong with a rule, and at which position."""
    sign = re.search(r"[<>]", text)
    if sign is None:
        return (
            f"expected < or > at position {len(text) + 1}, found its end; write for example "
            "`accuracy < -0.5`"
        )
    rest = text[sign.end() :]
    place = sign.end() + len(rest) - len(rest.lstrip()) + 1
    if not text[: sign.start()].strip():
        return "expected what the rule is about at position 1, such as accuracy"
    number = re.match(r"[-+−]?[\d.]+\s*%?\s*", text[place - 1 :])
    if number is not None and place - 1 + number.end() < len(text):
        end = place + number.end()
        return (
            f"expected nothing after the number, found {text[end - 1 :][:20]!r} at position {end}"
        )
    found = text[place - 1 :][:20]
    return (
        f"expected a number at position {place}, found {found!r}"
        if found
        else (f"expected a number at position {place}, found its end")
    )


def _unknown(what: str, name: str, known: Sequence[str]) -> str:
    near = nearest(name, known)
    hint = f"did you mean {some(near)}?" if near else f"there are {some(list(known))}"
    return f"no {what} is called {name!r}: {hint}"
