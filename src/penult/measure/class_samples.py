"""ClassSamples: a bounded part of some features in memory, for measures that sums cannot give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.features.draw import stratified
from penult.features.features import Features

MAX_ELEMENTS = 2**25


@dataclass(frozen=True, eq=False)
class ClassSamples:
    """Samples in memory, and which of them each class has.

    A sample of multi-label data belongs to several classes or to none.

    Attributes:
        z: (n_samples, n_features) float32; ordered by class where each sample has one.
        counts: (n_classes,) int64, samples of each class.
        rows: (counts.sum(),) int64, the samples of each class in turn, as rows of z.
    """

    z: Tensor
    counts: Tensor
    rows: Tensor

    @classmethod
    def of(
        cls,
        features: Features,
        n_classes: int,
        seed: int = 0,
        max_elements: int = MAX_ELEMENTS,
    ) -> ClassSamples:
        """All samples where at most `max_elements` numbers, else the same part of every class.

        Args:
            features: read once.
            n_classes: also of classes without samples.
            seed: of the choice.
            max_elements: bound of n_samples · n_features.
        """
        bound = max(1, max_elements // features.n_features)
        part = features
        if features.n_samples > bound:
            labels = features.labels()
            # Nearly every sample may have a set of classes of its own: they are drawn as one class.
            alike = labels if labels.ndim == 1 else torch.zeros(len(labels), dtype=torch.int64)
            part = features.subset(stratified(alike, bound / features.n_samples, seed))
        z, labels = part.arrays()
        if labels.ndim == 2:
            return cls(z, labels.sum(0), labels.T.nonzero()[:, 1])
        order = labels.argsort(stable=True)
        counts = torch.bincount(labels, minlength=n_classes)
        return cls(z[order], counts, torch.arange(len(z)))

    @property
    def n_classes(self) -> int:
        """Number of classes, samples or not."""
        return len(self.counts)

    def classes(self) -> Iterator[Tensor]:
        """Samples of each class in turn, (n_samples of the class, n_features)."""
        return (self.z[rows] for rows in self.members())

    def members(self) -> tuple[Tensor, ...]:
        """Rows of z of the samples of each class."""
        return torch.split(self.rows, self.counts.tolist())

    def others(self, rows: Tensor, n: int, generator: torch.Generator) -> Tensor:
        """Of the samples that are not among `rows`, n at random, with replacement."""
        outside = torch.ones(len(self.z), dtype=torch.bool)
        outside[rows] = False
        found = outside.nonzero()[:, 0]
        if not len(found):
            return self.z[:0]
        return self.z[found[torch.randint(len(found), (n,), generator=generator)]]

    def by_sample(self, values: Tensor) -> Tensor:
        """Values of the classes' samples as one for each sample: of the same mean.

        The values that a sample has for several classes depend on each other. What is returned
        varies as the mean over all values does when samples are drawn anew: a ratio estimate,
        Cochran 1977, chapter 6.

        Args:
            values: (n_members, ...), in the order of `rows`.

        Returns:
            (n, ...) of the samples that belong to some class.
        """
        if len(self.rows) == len(self.z) and torch.equal(self.rows, torch.arange(len(self.z))):
            return values
        values = values.double()
        mean = values.mean(0)
        n_each = torch.bincount(self.rows, minlength=len(self.z))
        off = values.new_zeros(len(self.z), *values.shape[1:]).index_add_(
            0, self.rows, values - mean
        )
        there = n_each > 0
        return mean + off[there] * (int(there.sum()) / len(self.rows))
