"""Profile: what one pass over some features leaves for the measures, independent of n_samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.features.features import Features
from penult.features.influence import TopCounts
from penult.features.moments import Moments
from penult.features.shards import BLOCK_ROWS
from penult.measure.selectivity import ShareCounts

N_GROUPS = 20
N_GROUPS_WIDE = 10
WIDE = 512


@dataclass(eq=False)
class Profile:
    """Sums, counts and histograms of one pass.

    Attributes:
        groups: moments of the samples, dealt at random to a few groups: their sum is that of all
            samples, and leaving one out gives the jackknife its replicates.
        group_sizes: (n_groups, n_classes, n_features) float64, sums of |z|.
        top_counts: how often each feature is among a sample's top ones.
        shares: histograms for Ψ.
        n_silent: samples whose features are all zero; they have no shares.
        low, high: (n_features,) smallest and largest activation of each feature.
    """

    groups: list[Moments]
    group_sizes: Tensor
    top_counts: TopCounts
    shares: ShareCounts
    low: Tensor
    high: Tensor
    n_silent: int = 0

    @classmethod
    def of(
        cls,
        features: Features,
        n_classes: int,
        ks: Sequence[int],
        fractions: Sequence[float],
        seed: int = 0,
    ) -> Profile:
        """One pass over the features.

        Args:
            features: read block by block.
            n_classes: also of classes without samples.
            ks: sizes for which top features are counted.
            fractions: for Ψ.
            seed: deals the samples to groups.
        """
        d = features.n_features
        n_groups = N_GROUPS if d <= WIDE else N_GROUPS_WIDE
        made = cls(
            [Moments.zeros(n_classes, d) for _ in range(n_groups)],
            torch.zeros(n_groups, n_classes, d, dtype=torch.float64),
            TopCounts.zeros(ks, n_classes, d),
            ShareCounts.zeros(fractions, n_classes, d),
            torch.full((d,), torch.inf, dtype=torch.float32),
            torch.full((d,), -torch.inf, dtype=torch.float32),
        )
        generator = torch.Generator().manual_seed(seed)
        for block in features.blocks():
            # Features in memory are one block: what is made of it must not grow with it.
            parts = torch.split(block.features, BLOCK_ROWS), torch.split(block.labels, BLOCK_ROWS)
            for z, labels in zip(*parts, strict=True):
                made._update(z, labels, generator)
        return made

    def _update(self, z: Tensor, labels: Tensor, generator: torch.Generator) -> None:
        n_groups = len(self.groups)
        dealt = torch.randperm(len(z), generator=generator)
        first = int(torch.randint(n_groups, (), generator=generator))
        for g in range(n_groups):
            rows = dealt[(g - first) % n_groups :: n_groups]
            self.groups[g].update(z[rows], labels[rows])
            sizes = z[rows].double().abs()
            if labels.ndim == 2:
                self.group_sizes[g].addmm_(labels[rows].double().T, sizes)
            else:
                self.group_sizes[g].index_add_(0, labels[rows], sizes)
        self.top_counts.update(z, labels)
        self.shares.update(z, labels)
        self.n_silent += int((z == 0).all(1).sum())
        self.low = torch.minimum(self.low, z.min(0).values)
        self.high = torch.maximum(self.high, z.max(0).values)

    @property
    def moments(self) -> Moments:
        """Moments of all samples."""
        whole = self.groups[0]
        for group in self.groups[1:]:
            whole = whole + group
        return whole

    @property
    def counts(self) -> Tensor:
        """Samples per class, (n_classes,)."""
        return torch.stack([group.counts for group in self.groups]).sum(0)

    @property
    def class_sizes(self) -> Tensor:
        """Mean |z| of each class, (n_classes, n_features)."""
        return self.group_sizes.sum(0) / self.counts.clamp(min=1)[:, None]

    @property
    def dead(self) -> Tensor:
        """Features that never change: for a ReLU those that are always zero."""
        return (self.low == self.high).nonzero()[:, 0]

    @property
    def negative(self) -> bool:
        """Whether any activation is below zero."""
        return bool((self.low < 0).any())
