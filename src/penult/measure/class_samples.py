"""ClassSamples: a bounded part of some features in memory, for measures that sums cannot give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.features.draw import stratified
from penult.features.features import Features
from penult.network.head import Head

MAX_ELEMENTS = 2**25


@dataclass(frozen=True, eq=False)
class ClassSamples:
    """Samples in memory, ordered by class.

    Attributes:
        z: (n_samples, n_features) float32.
        labels: (n_samples,) int64, never decreasing.
        predicted: (n_samples,) int64, the network's own classes; None where they are not known.
        counts: (n_classes,) int64.
    """

    z: Tensor
    labels: Tensor
    predicted: Tensor | None
    counts: Tensor

    @classmethod
    def of(
        cls,
        features: Features,
        n_classes: int,
        head: Head | None = None,
        seed: int = 0,
        max_elements: int = MAX_ELEMENTS,
    ) -> ClassSamples:
        """All samples where at most `max_elements` numbers, else the same part of every class.

        Args:
            features: read once.
            n_classes: also of classes without samples.
            head: gives the classes of samples for which none are recorded.
            seed: of the choice.
            max_elements: bound of n_samples · n_features.
        """
        bound = max(1, max_elements // features.n_features)
        part = features
        if features.n_samples > bound:
            keep = stratified(features.labels(), bound / features.n_samples, seed)
            part = features.subset(keep)
        blocks = list(part.blocks())
        z = torch.cat([block.features for block in blocks])
        labels = torch.cat([block.labels for block in blocks])
        known = head is not None or all(block.predicted is not None for block in blocks)
        predicted = None
        if known:
            predicted = torch.cat(
                [block.predicted if head is None else block.dense_classes(head) for block in blocks]  # type: ignore[misc]
            )
        order = labels.argsort(stable=True)
        return cls(
            z[order],
            labels[order],
            None if predicted is None else predicted[order],
            torch.bincount(labels, minlength=n_classes),
        )

    @property
    def n_classes(self) -> int:
        """Number of classes, samples or not."""
        return len(self.counts)

    def classes(self) -> Iterator[Tensor]:
        """Samples of each class in turn, (n_samples of the class, n_features)."""
        return iter(torch.split(self.z, self.counts.tolist()))
