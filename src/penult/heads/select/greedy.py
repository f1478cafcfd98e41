"""Sparse regression from moments: which k features of each class explain its logit best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.select.tableau import Tableau
from penult.heads.subspaces import Subspaces

# A swap must explain this part more, or rounding would go on swapping for ever.
LEAST_GAIN = 1e-8
# A variance below this part of the second moment is rounding: the feature is constant.
CONSTANT = 1e-10
# Numbers of one array of a tile of classes: it stays in the cache.
TILE = 2**18


def select_moments(moments: Moments, weight: Tensor, ks: Sequence[int]) -> dict[int, Subspaces]:
    """Features of each class whose best linear fit to its centred dense logit errs least.

    Softmax ignores what is common to all classes, so the target of class c is its dense logit less
    the mean over classes. For a support S the best fit leaves `const − g_S' G_SS⁻¹ g_S`, with G the
    covariance of the features and g = G (W_c − mean W). From k to k + 1 the feature that explains
    most is added; at each k asked for, single swaps follow until none helps. Samples are not read.

    A feature that the kept ones determine (constant, duplicated, collinear: less than 1e-8 of its
    variance left open) is taken only when no other is left; then the one with the least index.

    Args:
        moments: of the features.
        weight: (n_classes, n_features) of the dense head.
        ks: features per class, each in [1, n_features].

    Returns:
        Subspaces by k; in each class the feature whose loss would cost most comes first.

    Raises:
        InputError: k out of range, sizes that do not fit, NaN, fewer than two samples.
    """
    ks = check_sizes(ks, moments.n_features)
    check_weight(weight, moments)
    covariance, std, _ = standardised(moments)
    centred = weight.to(covariance.device, torch.float64)
    products = ((centred - centred.mean(0)) * std) @ covariance
    paths: dict[int, list[Tensor]] = {k: [] for k in ks}
    size = max(1, TILE // moments.n_features)
    for part in torch.split(products, size):
        for k, support in support_path(covariance, part, ks).items():
            paths[k].append(support)
    return {k: as_subspaces(torch.cat(parts), moments.n_features) for k, parts in paths.items()}


def support_path(covariance: Tensor, products: Tensor, ks: Sequence[int]) -> dict[int, Tensor]:
    """Supports (n, k) of n regressions, one run for all sizes; see `Tableau` for the arguments."""
    tableau = Tableau.empty(covariance, products)
    path = {}
    for k in range(1, max(ks) + 1):
        tableau.add(tableau.gains().argmax(1))
        if k in ks:
            improve(tableau)
            order = tableau.losses().argsort(dim=1, descending=True, stable=True)
            path[k] = tableau.support.gather(1, order)
    return path


def improve(tableau: Tableau, max_rounds: int = 500) -> None:
    """Swap one kept feature for another per target, the best swap first, until none helps."""
    tableau.refresh()
    active = torch.arange(len(tableau.support), device=tableau.support.device)
    part = tableau.only(active)
    for _ in range(max_rounds):
        bounds = part.swap_bounds()
        worth = bounds > LEAST_GAIN * part.explained.clamp(min=1e-300)[:, None]
        m = int(worth.sum(1).max())
        if m == 0:
            return
        columns = bounds.topk(m, dim=1).indices
        gains, places = part.swap_gains(columns).flatten(1).max(1)
        better = (gains > LEAST_GAIN * part.explained.clamp(min=1e-300)).nonzero()[:, 0]
        if not len(better):
            return
        places, columns, active = places[better], columns[better], active[better]
        part = part.only(better)
        part.swap(places // m, columns.gather(1, places[:, None] % m)[:, 0])
        part.refresh()
        tableau.put(active, part)


def standardised(moments: Moments) -> tuple[Tensor, Tensor, Tensor]:
    """Correlations of the features, their standard deviations and which of them are constant.

    Returns:
        (n_features, n_features) with a diagonal of 1, or 0 for a constant feature; (n_features,)
        deviations, 0 for a constant feature; (n_features,) bool. All but the last in float64.
    """
    covariance = moments.covariance()
    variance = covariance.diagonal()
    constant = variance <= CONSTANT * moments.root_mean_square() ** 2
    std = torch.where(constant, 0.0, variance.clamp(min=0).sqrt())
    scale = torch.where(constant, 0.0, 1 / std)
    return covariance * scale * scale[:, None], std, constant


def as_subspaces(support: Tensor, n_features: int) -> Subspaces:
    """Subspaces of equal size from (n_classes, k)."""
    n_classes, k = support.shape
    return Subspaces(torch.arange(n_classes + 1) * k, support.reshape(-1).cpu(), n_features)


def check_sizes(ks: Sequence[int], n_features: int) -> list[int]:
    """The sizes in order, each once; refuse none at all and those out of range."""
    if not ks:
        raise InputError("expected at least one number of features per class, found none")
    for k in ks:
        if not 1 <= k <= n_features:
            raise InputError(f"k must lie in [1, {n_features}] (n_features), found {k}")
    return sorted(set(ks))


def check_weight(weight: Tensor, moments: Moments) -> None:
    """Refuse a dense weight that does not fit the moments, or NaN in either."""
    expected = (moments.n_classes, moments.n_features)
    if weight.shape != expected:
        raise InputError(
            f"expected a weight of shape {expected} (n_classes, n_features) for these moments, "
            f"found {tuple(weight.shape)}"
        )
    if not bool(weight.isfinite().all()):
        raise InputError("the dense head's weight holds NaN or infinite values")
    if not bool(moments.products.isfinite().all() and moments.sums.isfinite().all()):
        raise InputError("the moments hold NaN or infinite values: the features did")
    if moments.n_samples < 2:
        raise InputError(f"expected moments of at least 2 samples, found {moments.n_samples}")
