"""Budgets: how many features each class gets, and which features all classes share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from penult.errors import InputError
from penult.heads.subspaces import Subspaces

# A class gets at most so many times the mean, and one feature more.
MOST_TIMES = 4
# Part of the used features that a shared pool loses at most, before all classes choose anew.
POOL_STEP = 0.25


@dataclass(frozen=True)
class Budget:
    """How many features a head may read.

    Attributes:
        mean: k is the mean over the classes, and those that need more get more; else k for each.
        pool: how many different features all classes read together; None for any number.
        exact: the pool is of exactly that size, where the classes' k allow it; else at most.
    """

    mean: bool = False
    pool: int | None = None
    exact: bool = False

    def most(self, k: int, n_features: int) -> int:
        """Most features that one class can get."""
        bound = n_features if self.pool is None else self.pool
        return min(bound, MOST_TIMES * (k + 1)) if self.mean else k

    def sizes(self, ks: Sequence[int], explained: Tensor) -> dict[int, Tensor]:
        """Features of each class (n_classes,) for every k.

        Args:
            ks: each at least 1.
            explained: (n_classes, most), what a class explains with 1, 2, … features.
        """
        if not self.mean:
            return {k: torch.full_like(explained[:, 0], k, dtype=torch.int64) for k in ks}
        gains = concave_steps(explained)
        return {k: share_out(gains, k) for k in ks}


def check_sizes(ks: Sequence[int], n_features: int) -> list[int]:
    """The sizes in order, each once; refuse none at all and those out of range."""
    if not ks:
        raise InputError("expected at least one number of features per class, found none")
    for k in ks:
        if not 1 <= k <= n_features:
            raise InputError(f"k must lie in [1, {n_features}] (n_features), found {k}")
    return sorted(set(ks))


def check_pool(pool: int, ks: Sequence[int], n_features: int) -> None:
    """Refuse a number of shared features that is below k or above n_features."""
    if not max(ks) <= pool <= n_features:
        raise InputError(
            f"the number of different features must lie in [{max(ks)}, {n_features}] "
            f"(from k to n_features), found {pool}"
        )


def read_all(subspaces: Subspaces, pool: Tensor, costs: Tensor, gains: Tensor) -> Subspaces:
    """Subspaces in which every feature of a pool is read, made by the cheapest exchanges.

    Features that no class reads take, in turn, the place where least is lost, of those whose
    feature another class reads too.

    Args:
        subspaces: within the pool.
        pool: features.
        costs: (nnz,), what losing each kept pair would cost.
        gains: (n_classes, n_features), what each pair is worth.
    """
    indices, classes = subspaces.indices.clone(), subspaces.classes()
    n_readers = torch.bincount(indices, minlength=subspaces.n_features)
    for feature in pool[n_readers[pool] == 0].tolist():
        loss = (costs - gains[classes, feature]).masked_fill(n_readers[indices] < 2, float("inf"))
        pair = int(loss.argmin())
        n_readers[indices[pair]] -= 1
        n_readers[feature] += 1
        indices[pair] = feature
    return Subspaces(subspaces.indptr, indices, subspaces.n_features)


def share_out(gains: Tensor, mean_k: float) -> Tensor:
    """How many features each class gets of mean_k on average, (n_classes,) int64, at least one.

    The next feature always goes to the class that explains most more by it.

    Args:
        gains: (n_classes, most − 1), falling: what each feature after the first explains more.
        mean_k: in [1, most].
    """
    n_classes = len(gains)
    n_more = round(mean_k * n_classes) - n_classes
    sizes = torch.ones(n_classes, dtype=torch.int64, device=gains.device)
    taken = gains.flatten().sort(descending=True, stable=True).indices[:n_more]
    return sizes.index_add_(0, taken // max(1, gains.shape[1]), torch.ones_like(taken))


def concave_steps(explained: Tensor) -> Tensor:
    """What each feature after the first explains more, smoothed so that it never grows with k.

    Where two features explain more together than one after the other suggests, both are credited
    with their mean; greedy sharing out is then optimal.

    Args:
        explained: (n_classes, most).
    """
    from sklearn.isotonic import isotonic_regression  # slow to import, and seldom needed

    steps = explained.diff(dim=1).cpu().numpy()
    if steps.shape[1] > 0:
        steps = np.stack([isotonic_regression(row, increasing=False) for row in steps])
    return torch.from_numpy(steps).to(explained)


def pool_left(support: Tensor, costs: Tensor, n_features: int, pool: int) -> Tensor:
    """Features that stay when those go that all classes together lose least by, in rising order.

    Args:
        support: (n_classes, k), features.
        costs: (n_classes, k), what losing each would cost.
        n_features: in all.
        pool: how many are to be left in the end.
    """
    used = torch.zeros(n_features, dtype=torch.float64, device=costs.device)
    used.index_add_(0, support.flatten(), costs.flatten())
    n_used = len(torch.unique(support))
    n_left = max(pool, min(n_used - 1, int((1 - POOL_STEP) * n_used)))
    used[torch.unique(support)] += 1e-300 + float(used.max()) * 1e-12
    return used.argsort(descending=True, stable=True)[:n_left].sort().values
