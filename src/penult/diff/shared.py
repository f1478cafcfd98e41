"""Shared: the samples that both sides were judged on, and their classes under common names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.diff.content import by_content
from penult.diff.side import Side
from penult.edit.verdicts import Verdict
from penult.errors import InputError
from penult.progress import Progress
from penult.text import called, folded, number_of, one_line, some

Verdicts = Mapping[tuple[int, str | None], Verdict]


@dataclass(frozen=True, eq=False)
class Shared:
    """Samples that both sides have, matched by their ids.

    Attributes:
        old_rows, new_rows: (n_samples,) their numbers on each side.
        ids: their names.
        class_names: those of the new side, then those that only the old one has.
        old_places, new_places: (n_classes of the side,) the place of its classes among them.
        labels: (n_samples,) int64, as the new side has them.
        old, new: (n_samples,) int64, the class that each side gives.
        only_old, only_new: samples that one side alone has.
        left_out: samples of classes that one side does not know, by class.
        relabelled: samples whose label is another on the two sides.
        renamed: samples that have other names on the two sides and the same content.
        rewritten: new name of each class that only its case, its blanks or its form of Unicode
            tell from an old one's, by its old name.
    """

    old_rows: Tensor
    new_rows: Tensor
    ids: tuple[str, ...]
    class_names: tuple[str, ...]
    old_places: Tensor
    new_places: Tensor
    labels: Tensor
    old: Tensor
    new: Tensor
    only_old: int
    only_new: int
    left_out: dict[str, int]
    relabelled: int
    renamed: int
    rewritten: dict[str, str]

    @classmethod
    def of(cls, old: Side, new: Side, progress: Progress | None = None) -> Shared:
        """Match the samples of two sides: by their names, and what is left by its content.

        Args:
            old, new: the sides.
            progress: called with (images read, images in all) where contents are compared.

        Raises:
            InputError: no sample, or no class, that both have.
        """
        first, second = (one.features.ids() for one in (old, new))
        _require_names(old, first, new, second)
        place = {name: row for row, name in enumerate(first)}
        pairs = [(place[name], row) for row, name in enumerate(second) if name in place]
        taken = [{pair[side] for pair in pairs} for side in (0, 1)]
        left = [
            [row for row in range(len(ids)) if row not in rows]
            for ids, rows in zip((first, second), taken, strict=True)
        ]
        renamed = by_content(old, new, (left[0], left[1]), progress)
        pairs += renamed
        if not pairs:
            raise InputError(
                f"{old.name} and {new.name} share no sample: the first is called "
                f"{one_line(first[0], 60)} in the one and {one_line(second[0], 60)} in the other; "
                "expected two runs with the same evaluation samples, under the same names or "
                "with the same pixels"
            )
        pairs.sort()
        rows = torch.tensor(pairs)
        known, rewritten = new.class_names, _rewritten(old.class_names, new.class_names)
        names = [rewritten.get(name, name) for name in old.class_names]
        both = [name for name in known if name in set(names)]
        if not both:
            raise InputError(
                f"{old.name} and {new.name} share no class: {_few(names)} and {_few(known)}"
            )
        union = (*known, *(name for name in names if name not in set(known)))
        position = {name: i for i, name in enumerate(union)}
        old_places = torch.tensor([position[name] for name in names])
        new_places = torch.arange(len(known))
        old_labels = old_places[old.features.labels()[rows[:, 0]]]
        labels = new_places[new.features.labels()[rows[:, 1]]]
        common = torch.zeros(len(union), dtype=torch.bool)
        common[[position[name] for name in both]] = True
        keep = common[labels]
        lacking = Counter(labels[~keep].tolist())
        rows, labels, old_labels = rows[keep], labels[keep], old_labels[keep]
        if not len(rows):
            raise InputError(
                f"{old.name} and {new.name} share no sample of a class that both have: the classes "
                f"of both are {_few(both)}"
            )
        return cls(
            rows[:, 0],
            rows[:, 1],
            tuple(second[row] for row in rows[:, 1].tolist()),
            union,
            old_places,
            new_places,
            labels,
            old_places[old.classes()[rows[:, 0]]],
            new_places[new.classes()[rows[:, 1]]],
            len(first) - len(pairs),
            len(second) - len(pairs),
            {union[c]: n for c, n in sorted(lacking.items())},
            int((labels != old_labels).sum()),
            len(renamed),
            rewritten,
        )

    @property
    def n_samples(self) -> int:
        """How many both sides have."""
        return len(self.labels)

    @property
    def counts(self) -> Tensor:
        """Samples of each class, (n_classes of both sides,)."""
        return torch.bincount(self.labels, minlength=len(self.class_names))

    @property
    def same_classes(self) -> bool:
        """Whether both sides have the same classes, in whatever order."""
        return len(self.old_places) == len(self.new_places) == len(self.class_names)

    def under_new_names(self, verdicts: Verdicts) -> Verdicts:
        """Verdicts of the old side, on the classes as the new side writes them."""
        return {
            (feature, self.rewritten.get(of, of) if of is not None else None): verdict
            for (feature, of), verdict in verdicts.items()
        }

    def document(self, old: Side, new: Side) -> dict[str, Any]:
        """What was matched and what was left out."""
        names = [self.rewritten.get(name, name) for name in old.class_names]
        known = new.class_names
        return {
            "n_samples": self.n_samples,
            "only_old": self.only_old,
            "only_new": self.only_new,
            "relabelled": self.relabelled,
            "renamed": self.renamed,
            "left_out": self.left_out,
            "classes_rewritten": self.rewritten,
            "classes_only_old": [name for name in names if name not in set(known)],
            "classes_only_new": [name for name in known if name not in set(names)],
        }


def _rewritten(names: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """Old classes that the new side has only in another writing, by their old names."""
    left = [
        [name for name in mine if name not in others]
        for mine, others in ((names, set(known)), (known, set(names)))
    ]
    counts = [Counter(map(folded, some_left)) for some_left in left]
    alike = {folded(name): name for name in left[1]}
    return {
        name: alike[key]
        for name in left[0]
        if counts[0][key := folded(name)] == 1 and counts[1][key] == 1
    }


def _few(names: Sequence[str]) -> str:
    return some([called(name) for name in names])


def _require_names(old: Side, first: Sequence[str], new: Side, second: Sequence[str]) -> None:
    """Refuse row numbers as names where the two sets cannot be the same samples in one order."""
    numbered = [list(ids) == [str(i) for i in range(len(ids))] for ids in (first, second)]
    if not any(numbered) or (old.run.folder.resolve() == new.run.folder.resolve()):
        return
    if not all(numbered):
        raise InputError(
            f"the samples of {old.name if numbered[0] else new.name} have no names, only row "
            "numbers: expected ids in both features files"
        )
    one, other = (side.features.labels() for side in (old, new))
    if len(one) != len(other):
        raise InputError(
            f"{old.name} has {number_of(len(one), 'samples')} and {new.name} {len(other):,}, all "
            "without names, so that nobody can say which of them are the same: expected ids in "
            "both features files, or the same samples in the same order"
        )
    if not torch.equal(one, other):
        raise InputError(
            f"the samples of {old.name} and {new.name} have no names, and their labels differ by "
            "row: expected ids in both features files, or the same samples in the same order"
        )
