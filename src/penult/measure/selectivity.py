"""Selectivity: how few features carry a sample (Ψ), how much a unit prefers one class (μ)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penult.measure.uncertainty import jackknife, percentiles

EPSILON = 1e-7
BINS = 20


@dataclass(eq=False)
class ShareCounts:
    """Histograms of how many features carry less than a fraction of a sample's activation.

    Attributes:
        fractions: in (0, 1).
        counts: (len(fractions), n_classes, n_features + 1) int64: samples of the class in which
            exactly so many features, largest share first, sum to less than the fraction.
    """

    fractions: tuple[float, ...]
    counts: Tensor

    @classmethod
    def zeros(cls, fractions: Sequence[float], n_classes: int, n_features: int) -> ShareCounts:
        """Histograms of no samples at all."""
        shape = (len(fractions), n_classes, n_features + 1)
        return cls(tuple(fractions), torch.zeros(shape, dtype=torch.int64))

    def update(self, z: Tensor, labels: Tensor) -> None:
        """Add samples: features (n_samples, n_features), labels (n_samples,) int64.

        A sample of several classes, labels (n_samples, n_classes) bool, counts for each of them;
        one whose features are all zero has no shares and counts for none.
        """
        _, n_classes, n_bins = self.counts.shape
        size = z.abs().sort(dim=1, descending=True).values.double()
        total = size.sum(1, keepdim=True)
        active = total[:, 0] > 0
        size, total, labels = size[active], total[active], labels[active]
        reached = size.cumsum_(1).div_(total)
        for f, fraction in enumerate(self.fractions):
            # A share of the last bit must not draw in one feature more.
            m = (reached < fraction - 1e-9).sum(1)
            m, own = (m, labels) if labels.ndim == 1 else _each_class(m, labels)
            found = torch.bincount(own * n_bins + m, minlength=n_classes * n_bins)
            self.counts[f] += found.view(n_classes, n_bins)


def _each_class(values: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Values of samples, once for each of their classes, and these classes."""
    rows, classes = labels.nonzero().unbind(1)
    return values[rows], classes


def psi(histogram: Tensor) -> tuple[Tensor, Tensor]:
    """Ψ of each class from its histogram: by the mean and by the median number of features.

    `(n_features − m) / n_features`; in (0, 1], higher is more selective; NaN without samples.
    Source: Badola et al. 2023, arXiv 2112.07719.

    Args:
        histogram: (..., n_features + 1) counts of samples by number of features m.

    Returns:
        Ψ by the mean and by the median, both of shape (...).
    """
    n_features = histogram.shape[-1] - 1
    n = histogram.sum(-1)
    m = torch.arange(n_features + 1, dtype=torch.float64)
    mean = (histogram.double() @ m) / n
    below = histogram.cumsum(-1)
    low = (below < ((n + 1) // 2)[..., None]).sum(-1)
    high = (below < (n // 2 + 1)[..., None]).sum(-1)
    median = torch.where(n > 0, (low + high).double() / 2, torch.nan)
    return 1 - mean / n_features, 1 - median / n_features


def mu(class_means: Tensor, counts: Tensor) -> Tensor:
    """μ of each unit: its largest class mean against the mean of its others, in [0, 1].

    `(m_max − m_rest) / (m_max + m_rest + 1e-7)`. Sources: Morcos et al. 2018, Leavitt and Morcos
    2020. NaN with fewer than two classes that have samples.

    Args:
        class_means: (n_classes, n_features), not negative.
        counts: (n_classes,) samples per class; classes without are left out.
    """
    means = class_means[counts > 0].double()
    if len(means) < 2:
        return torch.full((class_means.shape[1],), torch.nan, dtype=torch.float64)
    largest = means.max(0).values
    rest = (means.sum(0) - largest) / (len(means) - 1)
    return (largest - rest) / (largest + rest + EPSILON)


def selectivity(
    shares: ShareCounts, group_counts: Tensor, group_sizes: Tensor, n_replicates: int, seed: int
) -> dict[str, Any]:
    """Ψ at every fraction and μ of every unit, with 95 % intervals.

    Args:
        shares: of all samples.
        group_counts: (n_groups, n_classes) samples, in groups of samples for the jackknife.
        group_sizes: (n_groups, n_classes, n_features) sums of |z|.
        n_replicates: of the bootstrap of Ψ, which draws from the histograms: that is the
            bootstrap over samples itself.
        seed: of the bootstrap.
    """
    generator = np.random.default_rng(seed)
    found = {
        f"{fraction:g}": _psi_document(histogram, n_replicates, generator)
        for fraction, histogram in zip(shares.fractions, shares.counts, strict=True)
    }
    counts, sizes = group_counts.sum(0), group_sizes.sum(0)
    units = mu(sizes / counts.clamp(min=1)[:, None], counts)
    without = []
    for left_counts, left_sizes in zip(counts - group_counts, sizes - group_sizes, strict=True):
        left = mu(left_sizes / left_counts.clamp(min=1)[:, None], left_counts)
        without.append(float(left.mean()))
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    return {
        "psi": found,
        "mu": {
            "mean": float(units.mean()),
            "interval": jackknife(float(units.mean()), without, 0, 1),
            "median": float(units.quantile(0.5)),
            "quantiles": dict(
                zip(("5", "25", "50", "75", "95"), units.quantile(quantiles).tolist(), strict=True)
            ),
            "histogram": units.nan_to_num(-1).float().histc(BINS, 0, 1).long(),
            "units": units,
        },
    }


def _psi_document(
    histogram: Tensor, n_replicates: int, generator: np.random.Generator
) -> dict[str, Any]:
    by_mean, by_median = psi(histogram)
    means, medians = [], []
    for row in histogram:
        n = int(row.sum())
        if n == 0:
            continue
        taken = row.nonzero()[:, 0]  # the empty bins of a wide layer would take most of the time
        drawn = generator.multinomial(n, (row[taken].double() / n).numpy(), size=n_replicates)
        replicates = torch.zeros(n_replicates, len(row), dtype=torch.int64)
        replicates[:, taken] = torch.from_numpy(drawn)
        one_mean, one_median = psi(replicates)
        means.append(one_mean)
        medians.append(one_median)
    known = ~by_mean.isnan()
    return {
        "mean": float(by_mean[known].mean()),
        "interval": percentiles(torch.stack(means).mean(0)) if means else None,
        "median": float(by_median[known].mean()),
        "median_interval": percentiles(torch.stack(medians).mean(0)) if medians else None,
        "classes": {
            "mean": by_mean,
            "interval": _by_class(means, known),
            "median": by_median,
        },
    }


def _by_class(replicates: list[Tensor], known: Tensor) -> list[list[float] | None]:
    left = iter(replicates)
    return [percentiles(next(left)) if there else None for there in known.tolist()]
