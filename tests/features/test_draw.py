"""Draws treat the classes alike, whatever their sizes."""

from __future__ import annotations

import pytest
import torch

from penult.features.draw import folds, ranks, spread, stratified


def labels_of(*sizes: int) -> torch.Tensor:
    """So many samples of each class, shuffled."""
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(9))]


def test_ranks_are_an_order_of_each_class() -> None:
    labels = labels_of(30, 0, 1, 7)
    found = ranks(labels, 1)
    for c, n in enumerate((30, 0, 1, 7)):
        assert sorted(found[labels == c].tolist()) == list(range(n))
    assert ranks(labels, 1).equal(found)
    assert not ranks(labels, 2).equal(found)


def test_the_same_part_of_every_class_stays() -> None:
    labels = labels_of(900, 99, 1)
    assert torch.bincount(labels[stratified(labels, 0.1, 3)]).tolist() == [90, 10, 1]


def test_samples_are_spread_over_the_classes() -> None:
    labels = torch.cat([torch.zeros(900), torch.ones(60), torch.full((8,), 3)]).long()
    keep = spread(labels, 100)
    assert torch.bincount(labels[keep], minlength=4).tolist() == [46, 46, 0, 8]
    assert int(spread(labels, len(labels)).sum()) == len(labels)
    first = keep[:900].nonzero()[:, 0]
    assert first.max() > 500, "those of a class are drawn from all of it"


@pytest.mark.parametrize("sizes", [(50, 50), (1,) * 23, (100, 3, 0, 1, 17)])
@pytest.mark.parametrize("n_folds", [2, 5])
def test_folds_are_even_in_size_and_class(sizes: tuple[int, ...], n_folds: int) -> None:
    labels = labels_of(*sizes)
    found = folds(labels, n_folds, 0)
    for key in (torch.zeros_like(labels), labels):
        for c in range(int(key.max()) + 1):
            counts = torch.bincount(found[key == c], minlength=n_folds)
            assert int(counts.max() - counts.min()) <= 1
