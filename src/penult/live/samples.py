"""SampleTable: all samples of a run, numbered, filtered and put in the order of a feature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from penult.errors import InputError
from penult.explain.survey import called
from penult.features.columns import StoredColumns
from penult.features.features import Features
from penult.features.groups import Groups
from penult.network.link import decided
from penult.runs.groups import groups_of
from penult.runs.run import Run
from penult.text import one_line, some


@dataclass(frozen=True)
class SampleQuery:
    """Which samples are asked for, in which order.

    Attributes:
        label, predicted: class that the data says, and that the network gives.
        group: attribute and value.
        feature: whose values order them; in the order of the data where None.
        rising: the smallest values first.
        text: a part of the name.
        wrong: only those that the network gets wrong.
        offset, limit: which of them are given.
    """

    label: int | None = None
    predicted: int | None = None
    group: tuple[str, str] | None = None
    feature: int | None = None
    rising: bool = False
    text: str = ""
    wrong: bool = False
    offset: int = 0
    limit: int = 60


class PartSamples:
    """The samples of one part of a run.

    Args:
        run: a finished run.
        part: "train" or "eval".
        first: number of its first sample among all.

    Attributes:
        labels: what the data says, (n_samples,) int64, or (n_samples, n_classes) bool.
        ids: name of each sample; empty where they have none.
    """

    def __init__(self, run: Run, part: str, first: int) -> None:
        self.part, self.first = part, first
        self._run = run
        self.features: Features = run.train() if part == "train" else run.evaluation()
        self.n_samples = self.features.n_samples
        self._stored = StoredColumns(self.features)
        # Read now, for the run may be gone when they are asked for.
        self.labels = self.features.labels()
        self.ids = self.features.ids()

    @cached_property
    def predicted(self) -> Tensor:
        """What the network gives, likewise; one pass over the features where not recorded."""
        head = self.features.require_head()
        return torch.cat([block.dense_classes(head) for block in self.features.blocks()])

    @cached_property
    def groups(self) -> Groups | None:
        """Their groups, where there are any."""
        return groups_of(self._run, self.part)

    def name(self, n: int) -> str:
        """A sample's name, else its number."""
        return (self.ids[n] if self.ids else "") or f"{self.part}:{n}"

    def column(self, j: int) -> Tensor:
        """One feature of all samples, (n_samples,) float32."""
        return self._stored.column(j)

    def row(self, n: int) -> Tensor:
        """All features of one sample, (n_features,) float32."""
        return self._stored.row(n)

    def given(self, n: int) -> Tensor:
        """What the network gives one sample, without a look at the others."""
        if "predicted" in self.__dict__:
            return self.predicted[n]
        head = self.features.require_head()
        return decided(head(self.row(n)[None]), head.link)[0]

    def chosen(self, query: SampleQuery) -> Tensor:
        """All samples that a query is about, (n,) int64, in its order.

        Raises:
            InputError: groups that there are not.
        """
        keep = torch.ones(self.n_samples, dtype=torch.bool)
        if query.label is not None:
            keep &= _is(self.labels, query.label)
        if query.predicted is not None:
            keep &= _is(self.predicted, query.predicted)
        if query.wrong:
            differs = self.labels != self.predicted
            keep &= differs.any(1) if differs.ndim == 2 else differs
        if query.group is not None:
            keep &= self._of_group(*query.group)
        if query.text:
            wanted = query.text.casefold()
            keep &= torch.tensor([wanted in self.name(n).casefold() for n in range(len(keep))])
        rows = keep.nonzero()[:, 0]
        if query.feature is None:
            return rows
        values = self.column(query.feature)[rows]
        order = values.sort(descending=not query.rising, stable=True).indices
        return rows[order]

    def _of_group(self, name: str, value: str) -> Tensor:
        if self.groups is None or name not in self.groups.attributes:
            known = some([*self.groups.attributes]) if self.groups is not None else "none"
            raise InputError(f"no attribute {one_line(name, 60)!r}: the samples have {known}")
        attribute = self.groups.attributes[name]
        if value not in attribute.values:
            raise InputError(
                f"no value {one_line(value, 60)!r} of {name}: expected {some(attribute.values)}"
            )
        return attribute.codes == attribute.values.index(value)


class SampleTable:
    """All samples of a run under numbers that stay the same: the analysed ones come first.

    Args:
        run: a finished run.
    """

    def __init__(self, run: Run) -> None:
        train = PartSamples(run, "train", 0)
        self.parts: Mapping[str, PartSamples] = {"train": train}
        if run.has_evaluation:
            self.parts = {"train": train, "eval": PartSamples(run, "eval", train.n_samples)}

    @property
    def judged(self) -> str:
        """The part on which accuracies are measured."""
        return [*self.parts][-1]

    def part(self, name: str) -> PartSamples:
        """The samples of a part.

        Raises:
            InputError: the run has no such part.
        """
        if name not in self.parts:
            raise InputError(f"no part {one_line(name, 40)!r}: expected {some([*self.parts])}")
        return self.parts[name]

    def at(self, number: int) -> tuple[PartSamples, int]:
        """The part of a sample, and its number there.

        Raises:
            InputError: no such number.
        """
        for part in self.parts.values():
            if 0 <= number - part.first < part.n_samples:
                return part, number - part.first
        raise InputError(f"there is no sample of number {number}")

    def number(self, part: str, n: int) -> int:
        """The number of a sample of a part.

        Raises:
            InputError: no such sample.
        """
        found = self.part(part)
        if not 0 <= n < found.n_samples:
            raise InputError(f"{part} has {found.n_samples:,} samples, found number {n}")
        return found.first + n

    def about(self, number: int, shown: bool) -> dict[str, Any]:
        """What a page knows of a sample.

        Args:
            number: of the sample.
            shown: whether there are pictures.
        """
        part, n = self.at(number)
        return {
            "id": part.name(n),
            "class": called(part.labels[n]),
            "predicted": called(part.given(n)),
            "src": f"image/{part.part}/{n}" if shown else None,
            "part": part.part,
            "sample": n,
        }


def _is(classes: Tensor, c: int) -> Tensor:
    return classes[:, c] if classes.ndim == 2 else classes == c
