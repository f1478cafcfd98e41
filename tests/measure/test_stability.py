from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from penult.features.features import Features
from penult.features.influence import TopCounts
from penult.heads.subspaces import top_k
from penult.measure.class_samples import ClassSamples
from penult.measure.stability import chance_jaccard, in_top, resampled_sets, stability
from penult.measure.uncertainty import jackknife, mean_interval, percentiles, plain, resampled

K, N_FEATURES = 2, 6


def features_of(seed: int = 0, n: int = 90) -> Features:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    z = torch.rand(n, N_FEATURES, generator=generator)
    # Class 0 is sure of its features; the others hardly prefer any.
    z[labels == 0, :2] += 2
    z[labels == 1, 4] += 0.2
    return Features.of(z, labels)


def test_top_features_are_those_that_frequency_counts() -> None:
    z, labels = features_of().arrays()
    z = z - 1  # a share is that of |z|
    expected = TopCounts.of(z, labels, 3, [K]).at(K)
    found = torch.stack([in_top(z[labels == c], K).sum(0) for c in range(3)])
    assert torch.equal(found.long(), expected)


def test_resampled_sets_equal_those_of_the_repeated_samples() -> None:
    features = features_of()
    sample = ClassSamples.of(features, 3)
    weight = torch.randn(3, N_FEATURES, generator=torch.Generator().manual_seed(1))
    for given in (None, weight):
        found = resampled_sets(sample, K, 8, 0, given)
        generator = torch.Generator().manual_seed(0)
        for c, z in enumerate(sample.classes()):
            for b, times in enumerate(resampled(len(z), 8, generator)):
                drawn = z.repeat_interleave(times.long(), 0)
                scores = in_top(drawn, K).mean(0) if given is None else drawn.mean(0) * weight[c]
                expected = top_k(scores[None].double(), K)[0]
                assert set(found[c, b].tolist()) == set(expected.tolist())


def test_stability_equals_slow_sets() -> None:
    features = features_of()
    sample = ClassSamples.of(features, 3)
    z, labels = features.arrays()
    sets = top_k(TopCounts.of(z, labels, 3, [K]).at(K).double(), K).indices.view(3, K)
    drawn = resampled_sets(sample, K, 40, 0)
    found = stability(sets, drawn, sample.counts, N_FEATURES)
    for c in range(3):
        own = set(sets[c].tolist())
        others = [set(row.tolist()) for row in drawn[c]]
        likes = [len(own & other) / len(own | other) for other in others]
        pairs = [len(a & b) / len(a | b) for a, b in zip(others[:20], others[20:], strict=True)]
        row = found["classes"][c]
        assert row["jaccard"]["mean"] == pytest.approx(np.mean(likes))
        assert row["jaccard"]["interval"] == pytest.approx(np.quantile(likes, [0.025, 0.975]))
        assert row["between"]["mean"] == pytest.approx(np.mean(pairs))
        for cell in row["features"]:
            chosen = np.mean([cell["feature"] in other for other in others])
            assert cell["chosen"] == pytest.approx(chosen)
    assert found["classes"][0]["jaccard"]["mean"] == 1
    assert found["classes"][2]["jaccard"]["mean"] < 0.9


def test_the_bootstrap_foresees_how_new_samples_differ() -> None:
    foreseen, seen = [], []
    for seed in range(30):
        first, second = features_of(2 * seed), features_of(2 * seed + 1)
        sets = []
        for features in (first, second):
            z, labels = features.arrays()
            sets.append(top_k(TopCounts.of(z, labels, 3, [K]).at(K).double(), K)[1].tolist())
        a, b = map(set, sets)
        seen.append(len(a & b) / len(a | b))
        drawn = resampled_sets(ClassSamples.of(first, 3), K, 60, seed)
        document = stability(drawn[:, 0], drawn, torch.tensor([30, 30, 30]), N_FEATURES)
        foreseen.append(document["classes"][1]["between"]["mean"])
    assert np.mean(foreseen) == pytest.approx(np.mean(seen), abs=0.15)


def test_chance_is_the_mean_over_all_pairs_of_sets() -> None:
    sets = [set(s) for s in combinations(range(7), 3)]
    expected = np.mean([len(a & b) / len(a | b) for a in sets for b in sets])
    assert chance_jaccard(3, 7) == pytest.approx(expected)
    assert chance_jaccard(4, 4) == 1


def test_classes_with_one_sample_or_none_are_null() -> None:
    sets = torch.zeros(3, 1, dtype=torch.int64)
    drawn = torch.zeros(3, 4, 1, dtype=torch.int64)
    found = stability(sets, drawn, torch.tensor([0, 1, 5]), 4)
    assert [row is None for row in found["classes"]] == [True, True, False]
    assert plain(stability(sets, drawn, torch.tensor([0, 1, 1]), 4))["jaccard"] == {
        "mean": None, "interval": None
    }  # fmt: skip


def test_sample_takes_the_same_part_of_every_class() -> None:
    z = torch.arange(1000.0)[:, None].expand(-1, 4)
    labels = torch.cat([torch.zeros(900), torch.ones(99), torch.tensor([2])]).long()
    features = Features.of(z, labels)
    part = ClassSamples.of(features, 4, seed=3, max_elements=400)
    assert part.counts.tolist() == [90, 10, 1, 0]
    assert torch.equal(part.z, ClassSamples.of(features, 4, seed=3, max_elements=400).z)
    assert not torch.equal(part.z, ClassSamples.of(features, 4, seed=4, max_elements=400).z)
    assert torch.equal(labels[part.z[:, 0].long()], torch.arange(4).repeat_interleave(part.counts))
    assert [len(rows) for rows in part.classes()] == [90, 10, 1, 0]
    assert len(ClassSamples.of(features, 4).z) == 1000


def test_intervals_stay_where_the_measure_can_be() -> None:
    noisy = [0.5, 3.0, 20.0, 8.0]
    assert jackknife(8.0, noisy)[0] < 0  # type: ignore[index]
    low, high = jackknife(8.0, noisy, 0) or (0, 0)
    assert 0 < low < 8 < high
    assert low * high == pytest.approx(64), "as wide on both sides, as a factor"
    assert jackknife(0.9, [0.5, 0.99, 0.9], 0, 1)[1] == 1  # type: ignore[index]
    assert jackknife(0.0, [0.0, 0.1, 0.2], 0)[0] == 0  # type: ignore[index]


def test_intervals() -> None:
    assert jackknife(2.0, [2.0, 2.0, 2.0]) == [2, 2]
    assert jackknife(float("nan"), [1.0, 2.0]) is None
    values = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    groups = [float(torch.cat([values[:i], values[i + 200 :]]).mean()) for i in range(0, 4000, 200)]
    low, high = jackknife(float(values.mean()), groups) or (0.0, 0.0)
    assert high - low == pytest.approx(2 * 1.96 / 4000**0.5, rel=0.4)
    hits = (torch.rand(1000, generator=torch.Generator().manual_seed(1)) < 0.3).double()
    low, high = mean_interval(hits) or (0.0, 0.0)
    assert high - low == pytest.approx(2 * 1.96 * (0.21 / 1000) ** 0.5, rel=0.05)
    wider = mean_interval(hits, torch.tensor([0.2, 0.4])) or (0.0, 0.0)
    assert wider[0] < low
    assert mean_interval(hits[:1]) is None
    assert percentiles(torch.tensor([torch.nan])) is None
    assert plain({"a": torch.tensor([1.0, torch.nan]), "b": (1, None)}) == {
        "a": [1, None], "b": [1, None]
    }  # fmt: skip
