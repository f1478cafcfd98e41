"""Relations: what moments say of classes and features, and of features among each other."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from penult.explain.survey import Survey
from penult.features.moments import Moments
from penult.heads.sparse_head import SparseHead

TWINS = 0.95  # correlation from which a feature duplicates another
FLAT = 0.01  # part of the variance between classes below which a feature hardly differs


@dataclass(eq=False)
class Relations:
    """Means, variances and correlations, all from one object of moments.

    Attributes:
        means: (n_classes, n_features), of each class.
        elsewhere: (n_classes, n_features), of all other classes together.
        compared: (n_classes,) bool, whether there are samples both of the class and of others;
            without, one of the two means is zeros that say nothing.
        mean: (n_features,), of all samples.
        counts: (n_classes,), samples of each class.
        share: (n_features,), fraction of the variance that lies between the classes, less what
            chance alone would put there (epsilon squared, Kelley 1935); NaN where nothing varies,
            and where fewer than two classes have samples.
        dead: (n_features,) bool, features that never change.
        flat: (n_features,) bool, features that hardly differ between classes.
        twins: (n_features,) int64, the feature that each duplicates, -1 for none.
        correlations: (n_features,), with the feature that each resembles most.
    """

    means: Tensor
    elsewhere: Tensor
    compared: Tensor
    mean: Tensor
    counts: Tensor
    share: Tensor
    dead: Tensor
    flat: Tensor
    twins: Tensor
    correlations: Tensor

    @classmethod
    def of(cls, moments: Moments, survey: Survey) -> Relations:
        """From the sums over the analysed samples, and the features' ranges."""
        n = moments.n_samples
        counts = moments.counts.double()
        total = moments.sums.sum(0)
        mean = total / n
        elsewhere = (total - moments.sums) / (n - counts).clamp(min=1)[:, None]
        means = moments.class_means()
        covariance = moments.products / n - torch.outer(mean, mean)
        variance = covariance.diagonal().clamp(min=0)
        dead = survey.low == survey.high
        between = (counts[:, None] * (means - mean) ** 2).sum(0) / n
        within = (variance - between).clamp(min=0)
        n_filled = int((counts > 0).sum())
        chance = (n_filled - 1) * within / max(n - n_filled, 1)
        share = ((between - chance) / variance).clamp(0, 1)
        share[dead | (n_filled < 2)] = torch.nan
        scale = variance.sqrt()
        scale[dead] = torch.inf
        correlation = covariance / torch.outer(scale, scale)
        correlation.fill_diagonal_(0)
        size, twins = correlation.abs().max(1)
        strongest = correlation.gather(1, twins[:, None])[:, 0]
        return cls(
            means,
            elsewhere,
            (counts > 0) & (counts < n),
            mean,
            moments.counts,
            share,
            dead,
            (share < FLAT) & ~dead,
            torch.where(size >= TWINS, twins, -1),
            strongest,
        )

    def influences(self, head: SparseHead) -> list[Tensor]:
        """For each class: how far each kept feature moves its logit up for its own samples.

        The weight times the difference of the feature's mean within the class and elsewhere; NaN
        where there is nothing to compare.
        """
        classes = head.subspaces.classes()
        kept = head.subspaces.indices
        moved = self.means[classes, kept] - self.elsewhere[classes, kept]
        found = head.values.detach().double() * moved
        found[~self.compared[classes]] = torch.nan
        ends = head.indptr.tolist()
        return [found[start:stop] for start, stop in pairwise(ends)]

    def separation(self, head: SparseHead, c: int, d: int) -> list[tuple[int, float]]:
        """How far each feature that c or d reads moves the two apart, the largest first.

        Nothing where one of them has no samples.
        """
        if not self.counts[[c, d]].all():
            return []
        return _moves(head, c, d, self.means[c] - self.means[d])

    def misleading(
        self, head: SparseHead, c: int, d: int, taken: Tensor
    ) -> list[tuple[int, float]]:
        """How far each feature moved samples of c towards d, or away from it, the largest first.

        Args:
            head: the sparse head.
            c: class of the samples.
            d: class that they were taken for.
            taken: (n_features,), their mean features; compared with those of all samples of c.
        """
        return _moves(head, c, d, taken - self.means[c]) if self.counts[c] else []


def _moves(head: SparseHead, c: int, d: int, change: Tensor) -> list[tuple[int, float]]:
    """What a change of the features adds to logit c − logit d, feature by feature."""
    weights, kept = [], []
    for one in (c, d):
        row = torch.zeros(head.n_features, dtype=torch.float64)
        start, stop = int(head.indptr[one]), int(head.indptr[one + 1])
        kept.append(head.indices[start:stop])
        row[kept[-1]] = head.values[start:stop].detach().double()
        weights.append(row)
    read = torch.unique(torch.cat(kept))
    moves = (weights[0] - weights[1])[read] * change[read]
    order = moves.abs().sort(descending=True, stable=True).indices
    return [(int(read[i]), float(moves[i])) for i in order]
