"""Comparisons of heads against counting by hand; sizes are chosen as often wrongly as promised."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from penult.errors import InputError
from penult.features.features import Features
from penult.features.shards import Block
from penult.heads.comparison import (
    Comparison,
    PairedCounts,
    compare_heads,
    paired_counts,
    smallest_within,
)
from penult.heads.judge import CROSS_FIT, EVALUATION, FITTED, Judge, size_within, too_few_for
from penult.network.head import Head

N, D, C = 500, 12, 5


def example(seed: int = 0) -> tuple[Features, Head, Head]:
    """Features with noisy labels, their dense head, and one that reads half of the features."""
    generator = torch.Generator().manual_seed(seed)
    z, weight = torch.randn(N, D, generator=generator), torch.randn(C, D, generator=generator)
    noise = torch.randn(N, C, generator=generator)
    features = Features.of(z, (z @ weight.T + noise).argmax(1), weight)
    less = weight.clone()
    less[:, ::2] = 0
    return features, features.require_head(), Head("", less, torch.zeros(C))


def by_hand(y: list[int], first: list[int], second: list[int]) -> PairedCounts:
    pairs = list(zip(y, first, second, strict=True))
    return PairedCounts(
        len(pairs),
        sum(a == label for label, a, _ in pairs),
        sum(a == label != b for label, a, b in pairs),
        sum(b == label != a for label, a, b in pairs),
        sum(a == b for _, a, b in pairs),
    )


@pytest.mark.parametrize("seed", range(3))
def test_counts_are_those_by_hand(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    features, dense, less = example(seed)
    monkeypatch.setattr("penult.heads.comparison.CHUNK", 37 * D)
    groups = torch.randint(3, (N,), generator=torch.Generator().manual_seed(seed))
    (found,) = compare_heads(dense, [less], features, groups=groups, divergence=True)
    z, labels = features.arrays()
    y = labels.tolist()
    first, second = dense(z).argmax(1).tolist(), less(z).argmax(1).tolist()
    assert found.overall == by_hand(y, first, second) == paired_counts(dense, [less], features)[0]
    for key, counts in ((y, found.by_class()), (groups.tolist(), found.by_group())):
        assert sum(counts, PairedCounts(0, 0, 0, 0, 0)) == found.overall
        for c, one in enumerate(counts):
            rows = [i for i, label in enumerate(key) if label == c]
            assert one == by_hand(*([row[i] for i in rows] for row in (y, first, second)))
    changes = Counter((a, b) for a, b in zip(first, second, strict=True) if a != b)
    assert {(a, b): n for a, b, n in found.flips()} == changes
    assert [n for _, _, n in found.flips()] == sorted(changes.values(), reverse=True)
    assert found.changed().tolist() == [i for i in range(N) if first[i] != second[i]]
    p, q = dense(z).double().softmax(1), less(z).double().softmax(1)
    assert found.divergence == pytest.approx(float((p * (p / q).log()).sum(1).mean()))
    document = found.document(flips=2)
    assert document["loss"] == pytest.approx(document["before"] - document["after"])
    assert len(document["flips"]) == 2
    assert len(document["classes"]) == C


def test_the_classes_that_the_network_gave_count() -> None:
    features, dense, less = example()
    z, labels = features.arrays()
    given = torch.zeros_like(labels)
    recorded = Features([Block(z, labels, given, [])], (N, D), dense, None)
    (found,) = compare_heads(dense, [dense], recorded)
    assert found.before.equal(given)
    assert not found.after.equal(given)
    (edited,) = compare_heads(less, [dense], recorded)
    assert edited.before.equal(less(z).argmax(1)), "what was recorded is of another head"


def test_a_class_without_samples_has_no_accuracy() -> None:
    labels = torch.tensor([0, 0, 2])
    found = Comparison(labels, labels, labels, 4).by_class()
    assert [one.after for one in found] == [1, None, 1, None]
    assert [one.loss for one in found] == [0, None, 0, None]
    assert found[1].document()["interval"] == pytest.approx([-0.98, 0.98], abs=0.01)
    assert Comparison(labels, labels, labels, 4).by_group() == []


def outcomes(losses: list[float], n: int, generator: np.random.Generator) -> list[PairedCounts]:
    """Heads of such true losses on the same n samples, each with its own mistakes and gains."""
    found = []
    hard, lucky = generator.random(n), generator.random(n)
    for loss in losses:
        won = 0.01
        lost_here, won_here = int((hard < loss + won).sum()), int((lucky < won).sum())
        found.append(PairedCounts(n, n, lost_here, won_here, n - lost_here - won_here))
    return found


@pytest.mark.parametrize("n", [1000, 4000])
def test_a_head_beyond_the_tolerance_is_seldom_picked(n: int) -> None:
    """Seven heads just above the tolerance, then a good one: one of the seven is picked in 5 %."""
    generator = np.random.default_rng(n)
    losses = [0.0501] * 7 + [0.0]
    wrong = upwards = 0
    for _ in range(1500):
        counts = outcomes(losses, n, generator)
        picked = smallest_within(counts, 0.05)
        assert picked is None or all(one.at_most <= 0.05 for one in counts[picked:])
        wrong += picked is not None and picked < 7
        upwards += any(one.at_most <= 0.05 for one in counts[:7])
    assert wrong / 1500 <= 0.07
    assert wrong <= upwards


def test_independent_heads_show_why_the_order_matters() -> None:
    generator = np.random.default_rng(1)
    wrong = upwards = 0
    for _ in range(1000):
        counts = [outcomes([0.0501], 2000, generator)[0] for _ in range(7)]
        wrong += smallest_within(counts, 0.05) is not None
        upwards += any(one.at_most <= 0.05 for one in counts)
    assert wrong / 1000 <= 0.07
    assert upwards / 1000 > 0.2, "the smallest that passes would be wrong this often"


def counts_of(lost: int, n: int = 10_000) -> PairedCounts:
    return PairedCounts(n, n, lost, 0, n - lost)


def test_the_sequence_ends_at_the_first_failure() -> None:
    passing, failing = counts_of(10), counts_of(300)
    assert smallest_within([failing, passing, passing], 0.005) == 1
    assert smallest_within([passing, failing, passing], 0.005) == 2
    assert smallest_within([passing, passing, failing], 0.005) is None
    assert smallest_within([], 0.005) is None


def test_what_is_said_of_a_size() -> None:
    judge = Judge(EVALUATION, 10_000)
    sizes, counts = [2, 3], [counts_of(300), counts_of(10)]
    found = size_within(sizes, counts, judge, 0.005)
    assert (found.index, found.vouched) == (1, True)
    assert "k = 3 is the smallest head that can be shown, with 95 % confidence" in found.why
    assert "0.10 points, and at most 0.15, on 10,000 evaluation samples" in found.why
    again = size_within(sizes, counts, Judge(CROSS_FIT, 10_000, 5), 0.005)
    assert (again.index, again.vouched) == (1, False)
    assert "Nothing is promised for new samples" in again.why
    none = size_within(sizes, counts, Judge(FITTED, 10_000), 0.005)
    assert (none.index, none.vouched) == (None, False)
    assert "No size can be chosen" in none.why
    few = size_within([3], [counts_of(1, 400)], Judge(EVALUATION, 400), 0.005)
    assert few.index is None
    assert "loses 0.25 points, and with 95 % confidence at most 0.83" in few.why
    assert "About 1,100 samples would be needed" in few.why
    assert "larger heads" in size_within([3], [counts_of(300)], judge, 0.005).why
    with pytest.raises(InputError, match=r"the tolerance must lie in \(0, 1\), found 0"):
        size_within(sizes, counts, judge, 0)


def test_too_few_samples_are_named_before_any_fit() -> None:
    assert too_few_for(0.005, 327) is None
    said = too_few_for(0.005, 326)
    assert said is not None
    assert "326 samples cannot show that no more than 0.50 points are lost" in said
    assert "at least 327" in said


def test_the_document_of_a_judge_reads_back() -> None:
    for judge in (Judge(EVALUATION, 3), Judge(CROSS_FIT, 9, 5), Judge(FITTED, 2)):
        document = judge.document()
        assert Judge.read(document) == judge
        assert (document["warning"] is None) == judge.vouches
