from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penult.errors import InputError
from penult.heads.subspaces import Subspaces, top_k


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.lists(st.integers(-3, 3), min_size=4, max_size=4), min_size=1), st.integers(1, 4)
)
def test_top_k_takes_the_largest_and_of_equals_the_first(rows: list[list[int]], k: int) -> None:
    kept = top_k(torch.tensor(rows, dtype=torch.float64), k)
    for row, found in zip(rows, kept, strict=True):
        assert found.tolist() == sorted(range(4), key=lambda j: (-row[j], j))[:k]


def test_classes_may_keep_different_numbers() -> None:
    subspaces = Subspaces.of([[3, 1], [], [0]], n_features=4)
    assert subspaces.indptr.tolist() == [0, 2, 2, 3]
    assert [kept.tolist() for kept in subspaces] == [[3, 1], [], [0]]
    assert subspaces.classes().tolist() == [0, 0, 2]
    assert (subspaces.n_classes, subspaces.nnz) == (3, 3)


def test_a_mask_names_columns_or_the_features_that_its_places_stand_for() -> None:
    kept = torch.tensor([[True, False, True], [False, False, False], [False, True, False]])
    own = Subspaces.where(kept)
    assert [one.tolist() for one in own] == [[0, 2], [], [1]]
    assert own.n_features == 3
    named = Subspaces.where(kept, torch.tensor([[7, 1, 4], [0, 0, 0], [2, 9, 3]]), 10)
    assert [one.tolist() for one in named] == [[7, 4], [], [9]]
    assert named.n_features == 10


def test_k_may_differ_between_classes() -> None:
    scores = torch.tensor([[1.0, 3.0, 2.0], [3.0, 2.0, 1.0]])
    assert [kept.tolist() for kept in top_k(scores, [1, 3])] == [[1], [0, 1, 2]]
    with pytest.raises(InputError, match="expected k for 2 classes"):
        top_k(scores, [1, 2, 3])
    with pytest.raises(InputError, match="expected scores of shape"):
        top_k(scores[0], 1)


@pytest.mark.parametrize("k", [0, -1, 5, 2.5])
def test_k_out_of_range_is_refused(k: Any) -> None:
    with pytest.raises(InputError, match=rf"k must lie in \[1, 4\] \(n_features\), found {k}"):
        top_k(torch.zeros(2, 4), k)


def test_scores_that_are_nan_are_refused() -> None:
    with pytest.raises(InputError, match="scores are NaN"):
        top_k(torch.tensor([[1.0, float("nan")]]), 1)


@pytest.mark.parametrize(
    ("indptr", "indices", "message"),
    [
        ([1, 2], [0, 1], "indptr must start at 0"),
        ([0, 2, 1], [0], "never decrease"),
        ([0, 1], [0, 1], "indptr ends at 1 and there are 2 indices"),
        ([0, 1], [4], r"must lie in \[0, 4\), found 4"),
        ([0, 1], [-1], r"must lie in \[0, 4\), found -1"),
        ([0, 2], [1, 1], "names the same feature twice"),
    ],
)
def test_subspaces_that_do_not_fit_are_refused(
    indptr: list[int], indices: list[int], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Subspaces(torch.tensor(indptr), torch.tensor(indices), 4)


def test_the_first_features_of_each_class() -> None:
    found = Subspaces.of([[5, 2, 0], [], [1], [3, 4]], 6).first(2)
    assert [kept.tolist() for kept in found] == [[5, 2], [], [1], [3, 4]]
    assert found.n_features == 6
