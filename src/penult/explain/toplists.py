"""The largest values of many groups, kept while samples stream by."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Entry:
    """One of the largest values of a group.

    Attributes:
        sample: number of the sample in the order of the features.
        value: of the feature.
    """

    sample: int
    value: float


class TopLists:
    """The n largest values of each group, in memory that does not grow with the samples.

    With `per_tag` a group keeps at most so many samples with the same tag. Tags being classes and
    `n = 2 * per_tag`, the list of a feature holds its `per_tag` largest values of all, and also
    those outside of any one class: whichever class is left out, it takes at most half of the list.

    Args:
        n_groups: number of groups.
        n: values that each keeps.
        per_tag: at most so many of them with one tag; n where None.
    """

    def __init__(self, n_groups: int, n: int, per_tag: int | None = None) -> None:
        self.n = n
        self.per_tag = n if per_tag is None else per_tag
        self._floors = np.full(n_groups, -np.inf, np.float32)
        self._groups: Ints = np.empty(0, np.int64)
        self._values: Floats = np.empty(0, np.float32)
        self._samples: Ints = np.empty(0, np.int64)
        self._tags: Ints = np.empty(0, np.int64)
        self._starts: Ints | None = None  # of each group, once they are asked for

    def add(self, groups: Ints, values: Floats, samples: Ints, tags: Ints) -> None:
        """Offer values, in arrays of one length; of equal values the first sample wins."""
        likely = values > self._floors[groups]
        groups = np.concatenate([self._groups, groups[likely]])
        values = np.concatenate([self._values, values[likely]])
        samples = np.concatenate([self._samples, samples[likely]])
        tags = np.concatenate([self._tags, tags[likely]])
        order = np.lexsort((samples, -values, groups))
        groups, values = groups[order], values[order]
        samples, tags = samples[order], tags[order]
        by_tag = np.lexsort((np.arange(len(tags)), tags, groups))
        kept = np.zeros(len(groups), bool)
        kept[by_tag] = _ranks(groups[by_tag], tags[by_tag]) < self.per_tag
        groups, values = groups[kept], values[kept]
        samples, tags = samples[kept], tags[kept]
        ranks = _ranks(groups, np.zeros_like(groups))
        kept = ranks < self.n
        self._groups, self._values = groups[kept], values[kept]
        self._samples, self._tags = samples[kept], tags[kept]
        self._starts = None
        full = groups[ranks == self.n - 1]
        self._floors[full] = values[ranks == self.n - 1]

    def offer(self, z: Floats, samples: Ints, tags: Ints) -> None:
        """Offer all values of a block (n_samples, n_features); group j is feature j."""
        for rows in self._parts(tags):
            likely = z[rows] > self._floors
            if likely.sum() > len(rows) * len(self._floors) / 8:
                likely &= self._leading(z[rows], tags[rows])
            part, columns = np.nonzero(likely)
            chosen = rows[part]
            self.add(columns, z[chosen, columns], samples[chosen], tags[chosen])

    def entries(self, group: int, n: int, without: int | None = None) -> list[Entry]:
        """The n largest values of a group, in falling order; `without` leaves out a tag."""
        if self._starts is None:
            self._starts = np.searchsorted(self._groups, np.arange(len(self._floors) + 1))
        rows = slice(*self._starts[group : group + 2].tolist())
        samples, values = self._samples[rows], self._values[rows]
        if without is not None:
            kept = self._tags[rows] != without
            samples, values = samples[kept], values[kept]
        pairs = zip(samples[:n].tolist(), values[:n].tolist(), strict=True)
        return [Entry(sample, value) for sample, value in pairs]

    def _leading(self, z: Floats, tags: Ints) -> NDArray[np.bool_]:
        """Which values are among the `per_tag` largest of their column and tag."""
        leading = np.ones(z.shape, bool)
        for tag, count in zip(*np.unique(tags, return_counts=True), strict=True):
            if count > self.per_tag:
                rows = np.flatnonzero(tags == tag)
                later = np.argsort(-z[rows], axis=0, kind="stable")[self.per_tag :]
                leading[rows[later], np.arange(z.shape[1])] = False
        return leading

    def _parts(self, tags: Ints, rows_at_once: int = 256) -> list[Ints]:
        """Rows dealt so that each part has few of one tag: what it adds raises the floors early."""
        order = np.argsort(tags, kind="stable")
        dealt = np.argsort(_ranks(tags[order], np.zeros_like(tags)), kind="stable")
        shuffled = order[dealt]
        return [np.sort(part) for part in np.array_split(shuffled, -(-len(tags) // rows_at_once))]


def _ranks(first: Ints, second: Ints) -> Ints:
    """Place of each row among its neighbours of the same pair, for arrays with these in runs."""
    if not len(first):
        return np.empty(0, np.int64)
    begins = np.empty(len(first), bool)
    begins[0] = True
    begins[1:] = (first[1:] != first[:-1]) | (second[1:] != second[:-1])
    starts = np.maximum.accumulate(np.where(begins, np.arange(len(first)), 0))
    ranks: Ints = np.arange(len(first)) - starts
    return ranks
