from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penult.measure.selectivity import ShareCounts, mu, psi, selectivity

N_CLASSES, N_FEATURES = 4, 7


def samples(seed: int, signed: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(61, N_FEATURES, generator=generator)
    return z if signed else z.relu(), torch.randint(N_CLASSES, (61,), generator=generator)


def shares_of(z: Tensor, labels: Tensor, fraction: float) -> ShareCounts:
    shares = ShareCounts.zeros([fraction], N_CLASSES, z.shape[1])
    for start in range(0, len(z), 20):
        shares.update(z[start : start + 20], labels[start : start + 20])
    return shares


def naive_psi(z: Tensor, labels: Tensor, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    means, medians = [], []
    for c in range(N_CLASSES):
        found = []
        for row in z[labels == c].double().abs().tolist():
            total, reached, m = sum(row), 0.0, 0
            if total == 0:
                continue
            for value in sorted(row, reverse=True):
                reached += value
                if reached / total >= fraction:
                    break
                m += 1
            found.append(m)
        n = z.shape[1]
        means.append((n - np.mean(found)) / n if found else np.nan)
        medians.append((n - np.median(found)) / n if found else np.nan)
    return np.array(means), np.array(medians)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.booleans(), st.floats(0.02, 0.98))
def test_psi_equals_a_loop_over_samples(seed: int, signed: bool, fraction: float) -> None:
    z, labels = samples(seed, signed)
    found = psi(shares_of(z, labels, fraction).counts[0])
    for got, expected in zip(found, naive_psi(z, labels, fraction), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-9)
        assert float(got[~got.isnan()].min()) > 0
        assert float(got[~got.isnan()].max()) <= 1


def test_mu_equals_a_loop_over_units() -> None:
    z, labels = samples(1)
    x = z.double().numpy()
    expected: list[float] = []
    for j in range(N_FEATURES):
        ranked = sorted(float(x[labels == c, j].mean()) for c in range(N_CLASSES))
        rest = float(np.mean(ranked[:-1]))
        expected.append((ranked[-1] - rest) / (ranked[-1] + rest + 1e-7))
    means = torch.stack([z[labels == c].double().mean(0) for c in range(N_CLASSES)])
    found = mu(means, torch.bincount(labels))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert bool(((found >= 0) & (found <= 1)).all())


def test_mu_of_a_unit_for_one_class_is_one_and_of_a_dead_unit_zero() -> None:
    means = torch.tensor([[3.0, 0.0, 2.0], [0.0, 0.0, 2.0], [9.0, 9.0, 9.0]])
    found = mu(means, torch.tensor([5, 5, 0]))
    assert found.tolist() == pytest.approx([1, 0, 0], abs=1e-6)
    assert bool(mu(means, torch.tensor([5, 0, 0])).isnan().all()), "one class prefers nothing"


@pytest.mark.parametrize("change", ["samples", "features", "scale", "classes"])
def test_order_and_scale_change_nothing(change: str) -> None:
    z, labels = samples(2)
    generator = torch.Generator().manual_seed(3)
    z2, labels2, place = z, labels, torch.arange(N_CLASSES)
    if change == "samples":
        order = torch.randperm(len(z), generator=generator)
        z2, labels2 = z[order], labels[order]
    elif change == "features":
        z2 = z[:, torch.randperm(N_FEATURES, generator=generator)]
    elif change == "scale":
        z2 = z * torch.rand(len(z), 1, generator=generator).add(0.5)
    else:
        place = torch.randperm(N_CLASSES, generator=generator)
        labels2 = place[labels]
    for f in (0.25, 0.5, 0.9):
        first = psi(shares_of(z, labels, f).counts[0])[0]
        second = psi(shares_of(z2, labels2, f).counts[0])[0]
        np.testing.assert_allclose(second[place], first, rtol=1e-12)


def test_equal_shares_do_not_depend_on_the_last_bit() -> None:
    # Ten shares of a tenth: five of them reach one half, so four sum to less.
    for scale in (1.0, 0.1, 3.7):
        shares = ShareCounts.zeros([0.5], 1, 10)
        shares.update(torch.full((3, 10), scale), torch.zeros(3, dtype=torch.int64))
        assert psi(shares.counts[0])[0].tolist() == pytest.approx([0.6])


def test_the_interval_covers_psi_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(4)
    truth = torch.distributions.Exponential(1.0)
    torch.manual_seed(5)
    values, covered = [], []
    for seed in range(60):
        z = truth.sample((80, N_FEATURES))
        labels = torch.randint(2, (80,), generator=generator)
        shares = ShareCounts.zeros([0.5], 2, N_FEATURES)
        shares.update(z, labels)
        counts, sizes = torch.bincount(labels)[None], torch.rand(1, 2, N_FEATURES)
        found = selectivity(shares, counts, sizes, 200, seed)["psi"]["0.5"]
        values.append(found["mean"])
        covered.append(found["interval"])
    middle = float(np.mean(values))
    share = np.mean([low <= middle <= high for low, high in covered])
    assert 0.85 <= share <= 1


def test_silent_samples_have_no_share() -> None:
    z = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0]])
    shares = ShareCounts.zeros([0.5], 2, 2)
    shares.update(z, torch.tensor([0, 0, 1]))
    mean, median = psi(shares.counts[0])
    assert float(mean[0]) == 1
    assert bool(mean[1].isnan())
    assert bool(median[1].isnan())
