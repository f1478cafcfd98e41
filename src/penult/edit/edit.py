"""Edit: one change of a head, as a recipe holds it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penult.errors import InputError

Place = float | str
REFITTED = {"balanced": "samples balanced", "least-spurious": "the least spurious samples"}
KINDS = {str: "a text", int: "a whole number", float: "a number", list: "a list"}


@dataclass(frozen=True)
class Edit:
    """One change of a head, as a recipe holds it.

    Attributes:
        kind: a name in `penult.edit.registry.EDITS`.
        feature: the feature that is edited, or None.
        of: the class whose logit is edited, by name or number; all classes where None.
        component: number (from 1) of a principal direction of the class, or None.
        direction: (n_features,) a direction in the features, or None.
        at: where the feature stays: "mean" of the analysed data, "class" for its mean in the class,
            or a number.
        value: a factor (scale), a weight (set), or a fraction (drop).
        to: what a refit follows.
        attribute: whose groups a refit balances.
        pairs: shortcuts as `feature:class` or `feature`, by which a refit tells which samples are
            the least spurious.
        reason: why, for people.
    """

    kind: str
    feature: int | None = None
    of: str | int | None = None
    component: int | None = None
    direction: tuple[float, ...] | None = field(default=None, repr=False)
    at: Place | None = None
    value: float | None = None
    to: str | None = None
    attribute: str | None = None
    pairs: tuple[str, ...] | None = None
    reason: str = ""

    def document(self) -> dict[str, Any]:
        """As a recipe holds it, without what is not given."""
        named = {
            "edit": self.kind,
            "feature": self.feature,
            "class": self.of,
            "component": self.component,
            "direction": None if self.direction is None else list(self.direction),
            "at": self.at,
            "value": self.value,
            "to": self.to,
            "attribute": self.attribute,
            "pairs": None if self.pairs is None else list(self.pairs),
            "reason": self.reason or None,
        }
        return {name: value for name, value in named.items() if value is not None}

    @property
    def least_used(self) -> float:
        """The fraction of the most used feature's use below which `drop` takes features off."""
        return 0.01 if self.value is None else self.value

    def described(self) -> str:
        """What is edited, in words."""
        whose = "" if self.of is None else f" for {self.of}"
        if self.feature is not None:
            what = f"feature {self.feature}"
        elif self.component is not None:
            what = f"direction {self.component}"
        elif self.direction is not None:
            what = "a direction"
        else:
            what = ""
        ends = {
            "off": "off",
            "cap": "capped",
            "scale": f"times {self.value:g}" if self.value is not None else "",
            "set": f"with weight {self.value:g}" if self.value is not None else "",
            "drop": f"features used less than {100 * self.least_used:g} % of the most used one off",
            "refit": f"weights refitted to {REFITTED.get(str(self.to), self.to)}",
        }
        end = ends.get(self.kind, self.kind)
        where = f" at {self.at}" if self.at is not None and self.kind != "set" else ""
        if self.attribute is not None:
            where = f" by {self.attribute}"
        return " ".join(f"{what}{whose} {end}{where}".split())


def parse_edit(found: Mapping[str, Any], where: str) -> Edit:
    """An edit from a recipe.

    Raises:
        InputError: unknown fields, or values of another kind.
    """
    known = {
        "edit": (str,),
        "feature": (int,),
        "class": (str, int),
        "component": (int,),
        "direction": (list,),
        "at": (str, int, float),
        "value": (int, float),
        "to": (str,),
        "attribute": (str,),
        "pairs": (list,),
        "reason": (str,),
    }
    if not isinstance(found, Mapping) or "edit" not in found:
        raise InputError(f"{where}: expected an object with the key `edit`")
    for name, value in found.items():
        if name not in known:
            raise InputError(f"{where}: unknown key {name!r:.60}; expected {', '.join(known)}")
        if isinstance(value, bool) or not isinstance(value, known[name]):
            allowed = [KINDS[k] for k in known[name] if k is not int or float not in known[name]]
            kinds = " or ".join(allowed)
            raise InputError(f"{where}: {name}: expected {kinds}, found {value!r:.60}")
        if isinstance(value, int | float) and not is_finite(value):
            raise InputError(f"{where}: {name}: expected a finite number, found {value!r:.60}")
    direction = found.get("direction")
    if direction is not None and not all(map(is_finite, direction)):
        raise InputError(f"{where}: direction: expected finite numbers")
    pairs = found.get("pairs")
    if pairs is not None and not is_texts(pairs):
        raise InputError(f"{where}: pairs: expected texts such as 57:cat")
    return Edit(
        found["edit"],
        found.get("feature"),
        found.get("class"),
        found.get("component"),
        None if direction is None else tuple(map(float, direction)),
        found.get("at"),
        found.get("value"),
        found.get("to"),
        found.get("attribute"),
        None if pairs is None else tuple(pairs),
        found.get("reason", ""),
    )


def is_finite(value: Any) -> bool:
    """Whether a value of a JSON document is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and math.isfinite(value)
    except OverflowError:
        return False


def is_texts(value: Any) -> bool:
    """Whether a value of a JSON document is a list of texts."""
    return isinstance(value, list) and all(isinstance(one, str) for one in value)
