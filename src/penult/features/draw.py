"""Draw: seeded choices of samples that treat the classes alike."""

from __future__ import annotations

import torch
from torch import Tensor


def strata(labels: Tensor) -> Tensor:
    """What samples are drawn alike by, (n_samples,) int64: their class, or their set of classes."""
    return labels if labels.ndim == 1 else torch.unique(labels, dim=0, return_inverse=True)[1]


def ranks(labels: Tensor, seed: int) -> Tensor:
    """Place of each sample in a random order of its class, (n_samples,) int64, from 0.

    Args:
        labels: (n_samples,) int64, or multi-hot.
        seed: of the order.
    """
    labels = strata(labels)
    order, starts = _by_class(labels, seed)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(labels)) - starts[labels[order]]
    return rank


def stratified(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """Which samples stay, (n_samples,) bool: the same fraction of each class, rounded up."""
    labels = strata(labels)
    return ranks(labels, seed) < (torch.bincount(labels) * fraction).ceil()[labels]


def spread(labels: Tensor, n: int) -> Tensor:
    """Which samples to look at, (n_samples,) bool: n of them, as many of a class as of another."""
    labels = strata(labels)
    order, starts = _by_class(labels, 0)
    rank = torch.arange(len(labels)) - starts[labels[order]]
    keep = torch.zeros(len(labels), dtype=torch.bool)
    keep[order[rank.sort(stable=True).indices[:n]]] = True
    return keep


def folds(labels: Tensor, n_folds: int, seed: int) -> Tensor:
    """Fold of each sample, (n_samples,) int64: of equal size, and each class dealt out evenly."""
    order, _ = _by_class(strata(labels), seed)
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(labels)) % n_folds
    return fold


def _by_class(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Samples in the order of their classes, at random within each; where each class starts."""
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed % 2**63))
    counts = torch.bincount(labels)
    return shuffled[labels[shuffled].sort(stable=True).indices], counts.cumsum(0) - counts
