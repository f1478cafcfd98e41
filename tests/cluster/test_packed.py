"""What crosses the network is smaller, and comes back to the bit."""

from __future__ import annotations

import io

import pytest
import torch

from penult.cluster.packed import packed, unpacked
from penult.features.influence import Top
from penult.features.shards import Block
from penult.network.head import head_of
from penult.runs.sums import Summing


@pytest.mark.parametrize("top", [None, 3, 0.5])
@pytest.mark.parametrize("multi_label", [False, True])
def test_packed_sums_are_unpacked_to_the_bit(top: Top | None, multi_label: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    link = "sigmoid" if multi_label else "softmax"
    head = head_of(torch.randn(50, 30, generator=generator), torch.zeros(50), link)
    summing = Summing(head, top=top)
    z = torch.randn(40, 30, generator=generator)
    z[:, 7] = -0.0
    labels = torch.randint(0, 3, (40,), generator=generator) * 11
    z[labels == 11] = -z[labels == 11].abs()  # sums below 0
    z[labels == 22] = 0.0
    if multi_label:
        labels = torch.nn.functional.one_hot(labels, 50) > 0
    sums = summing.zeros()
    sums.add(Block(z, labels, None, [str(i) for i in range(40)]))
    found, expected = unpacked(packed(sums), summing).evidence, sums.evidence
    assert found is not None
    assert expected is not None
    assert (found.seed, found.top) == (expected.seed, expected.top)
    for name in ("counts", "sums", "products", "low", "high", "whole"):
        a, b = getattr(expected.moments, name), getattr(found.moments, name)
        assert torch.equal(a, b)
        assert a.dtype == b.dtype
    assert torch.equal(found.top_counts.counts, expected.top_counts.counts)
    assert torch.equal(found.top_counts.shares, expected.top_counts.shares)
    assert torch.equal(found.weight, expected.weight)


def test_classes_without_samples_take_no_room() -> None:
    def size(n_classes: int) -> int:
        head = head_of(torch.randn(n_classes, 20), torch.zeros(n_classes))
        sums = Summing(head).zeros()
        sums.add(Block(torch.rand(10, 20), torch.arange(10) % 2, None, []))
        into = io.BytesIO()
        evidence = packed(sums).sums.evidence
        assert evidence is not None
        torch.save([evidence.moments.sums, evidence.top_counts.shares], into)
        return into.tell()

    assert size(1000) == size(10)
