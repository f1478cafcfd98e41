from __future__ import annotations

from math import log2

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.metrics import mutual_info_score
from torch import Tensor

from penult.features.features import Features
from penult.measure.information import (
    class_information,
    confusion_rates,
    confusions,
    jaccard,
    mantel,
    members,
    overlap,
    set_information,
)


def entropy(p: float) -> float:
    return sum(-x * log2(x) for x in (p, 1 - p) if x > 0)


def random_sets(seed: int, n_classes: int = 5, n_features: int = 12, k: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n_classes, n_features, generator=generator).argsort(1)[:, :k]


def test_sets_agree_with_a_slow_count() -> None:
    sets = random_sets(0)
    member = members(sets, 12)
    bits, own = set_information(member)
    shared = jaccard(member)
    for a in range(5):
        for b in range(5):
            first, second = set(sets[a].tolist()), set(sets[b].tolist())
            expected = len(first & second) / len(first | second)
            assert float(shared[a, b]) == pytest.approx(expected)
            nats = mutual_info_score(member[a].numpy(), member[b].numpy())
            assert float(bits[a, b]) == pytest.approx(nats / np.log(2), abs=1e-9)
        assert float(own[a]) == pytest.approx(entropy(4 / 12))


def test_information_of_identical_and_disjoint_sets() -> None:
    member = members(torch.tensor([[0, 1], [1, 0], [2, 3]]), 8)
    bits, own = set_information(member)
    assert float(bits[0, 1]) == pytest.approx(entropy(0.25))
    assert own.tolist() == pytest.approx([entropy(0.25)] * 3)
    # Two disjoint quarters: p(both) = 0, p(one only) = 1/4 each, p(neither) = 1/2.
    assert float(bits[0, 2]) == pytest.approx(2 * entropy(0.25) - 1.5)
    frequency = member.double()
    separation = class_information(frequency / frequency.sum(1, keepdim=True))
    assert separation.tolist() == [
        pytest.approx([0, 0, 1]), pytest.approx([0, 0, 1]), pytest.approx([1, 1, 0])
    ]  # fmt: skip


def test_information_of_distributions_is_that_of_class_and_feature() -> None:
    generator = torch.Generator().manual_seed(1)
    p = torch.rand(4, 9, generator=generator, dtype=torch.float64)
    p /= p.sum(1, keepdim=True)
    found = class_information(p)
    for a in range(4):
        for b in range(4):
            joint = torch.stack([p[a], p[b]]) / 2
            outer = joint.sum(1, keepdim=True) * joint.sum(0, keepdim=True)
            expected = float((joint * (joint / outer).log2()).sum())
            assert float(found[a, b]) == pytest.approx(expected, abs=1e-9)


def test_order_of_features_and_classes_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(2)
    member = members(random_sets(3), 12)
    place = torch.randperm(5, generator=generator)
    moved = member[place][:, torch.randperm(12, generator=generator)]
    for measure in (jaccard, lambda m: set_information(m)[0]):
        expected = measure(member)[place][:, place]
        np.testing.assert_allclose(measure(moved), expected, atol=1e-12)


def test_mantel_is_spearman_over_pairs_with_permuted_classes() -> None:
    generator = torch.Generator().manual_seed(4)
    a = torch.rand(7, 7, generator=generator, dtype=torch.float64)
    a = a + a.T
    noise = torch.rand(7, 7, generator=generator, dtype=torch.float64)
    b = a + 0.3 * (noise + noise.T)
    found = mantel(a, b, seed=0)
    i, j = torch.triu_indices(7, 7, 1)
    assert found["rank_correlation"] == pytest.approx(spearmanr(a[i, j], b[i, j]).statistic)
    assert found["p"] < 0.01
    assert found["n_pairs"] == 21
    other = torch.rand(7, 7, generator=generator, dtype=torch.float64)
    assert mantel(a, other + other.T, seed=0)["p"] > 0.05
    assert np.isnan(mantel(a, torch.ones(7, 7), seed=0)["rank_correlation"])
    few = mantel(a[:5, :5], a[:5, :5], seed=0)
    assert np.isnan(few["rank_correlation"]), "five classes have too few orders to tell from chance"
    assert np.isnan(few["p"])
    assert few["n_pairs"] == 10


def test_confusions_are_counted_and_unknown_without_a_head() -> None:
    z = torch.eye(3).repeat(2, 1)
    labels = torch.tensor([0, 1, 2, 1, 1, 2])
    features = Features.of(z, labels, torch.eye(3))
    table = confusions(features, 3, features.require_head())
    assert table is not None
    assert table.tolist() == [[1, 0, 0], [1, 2, 0], [0, 0, 2]]
    assert float(confusion_rates(table)[0, 1]) == pytest.approx(1 / 4)
    assert confusions(Features.of(z, labels), 3, None) is None


def test_classes_without_samples_share_nothing_and_pairs_are_named() -> None:
    sets = torch.tensor([[0, 1], [1, 2], [0, 1]])
    frequency = members(sets, 6).double()
    replicates = sets[:, None].expand(3, 4, 2)
    counts = torch.tensor([4, 4, 0])
    found = overlap(frequency, sets, replicates, counts, None, ["ant", "bee", "cat"], 0)
    assert found["jaccard"]["mean"] == pytest.approx(1 / 3)
    assert found["jaccard"]["interval"] == pytest.approx([1 / 3, 1 / 3])
    assert bool(found["jaccard"]["matrix"][2].isnan().all())
    assert [pair["classes"] for pair in found["shared"]] == [["ant", "bee"]]
    assert found["shared"][0]["features"].tolist() == [1]
    assert found["confusion"] is None
