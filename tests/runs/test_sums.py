"""Sums merge: in parts or at once, in one process or several, the same comes out."""

from __future__ import annotations

import pytest
import torch

from penult.features.shards import Block
from penult.network.head import Head, head_of
from penult.network.link import SIGMOID, SOFTMAX
from penult.runs.sums import Summing, Sums, Total


def blocks(head: Head, sizes: list[int]) -> list[Block]:
    """Samples of random features, sorted by class as folders have them."""
    generator = torch.Generator().manual_seed(0)
    n, n_classes = sum(sizes), head.n_classes
    z = torch.randn(n, head.n_features, generator=generator)
    labels = (torch.arange(n) * n_classes) // n
    if head.multi_label:
        labels = torch.rand(n, n_classes, generator=generator) < 0.3
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [
        Block(z[b - a : b], labels[b - a : b], None, [str(i) for i in range(b - a, b)])
        for a, b in zip(sizes, ends, strict=True)
    ]


def head(n_features: int, link: str = SOFTMAX) -> Head:
    generator = torch.Generator().manual_seed(1)
    return head_of(torch.randn(4, n_features, generator=generator), torch.zeros(4), link)


def state(sums: Sums) -> list[torch.Tensor]:
    """All numbers of some sums."""
    found = [sums.calls._labels, sums.calls._predicted, getattr(sums.calls, "_logits", [])]
    calls = [torch.cat(parts) for parts in found if parts]
    if sums.evidence is None:
        return calls
    moments, tops = sums.evidence.moments, sums.evidence.top_counts
    parts = [moments.counts, moments.sums, moments.products, moments.low, moments.high]
    return [*calls, *parts, moments.whole, tops.counts, tops.shares]


@pytest.mark.parametrize("link", [SOFTMAX, SIGMOID])
def test_parts_that_are_added_are_the_whole(link: str) -> None:
    summing = Summing(head(6, link))
    one, *others = blocks(summing.head, [5, 9, 1, 20])
    whole, parts = summing.zeros(), summing.zeros()
    for block in (one, *others):
        whole.add(block)
        part = summing.zeros()
        part.add(block)
        parts = parts + part
    for expected, found in zip(state(whole), state(parts), strict=True):
        assert torch.allclose(expected.double(), found.double(), rtol=1e-12, atol=1e-12)
    assert parts.calls.accuracy == whole.calls.accuracy
    assert parts.calls.document(list("abcd")) == whole.calls.document(list("abcd"))


@pytest.mark.parametrize(
    ("n_features", "n_classes", "span"),
    [(6, 4, 1), (248, 4, 1), (249, 4, 2), (2048, 1000, 16), (768, 21_841, 32)],
)
def test_spans_follow_from_the_features_and_classes(
    n_features: int, n_classes: int, span: int
) -> None:
    summing = Summing(head_of(torch.zeros(n_classes, n_features), torch.zeros(n_classes)))
    assert summing.span == span
    assert summing.calls_alone().span == 1


@pytest.mark.parametrize("n_features", [6, 600])
def test_spans_that_others_add_up_give_the_same_bytes(n_features: int) -> None:
    summing = Summing(head(n_features), seed=3)
    shards = blocks(summing.head, [7, 7, 7, 7, 3])
    alone = Total(summing)
    for block in shards:
        alone.add(block)
    together = Total(summing)
    for start in range(0, len(shards), summing.span):
        sums = summing.zeros()
        for block in shards[start : start + summing.span]:
            sums.add(block)
        together.add_span(sums)
    for expected, found in zip(state(alone.sums), state(together.sums), strict=True):
        assert torch.equal(expected, found)


def test_no_shard_at_all_has_sums_of_nothing() -> None:
    evidence = Total(Summing(head(6))).sums.evidence
    assert evidence is not None
    assert evidence.moments.n_samples == 0
