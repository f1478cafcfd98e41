from __future__ import annotations

from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penult.errors import InputError
from penult.heads.select.budget import Budget, check_pool, check_sizes, concave_steps, share_out
from penult.heads.select.models import Limits
from searches import chosen, kept, search

LIMITS = {
    "moments": Limits(),
    "curvature": Limits(),
    "coupled": Limits(joint_weights=0),
    "alone": Limits(joint_weights=0, coupled_logits=0),
}
WAYS = pytest.mark.parametrize("way", LIMITS)


def selection(way: str) -> str:
    return "moments" if way == "moments" else "curvature"


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.floats(0, 10), min_size=4, max_size=4), min_size=2, max_size=4))
def test_shares_are_the_best_where_gains_fall(gains: list[list[float]]) -> None:
    explained = torch.tensor(gains, dtype=torch.float64).sort(1, descending=True).values.cumsum(1)
    sizes = share_out(concave_steps(explained), 2)
    n = len(gains)
    assert int(sizes.sum()) == 2 * n

    def total(shares: tuple[int, ...]) -> float:
        return sum(float(explained[c, k - 1]) for c, k in enumerate(shares))

    best = max(total(s) for s in product(range(1, 5), repeat=n) if sum(s) == 2 * n)
    assert total(tuple(sizes.tolist())) == pytest.approx(best)


def test_steps_that_rise_are_credited_with_their_mean() -> None:
    explained = torch.tensor([[1.0, 2.0, 5.0, 5.5]])
    assert concave_steps(explained).tolist() == [[2.0, 2.0, 0.5]]


@WAYS
def test_a_mean_goes_where_it_is_needed(way: str) -> None:
    """Classes 0 and 1 read five features each, the others one."""
    z = torch.rand(3000, 20, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(6, 20)
    weight[0, :5], weight[1, 5:10] = 5.0, 5.0
    for c in range(2, 6):
        weight[c, 8 + c] = 11.0
    labels = (z @ weight.T).argmax(1)
    found = search(z, labels, weight, budget=Budget(mean=True), limits=LIMITS[way])
    for k, subspaces in chosen(selection(way), found, [2, 3]).items():
        sizes = subspaces.indptr.diff().tolist()
        assert sum(sizes) == 6 * k
        assert min(sizes[:2]) > max(sizes[2:])


@WAYS
@pytest.mark.parametrize("exact", [False, True])
def test_a_pool_is_kept_to(way: str, exact: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(600, 30, generator=generator)
    weight = torch.randn(6, 30, generator=generator)
    labels = (z @ weight.T).argmax(1)
    for pool in (4, 9):
        found = search(z, labels, weight, budget=Budget(False, pool, exact), limits=LIMITS[way])
        path = chosen(selection(way), found, [2, 4])
        for k, subspaces in path.items():
            assert subspaces.indptr.diff().tolist() == [k] * 6
            n_used = len(torch.unique(subspaces.indices))
            assert n_used == pool if exact else n_used <= pool


def test_a_pool_of_features_that_all_classes_need_is_found() -> None:
    """Six classes read the same four features, with other weights, and all others faintly."""
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(2000, 25, generator=generator)
    weight = torch.randn(6, 25, generator=generator) * 1e-2
    weight[:, [3, 7, 11, 20]] = torch.randn(6, 4, generator=generator)
    found = search(z, (z @ weight.T).argmax(1), weight, budget=Budget(pool=4, exact=True))
    assert kept(chosen("curvature", found, [4])[4]) == [[3, 7, 11, 20]] * 6


def test_sizes_out_of_range_are_refused() -> None:
    assert check_sizes([3, 1, 3], 8) == [1, 3]
    for ks, message in (
        ([0], r"k must lie in \[1, 8\] \(n_features\), found 0"),
        ([2, 9], r"k must lie in \[1, 8\] \(n_features\), found 9"),
        ([], "at least one number of features per class, found none"),
    ):
        with pytest.raises(InputError, match=message):
            check_sizes(ks, 8)
    for pool in (1, 9):
        with pytest.raises(InputError, match=r"different features must lie in \[2, 8\]"):
            check_pool(pool, [1, 2], 8)
