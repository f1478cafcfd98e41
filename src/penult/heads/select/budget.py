"""Budgets other than k per class: a mean k, shared out by need, and a bound on features in all."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.select.greedy import as_subspaces, check_weight, standardised, support_path
from penult.heads.select.tableau import Tableau
from penult.heads.subspaces import Subspaces


def select_mean(
    moments: Moments, weight: Tensor, mean_k: float, most: int | None = None
) -> Subspaces:
    """Features for a mean of `mean_k` per class, more for the classes that need them most.

    From the path of each class (see `select_moments`) the next feature always goes to the class
    whose logit it explains most of, in squared logits, until the budget is spent. Every class keeps
    at least one.

    Args:
        moments: of the features.
        weight: (n_classes, n_features) of the dense head.
        mean_k: features per class on average, in [1, n_features].
        most: the largest k of a class; 4 × mean_k where None.
    """
    check_weight(weight, moments)
    n_features = weight.shape[1]
    if not 1 <= mean_k <= n_features:
        raise InputError(f"the mean k must lie in [1, {n_features}] (n_features), found {mean_k}")
    most = min(n_features, most or 4 * int(mean_k + 1))
    covariance, products = _targets(moments, weight)
    supports = support_path(covariance, products, range(1, most + 1))
    explained = torch.stack(
        [Tableau.of(covariance, products, supports[k]).explained for k in range(1, most + 1)], 1
    )
    kept = [supports[int(k)][c].tolist() for c, k in enumerate(share_out(explained, mean_k))]
    return Subspaces.of(kept, n_features)


def check_shared(n_shared: int, ks: Sequence[int], n_features: int) -> None:
    """Refuse a number of shared features that is below k or above n_features."""
    if not max(ks) <= n_shared <= n_features:
        raise InputError(
            f"the number of different features must lie in [{max(ks)}, {n_features}] "
            f"(from k to n_features), found {n_shared}"
        )


def share_out(explained: Tensor, mean_k: float) -> Tensor:
    """How many features each class gets of mean_k on average, (n_classes,) int64, at least one.

    The next feature always goes to the class that explains most more by it.

    Args:
        explained: (n_classes, most), what each class explains with 1, 2, … features.
        mean_k: in [1, most].
    """
    n_classes = len(explained)
    gains = _concave_steps(explained)
    n_more = round(mean_k * n_classes) - n_classes
    sizes = torch.ones(n_classes, dtype=torch.int64)
    taken = gains.flatten().sort(descending=True, stable=True).indices[:n_more].cpu()
    return sizes.index_add_(0, taken // gains.shape[1], torch.ones_like(taken))


def select_shared(
    moments: Moments, weight: Tensor, n_shared: int, ks: Sequence[int]
) -> dict[int, Subspaces]:
    """Subspaces of each size out of `n_shared` features for all classes together.

    The shared features are those that, read by every class, explain most of the centred logits:
    forward steps over all classes at once. Within them each class selects as `select_moments` does.

    Args:
        moments: of the features.
        weight: (n_classes, n_features) of the dense head.
        n_shared: how many different features may be used, in [max(ks), n_features].
        ks: features per class.
    """
    check_weight(weight, moments)
    n_features = weight.shape[1]
    check_shared(n_shared, ks, n_features)
    covariance, products = _targets(moments, weight)
    shared = _forward(covariance, products, n_shared)
    inner = covariance[shared][:, shared]
    paths = support_path(inner, products[:, shared], ks)
    return {k: as_subspaces(shared[support], n_features) for k, support in paths.items()}


def _targets(moments: Moments, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Correlations of the features and their products with the centred dense logits."""
    covariance, std, _ = standardised(moments)
    centred = weight.to(covariance.device, torch.float64)
    return covariance, ((centred - centred.mean(0)) * std) @ covariance


def _forward(covariance: Tensor, products: Tensor, n_shared: int) -> Tensor:
    """Features that explain most of all targets together, one after the other, (n_shared,)."""
    residuals, left = products.clone(), covariance.clone()
    chosen: list[int] = []
    for _ in range(n_shared):
        variances = left.diagonal()
        usable = variances > 1e-8
        gains = torch.where(usable, (residuals**2).sum(0) / variances.clamp(min=1e-300), 0.0)
        gains[chosen] = -1.0
        best = int(gains.argmax())
        chosen.append(best)
        if bool(usable[best]):
            row = left[best] / left[best, best].sqrt()
            residuals = residuals - torch.outer(residuals[:, best] / left[best, best].sqrt(), row)
            left = left - torch.outer(row, row)
    return torch.tensor(chosen, device=covariance.device)


def _concave_steps(explained: Tensor) -> Tensor:
    """What each feature after the first explains more, smoothed so that it never grows with k.

    Where two features explain more together than one after the other suggests, both are credited
    with their mean; greedy sharing out is then optimal.
    """
    steps = explained.diff(dim=1)
    n, m = steps.shape
    for row in range(n):
        blocks: list[list[float]] = []
        for value in steps[row].tolist():
            blocks.append([value, 1.0])
            while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
                value, size = blocks.pop()
                other, count = blocks[-1]
                blocks[-1] = [(value * size + other * count) / (size + count), size + count]
        flat = [value for value, size in blocks for _ in range(int(size))]
        steps[row] = steps.new_tensor(flat[:m])
    return steps
