"""Recipe: a list of edits with their reasons, as a file that people read and write."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from penult.edit.edit import Edit, is_texts, parse_edit
from penult.edit.registry import apply_edit, check_edit
from penult.edit.setting import EditSetting
from penult.errors import InputError
from penult.heads.bounded_head import bounded, simplest
from penult.network.head import Head
from penult.storage import read_json, write_atomically
from penult.text import number_of

FORMAT = "penult-recipe/1"
MOST_BYTES = 1 << 26


@dataclass(frozen=True)
class Recipe:
    """Edits that are applied one after the other.

    Attributes:
        edits: in order.
        head: fingerprint of the head that they are for; None where it is not said.
        gives: fingerprint of the head that they gave, where it is known.
        class_names: of that head, where they are known.
        n_features: of that head, where it is known.
        note: what the recipe is for.
    """

    edits: tuple[Edit, ...]
    head: str | None = None
    gives: str | None = None
    class_names: tuple[str, ...] | None = None
    n_features: int | None = None
    note: str = ""

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe.

        Raises:
            InputError: absent, no JSON, another format, an edit that is none.
        """
        path = Path(path)
        found = read_json(path, FORMAT, MOST_BYTES)
        known = ("format", "head", "gives", "class_names", "n_features", "note", "edits")
        unknown = [name for name in found if name not in known]
        if unknown:
            raise InputError(f"{path}: unknown key {unknown[0]!r}; expected {', '.join(known)}")
        edits = found.get("edits")
        if not isinstance(edits, list):
            raise InputError(f"{path}: expected a list of edits under `edits`")
        made = tuple(parse_edit(edit, f"{path}: edit {i}") for i, edit in enumerate(edits, 1))
        names = found.get("class_names")
        if names is not None and not is_texts(names):
            raise InputError(f"{path}: expected a list of names under `class_names`")
        for name, kind in (("head", str), ("gives", str), ("n_features", int), ("note", str)):
            value = found.get(name)
            if value is not None and type(value) is not kind:
                raise InputError(f"{path}: {name}: expected {kind.__name__}, found {value!r:.60}")
        return cls(
            made,
            found.get("head"),
            found.get("gives"),
            None if names is None else tuple(names),
            found.get("n_features"),
            found.get("note") or "",
        )

    def document(self) -> dict[str, Any]:
        """As the file holds it."""
        found: dict[str, Any] = {"format": FORMAT}
        if self.note:
            found["note"] = self.note
        for name in ("head", "gives", "n_features"):
            if getattr(self, name) is not None:
                found[name] = getattr(self, name)
        if self.class_names is not None:
            found["class_names"] = list(self.class_names)
        return {**found, "edits": [edit.document() for edit in self.edits]}

    def save(self, path: str | Path) -> None:
        """Write the recipe, one edit a line."""
        document = self.document()
        lines = [json.dumps(edit, ensure_ascii=False) for edit in document.pop("edits")]
        head = json.dumps(document, ensure_ascii=False, indent=2).removesuffix("\n}")
        edits = ",\n".join(f"    {line}" for line in lines)
        text = f'{head},\n  "edits": [\n{edits}\n  ]\n}}\n'
        write_atomically(Path(path), lambda temporary: temporary.write_text(text, encoding="utf-8"))

    def without_last(self, n: int) -> Recipe:
        """The recipe with its last edits taken away.

        Raises:
            InputError: it has fewer.
        """
        if n < 0 or n > len(self.edits):
            raise InputError(
                f"the recipe has {number_of(len(self.edits), 'edits')}, {n} cannot be undone: "
                f"expected at most {len(self.edits)}"
            )
        return replace(self, edits=self.edits[: len(self.edits) - n], gives=None)

    def once(self) -> tuple[Recipe, list[str]]:
        """Every edit once, however often it stands in the recipe; and what was left out."""
        seen: dict[Edit, int] = {}
        kept: list[Edit] = []
        said: list[str] = []
        for number, edit in enumerate(self.edits, 1):
            bare = replace(edit, reason="")
            if bare in seen:
                said.append(
                    f"edit {number} ({edit.described()}) is edit {seen[bare]} again: applied once"
                )
                continue
            seen[bare] = number
            kept.append(edit)
        return replace(self, edits=tuple(kept)), said

    def is_for(self, head: Head) -> bool:
        """Whether it names this head."""
        return self.head is not None and _same(self.head, head)

    def require_for(self, head: Head, class_names: Sequence[str]) -> None:
        """Refuse another head than the one that the recipe is for.

        Raises:
            InputError: says whether the classes, the size or the weights differ, or that the recipe
                has been applied already.
        """
        if self.class_names is not None and self.class_names != tuple(class_names):
            raise InputError(
                f"the recipe is for {len(self.class_names)} classes "
                f"({', '.join(self.class_names[:3])} …) and the head has {len(class_names)} "
                f"({', '.join(class_names[:3])} …): expected the same classes in the same order"
            )
        if self.n_features is not None and self.n_features != head.n_features:
            raise InputError(
                f"the recipe is for a head of n_features = {self.n_features}, this one reads "
                f"{head.n_features}: expected a network of the same kind"
            )
        for edit in self.edits:
            check_edit(edit, head.n_features, class_names)
        if self.head is None or self.is_for(head):
            return
        if self.gives is not None and _same(self.gives, head):
            raise InputError(
                "the recipe has been applied to this head already: it gives the head that is here"
            )
        raise InputError(
            f"the recipe is for another head (hash {self.head}; here {head.fingerprint()}): if "
            "this network is a fine-tune of that one, give that one's run with --made-for RUN"
        )


