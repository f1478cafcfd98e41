"""Survey: two passes over a run's features find what the pictures and the plots need."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penult.explain.toplists import Entry, Ints, TopLists
from penult.features.features import Features
from penult.features.shards import BLOCK_ROWS, Block
from penult.heads.subspaces import Subspaces

Called = int | tuple[int, ...]
BINS = 32
CLASSES_SHOWN = 12


@dataclass(eq=False)
class Survey:
    """Ranges and largest values of every feature, in the memory of a few images per feature.

    Attributes:
        low, high: (n_features,) float32, the range of each feature in the data.
        tops: largest values of each feature.
        own: largest values of each kept feature within its class; group i is entry i of the
            subspaces.
        elsewhere: likewise outside of its class, of multi-label data; None where each sample has
            one class, which `tops` leaves out.
        subspaces: which features each class keeps.
        n: values in each list.
    """

    low: Tensor
    high: Tensor
    tops: TopLists
    own: TopLists
    subspaces: Subspaces
    n: int
    elsewhere: TopLists | None = None

    @classmethod
    def of(cls, features: Features, subspaces: Subspaces, n: int) -> Survey:
        """One pass over the features.

        Args:
            features: read block by block.
            subspaces: of the head that is explained.
            n: values in each list, at least 1.
        """
        d = features.n_features
        made = cls(
            torch.full((d,), torch.inf, dtype=torch.float32),
            torch.full((d,), -torch.inf, dtype=torch.float32),
            TopLists(d, 2 * n, n),
            TopLists(len(subspaces.indices), n),
            subspaces,
            n,
        )
        indptr, indices = subspaces.indptr.numpy(), subspaces.indices.numpy()
        sizes = np.diff(indptr)
        for start, block in numbered(features):
            z, labels = block.features.numpy(), block.labels.numpy()
            samples = np.arange(start, start + len(labels))
            made.low = torch.minimum(made.low, block.features.min(0).values)
            made.high = torch.maximum(made.high, block.features.max(0).values)
            if labels.ndim == 2:
                made._several(z, samples, labels)
                continue
            made.tops.offer(z, samples, labels)
            rows = np.repeat(np.arange(len(labels)), sizes[labels])
            if len(rows):
                first = np.repeat(np.cumsum(sizes[labels]) - sizes[labels], sizes[labels])
                kept = indptr[labels[rows]] + np.arange(len(rows)) - first
                values = z[rows, indices[kept]]
                made.own.add(kept, values, samples[rows], labels[rows])
        return made

    def _several(self, z: NDArray[Any], samples: Ints, labels: NDArray[np.bool_]) -> None:
        """Samples with labels (n_samples, n_classes)."""
        if self.elsewhere is None:
            self.elsewhere = TopLists(len(self.subspaces.indices), self.n)
        self.tops.offer(z, samples, np.arange(len(z)))
        indices = self.subspaces.indices.numpy()
        for c in range(self.subspaces.n_classes):
            entries = np.asarray(kept_of(self.subspaces, c))
            for lists, chosen in ((self.own, labels[:, c]), (self.elsewhere, ~labels[:, c])):
                rows = np.flatnonzero(chosen)
                if not len(rows) or not len(entries):
                    continue
                values = z[rows][:, indices[entries]].ravel()
                places = np.repeat(samples[rows], len(entries))
                groups = np.tile(entries, len(rows))
                lists.add(groups, values, places, np.zeros_like(groups))

    def top(self, j: int) -> list[Entry]:
        """The samples on which a feature is largest."""
        return self._active(j, self.tops.entries(j, self.n))

    def top_of_class(self, kept: int) -> list[Entry]:
        """Likewise within the class that entry `kept` of the subspaces belongs to."""
        j = int(self.subspaces.indices[kept])
        return self._active(j, self.own.entries(kept, self.n))

    def top_elsewhere(self, kept: int) -> list[Entry]:
        """Likewise outside of that class."""
        j = int(self.subspaces.indices[kept])
        if self.elsewhere is not None:
            return self._active(j, self.elsewhere.entries(kept, self.n))
        c = int(np.searchsorted(self.subspaces.indptr.numpy(), kept, side="right")) - 1
        return self._active(j, self.tops.entries(j, self.n, without=c))

    def _active(self, j: int, entries: list[Entry]) -> list[Entry]:
        """Without the samples on which the feature is as low as it gets: it sees nothing there."""
        low = float(self.low[j])
        return [entry for entry in entries if entry.value > low]


@dataclass(frozen=True)
class ShownSample:
    """A sample that is shown.

    Attributes:
        number: in the order of the features.
        id: its name in the data; "" where the features have none.
        label, predicted: classes; `predicted` is the dense network's. Of multi-label data all
            classes that the sample has, and that it is given.
    """

    number: int
    id: str
    label: Called
    predicted: Called


def called(classes: Tensor) -> Called:
    """The class of a sample, a number, or its classes, (n_classes,) bool, for `ShownSample`."""
    return int(classes) if classes.ndim == 0 else tuple(classes.nonzero()[:, 0].tolist())


@dataclass(eq=False)
class Distributions:
    """Histograms of each feature, class by class, over its range.

    Attributes:
        classes: (n_features, n_shown) int64, classes with a histogram of their own, the largest
            mean first; the last histogram of a feature is that of all other classes, empty for
            multi-label data.
        counts: (n_features, n_shown + 1, BINS) int64.
        samples: those asked for.
    """

    classes: Tensor
    counts: Tensor
    samples: dict[int, ShownSample]

    @classmethod
    def of(
        cls, features: Features, survey: Survey, means: Tensor, wanted: set[int]
    ) -> Distributions:
        """One more pass over the features.

        Args:
            features: those of the survey.
            survey: gives the ranges.
            means: (n_classes, n_features), class means.
            wanted: numbers of the samples whose names are kept.
        """
        head = features.head
        n_classes, d = means.shape
        n_shown = min(n_classes, CLASSES_SHOWN)
        classes = means.T.topk(n_shown, 1).indices
        slots = torch.full((d, n_classes), n_shown)
        slots.scatter_(1, classes, torch.arange(n_shown).expand(d, -1))
        width = torch.where(survey.high > survey.low, survey.high - survey.low, 1.0)
        counts = torch.zeros(d * (n_shown + 1) * BINS, dtype=torch.int64)
        place = torch.arange(d) * (n_shown + 1)
        samples: dict[int, ShownSample] = {}
        for start, block in numbered(features):
            bins = ((block.features - survey.low) / width * BINS).long().clamp_(0, BINS - 1)
            labels = block.labels
            if labels.ndim == 2:
                own, labels = labels.nonzero().unbind(1)
                bins = bins[own]
            rows = (place + slots[:, labels].T) * BINS + bins
            counts += torch.bincount(rows.ravel(), minlength=len(counts))
            chosen = [i for i in range(len(block.labels)) if start + i in wanted]
            predicted = None
            if chosen:
                predicted = block.predicted if head is None else block.dense_classes(head)
            for i in chosen:
                label = called(block.labels[i])
                guess = label if predicted is None else called(predicted[i])
                name = block.ids[i] if block.ids else ""
                samples[start + i] = ShownSample(start + i, name, label, guess)
        shaped = counts.view(d, n_shown + 1, BINS)
        if features.multi_label:
            shaped[:, -1] = 0
        return cls(classes, shaped, samples)


def numbered(features: Features) -> Iterator[tuple[int, Block]]:
    """Blocks of bounded size with the number of their first sample."""
    start = 0
    for whole in features.blocks():
        # Features in memory are one block: what is made of it must not grow with it.
        for at in range(0, len(whole.labels), BLOCK_ROWS):
            stop = at + BLOCK_ROWS
            predicted = None if whole.predicted is None else whole.predicted[at:stop]
            block = Block(
                whole.features[at:stop], whole.labels[at:stop], predicted, whole.ids[at:stop]
            )
            yield start, block
            start += len(block.labels)


def kept_of(subspaces: Subspaces, c: int) -> range:
    """Numbers of the entries of a class in the subspaces."""
    return range(int(subspaces.indptr[c]), int(subspaces.indptr[c + 1]))
