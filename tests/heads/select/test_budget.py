from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.select.budget import select_mean, select_shared
from penult.heads.select.greedy import select_moments, standardised


def problem(n_features: int = 8, n_classes: int = 3) -> tuple[Moments, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(n_features, n_features, generator=generator)
    z = torch.randn(400, n_features, generator=generator) @ mix
    labels = torch.arange(400) % n_classes
    weight = torch.randn(n_classes, n_features, generator=generator)
    return Moments.of(z, labels, n_classes), weight, z.double()


def explained(moments: Moments, weight: Tensor, c: int, support: list[int]) -> float:
    """Variance of the centred logit of a class that the best fit on a support explains."""
    covariance = moments.covariance()
    g = covariance @ (weight.double() - weight.double().mean(0))[c]
    inside = covariance[support][:, support]
    return float(g[support] @ torch.linalg.solve(inside, g[support]))


def test_the_budget_is_spent_where_it_explains_most() -> None:
    moments, weight, _ = problem()
    weight[0] *= 5
    found = select_mean(moments, weight, 2)
    sizes = found.indptr.diff().tolist()
    assert sum(sizes) == 6
    assert min(sizes) >= 1

    def total(ks: list[int]) -> float:
        paths = {k: select_moments(moments, weight, [k])[k] for k in set(ks)}
        return sum(explained(moments, weight, c, paths[k][c].tolist()) for c, k in enumerate(ks))

    shares = [
        [a, b, c] for a in range(1, 5) for b in range(1, 5) for c in range(1, 5) if a + b + c == 6
    ]
    assert total(sizes) >= 0.98 * max(map(total, shares))


def test_a_whole_mean_over_equal_classes_is_k_for_each() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(5000, 9, generator=generator)
    weight = torch.zeros(3, 9)
    for c in range(3):
        weight[c, 3 * c : 3 * c + 3] = 1.0
    moments = Moments.of(z, torch.arange(5000) % 3, 3)
    found = select_mean(moments, weight, 3)
    assert [sorted(kept.tolist()) for kept in found] == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


def test_shared_features_are_bounded_and_nearly_the_best() -> None:
    moments, weight, _ = problem()
    found = select_shared(moments, weight, 3, [2, 3])
    for k, subspaces in found.items():
        assert len(torch.unique(subspaces.indices)) <= 3
        assert subspaces.indptr.diff().tolist() == [k] * 3
    shared = torch.unique(found[3].indices).tolist()

    def total(support: list[int]) -> float:
        _, std, _ = standardised(moments)
        assert (std > 0).all()
        return sum(explained(moments, weight, c, support) for c in range(3))

    best = max(total(list(support)) for support in combinations(range(8), 3))
    assert total(shared) >= 0.9 * best
    for c in range(3):
        inside = max(explained(moments, weight, c, list(pair)) for pair in combinations(shared, 2))
        kept = explained(moments, weight, c, found[2][c].tolist())
        assert kept == pytest.approx(inside, rel=1e-6)


def test_all_features_shared_is_no_bound() -> None:
    moments, weight, _ = problem()
    bounded = select_shared(moments, weight, 8, [2])[2]
    free = select_moments(moments, weight, [2])[2]
    for ours, theirs in zip(bounded, free, strict=True):
        assert set(ours.tolist()) == set(theirs.tolist())


def test_budgets_out_of_range_are_refused() -> None:
    moments, weight, _ = problem()
    for mean_k in (0.5, 9):
        with pytest.raises(InputError, match=r"the mean k must lie in \[1, 8\]"):
            select_mean(moments, weight, mean_k)
    for n_shared in (1, 9):
        with pytest.raises(InputError, match=r"different features must lie in \[2, 8\]"):
            select_shared(moments, weight, n_shared, [1, 2])
