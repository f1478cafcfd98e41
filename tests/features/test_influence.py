from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penult.errors import InputError
from penult.features.features import Features
from penult.features.influence import SCORES, Evidence, Top, TopCounts, influence

N_CLASSES, N_FEATURES = 3, 6


def samples(seed: int, signed: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(50, N_FEATURES, generator=generator)
    z = z if signed else z.relu()
    z[7] = 0
    labels = torch.randint(N_CLASSES, (50,), generator=generator)
    return z, labels, torch.randn(N_CLASSES, N_FEATURES, generator=generator)


def naive_counts(z: Tensor, labels: Tensor, top: Top) -> np.ndarray:
    counts = np.zeros((N_CLASSES, N_FEATURES), dtype=np.int64)
    for row, label in zip(z.double().abs().tolist(), labels.tolist(), strict=True):
        order = sorted(range(N_FEATURES), key=lambda j: (-row[j], j))
        if isinstance(top, int):
            taken = order[:top]
        else:
            total, mass, taken = sum(row), 0.0, []
            for j in order:
                if total == 0 or mass / total >= top:
                    break
                taken.append(j)
                mass += row[j]
        for j in taken:
            counts[label, j] += 1
    return counts


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.booleans(),
    st.one_of(st.integers(1, N_FEATURES), st.floats(0.01, 0.99)),
)
def test_counts_equal_a_loop_over_samples(seed: int, signed: bool, top: Top) -> None:
    z, labels, _ = samples(seed, signed)
    found = TopCounts.of(z, labels, N_CLASSES, [top])
    np.testing.assert_array_equal(found.at(top), naive_counts(z, labels, top))


def test_shares_equal_a_loop_over_samples() -> None:
    z, labels, _ = samples(3, signed=True)
    expected = np.zeros((N_CLASSES, N_FEATURES))
    for row, label in zip(z.double().abs().numpy(), labels.numpy(), strict=True):
        if row.sum() > 0:
            expected[label] += row / row.sum()
    found = TopCounts.of(z, labels, N_CLASSES, [1])
    np.testing.assert_allclose(found.shares, expected, rtol=1e-12)


def test_counts_of_shards_add_up_exactly() -> None:
    z, labels, _ = samples(4)
    tops = [1, 3, 0.5]
    whole = TopCounts.of(z, labels, N_CLASSES, tops)
    parts = [TopCounts.of(z[i::3], labels[i::3], N_CLASSES, tops) for i in (2, 0, 1)]
    assert torch.equal((parts[0] + parts[1] + parts[2]).counts, whole.counts)


def evidence_of(seed: int, n: int = 50) -> Evidence:
    z, labels, weight = samples(seed)
    features = Features.of(z[:n], labels[:n], weight)
    return Evidence.of(features, ks=[1, 2, 3])


def test_scores_equal_their_definitions() -> None:
    z, labels, weight = samples(5)
    evidence = evidence_of(5)
    x, w = z.double().numpy(), weight.double().numpy()
    means = np.stack([x[labels == c].mean(0) for c in range(N_CLASSES)])
    counts = np.bincount(labels, minlength=N_CLASSES)[:, None]
    sums = x.sum(1, keepdims=True)
    shares = np.divide(x, sums, where=sums > 0, out=np.zeros_like(x))
    expected = {
        "frequency": naive_counts(z, labels, 2) / counts,
        "mass": np.stack([shares[labels == c].mean(0) for c in range(N_CLASSES)]),
        "contribution": w * means,
        "wanda": np.abs(w) * np.sqrt((x**2).mean(0)),
        "magnitude": np.abs(w),
    }
    assert {*expected, "random"} == set(SCORES)
    for name, values in expected.items():
        np.testing.assert_allclose(influence(name, evidence, 2), values, rtol=1e-9, err_msg=name)


def test_random_is_the_same_for_the_same_seed_only() -> None:
    first, same = evidence_of(6), evidence_of(6)
    assert torch.equal(influence("random", first, 1), influence("random", same, 3))
    same.seed = 1
    assert not torch.equal(influence("random", first, 1), influence("random", same, 1))


def test_frequency_takes_a_fraction_when_told() -> None:
    z, labels, weight = samples(8)
    evidence = Evidence.zeros(weight, top=0.5)
    evidence.update(z, labels)
    counts = np.bincount(labels, minlength=N_CLASSES)[:, None]
    expected = naive_counts(z, labels, 0.5) / counts
    np.testing.assert_allclose(influence("frequency", evidence, 3), expected)


def test_class_without_samples_goes_by_its_weights() -> None:
    z, labels, weight = samples(9)
    evidence = Evidence.of(Features.of(z[labels != 1], labels[labels != 1], weight), ks=[2])
    for name in ("frequency", "mass", "contribution"):
        found = influence(name, evidence, 2)
        assert torch.equal(found[1], weight[1].double().abs()), name
        assert not torch.equal(found[0], weight[0].double().abs()), name


@pytest.mark.parametrize("top", [0, N_FEATURES + 1, 0.0, 1.0, -0.5])
def test_tops_out_of_range_are_refused(top: Top) -> None:
    with pytest.raises(InputError, match=r"a top is a number of features in \[1, 6\]"):
        TopCounts.zeros([top], N_CLASSES, N_FEATURES)


def test_unknown_names_and_tops_are_refused() -> None:
    evidence = evidence_of(10)
    with pytest.raises(InputError, match="no score is called 'shap'; there are frequency, mass"):
        influence("shap", evidence, 1)
    with pytest.raises(InputError, match="no counts were kept for a top of 5; there are 1, 2, 3"):
        influence("frequency", evidence, 5)


def test_shares_are_summed_without_tops_too() -> None:
    z = torch.rand(30, 6, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 3
    with_tops, without = (TopCounts.of(z, labels, 3, tops) for tops in ([1, 0.5], []))
    assert torch.equal(with_tops.shares, without.shares)
    assert without.counts.shape == (0, 3, 6)
