"""Relations: what moments say of classes and features, and of features among each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penult.explain.survey import Survey
from penult.features.moments import Moments
from penult.report.rows import HeadRows

TWINS = 0.95  # correlation from which a feature duplicates another
FLAT = 0.01  # part of the variance between classes below which a feature hardly differs


@dataclass(eq=False)
class ClassMeans:
    """Mean features of each class, and of all other classes together.

    Attributes:
        means: (n_classes, n_features), of each class.
        elsewhere: (n_classes, n_features), of all other classes together.
        counts: (n_classes,), samples of each class.
        compared: (n_classes,) bool, whether there are samples both of the class and of others;
            without, one of the two means is zeros that say nothing.
        n_samples: in all.
    """

    means: Tensor
    elsewhere: Tensor
    counts: Tensor
    compared: Tensor
    n_samples: int

    @classmethod
    def of(cls, moments: Moments) -> ClassMeans:
        """From the sums over the analysed samples."""
        n, counts = moments.n_samples, moments.counts.double()
        others = (n - counts).clamp(min=1)[:, None]
        elsewhere = (moments.total - moments.sums) / others
        compared = (counts > 0) & (counts < n)
        return cls(moments.class_means(), elsewhere, moments.counts, compared, n)

    def with_opposites(self) -> ClassMeans:
        """The classes, then for each the samples that do not have it, as classes of their own."""
        return ClassMeans(
            torch.cat([self.means, self.elsewhere]),
            torch.cat([self.elsewhere, self.means]),
            torch.cat([self.counts, self.n_samples - self.counts]),
            self.compared.repeat(2),
            self.n_samples,
        )

    def influence(self, weight: Tensor) -> Tensor:
        """How far each feature moves each class's logit up for the class's own samples.

        The weight (n_classes, n_features) times the difference of the feature's mean within the
        class and elsewhere; NaN where there is nothing to compare.
        """
        moved = weight * (self.means - self.elsewhere)
        moved[~self.compared] = torch.nan
        return moved

    def separation(self, rows: HeadRows, c: int, d: int) -> list[tuple[int, float]]:
        """How far each feature that c or d reads moves the two apart, the largest first.

        Nothing where one of them has no samples.
        """
        if not self.counts[[c, d]].all():
            return []
        return rows.between(c, d, self.means[c] - self.means[d])

    def misleading(self, rows: HeadRows, c: int, d: int, taken: Tensor) -> list[tuple[int, float]]:
        """How far each feature moved samples of c towards d, or away from it, the largest first.

        Args:
            rows: of the head.
            c: class of the samples.
            d: class that they were taken for.
            taken: (n_features,), their mean features; compared with those of all samples of c.
        """
        return rows.between(c, d, taken - self.means[c]) if self.counts[c] else []


@dataclass(eq=False)
class Relations:
    """Means, variances and correlations of features.

    Attributes:
        mean: (n_features,), of all samples.
        share: (n_features,), fraction of the variance that lies between the classes, less what
            chance alone would put there (epsilon squared, Kelley 1935); NaN where nothing varies,
            where fewer than two classes have samples, and where classes share samples.
        dead: (n_features,) bool, features that never change.
        flat: (n_features,) bool, features that hardly differ between classes.
        twins: (n_features,) int64, the feature that each duplicates, -1 for none.
        correlations: (n_features,), with the feature that each resembles most.
    """

    mean: Tensor
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
        mean = moments.total / n
        means = moments.class_means()
        covariance = moments.products / n - torch.outer(mean, mean)
        variance = covariance.diagonal().clamp(min=0)
        dead = survey.low == survey.high
        between = (counts[:, None] * (means - mean) ** 2).sum(0) / n
        within = (variance - between).clamp(min=0)
        n_filled = int((counts > 0).sum())
        chance = (n_filled - 1) * within / max(n - n_filled, 1)
        share = ((between - chance) / variance).clamp(0, 1)
        share[dead | (n_filled < 2) | moments.overlapping] = torch.nan
        scale = variance.sqrt()
        scale[dead] = torch.inf
        correlation = covariance / torch.outer(scale, scale)
        correlation.fill_diagonal_(0)
        size, twins = correlation.abs().max(1)
        strongest = correlation.gather(1, twins[:, None])[:, 0]
        flat = (share < FLAT) & ~dead
        return cls(mean, share, dead, flat, torch.where(size >= TWINS, twins, -1), strongest)