@dataclass(frozen=True, eq=False)
class Inverse:
    """What takes an edit back, bit for bit: the rows of the head as they were.

    Attributes:
        rows: classes whose weights changed.
        weight, bias: as they were, of these classes.
        directions, bounds, scales: all of the head's, as they were.
    """

    rows: torch.Tensor
    weight: torch.Tensor
    bias: torch.Tensor
    directions: torch.Tensor
    bounds: torch.Tensor
    scales: torch.Tensor

    @classmethod
    def between(cls, before: Head, after: Head) -> Inverse:
        """What leads from a head after an edit back to the one before."""
        old, new = bounded(before), bounded(after)
        # As bits: 0 and −0 are equal as numbers.
        changed = (_bits(old.weight) != _bits(new.weight)).any(1)
        changed |= _bits(old.bias) != _bits(new.bias)
        rows = changed.nonzero()[:, 0]
        kept = (old.directions, old.bounds, old.scales)
        return cls(rows, old.weight[rows].clone(), old.bias[rows].clone(), *kept)

    def __call__(self, head: Head) -> Head:
        """The head before the edit."""
        weight, bias = head.weight.clone(), head.bias.clone()
        weight[self.rows], bias[self.rows] = self.weight, self.bias
        made = replace(
            bounded(head),
            weight=weight,
            bias=bias,
            directions=self.directions,
            bounds=self.bounds,
            scales=self.scales,
        )
        return simplest(made)


@dataclass(frozen=True, eq=False)
class Edited:
    """A head with the edits made so far, each of which can be taken back.

    Attributes:
        head: as it is now.
        edits: made so far.
        inverses: one for each edit.
    """

    head: Head
    edits: tuple[Edit, ...] = ()
    inverses: tuple[Inverse, ...] = ()

    def apply(self, edit: Edit, setting: EditSetting) -> Edited:
        """With one more edit."""
        made = apply_edit(self.head, edit, setting)
        inverse = Inverse.between(self.head, made)
        return Edited(made, (*self.edits, edit), (*self.inverses, inverse))

    def is_idle(self, i: int) -> bool:
        """Whether the edit of this position, from 0, changed nothing."""
        own = self.inverses[i]
        after = bounded(self.head) if i + 1 == len(self.inverses) else self.inverses[i + 1]
        pairs = (
            (own.directions, after.directions),
            (own.bounds, after.bounds),
            (own.scales, after.scales),
        )
        return not len(own.rows) and all(torch.equal(one, other) for one, other in pairs)

    def undo(self, n: int = 1) -> Edited:
        """Without the last edits: the head is that of before to the bit.

        Raises:
            InputError: there are fewer.
        """
        if n < 0 or n > len(self.edits):
            raise InputError(
                f"{number_of(len(self.edits), 'edits')} made, {n} cannot be undone: expected at "
                f"most {len(self.edits)}"
            )
        head = self.head
        for inverse in reversed(self.inverses[len(self.edits) - n :]):
            head = inverse(head)
        kept = len(self.edits) - n
        return Edited(head, self.edits[:kept], self.inverses[:kept])


def apply_recipe(head: Head, recipe: Recipe, setting: EditSetting) -> Edited:
    """All edits of a recipe, one after the other."""
    made = Edited(head)
    for edit in recipe.edits:
        made = made.apply(edit, setting)
    return made


def _bits(values: torch.Tensor) -> torch.Tensor:
    return values.contiguous().view(torch.int32)


def _same(fingerprint: str, head: Head) -> bool:
    """Whether a head is the one of a fingerprint; its layer's name is no matter."""
    return fingerprint.split()[-1] == head.fingerprint().split()[-1]
