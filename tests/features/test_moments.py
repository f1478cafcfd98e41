from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penult.errors import InputError
from penult.features.moments import Moments


def samples(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(40, 5, generator=generator) * 3 + 1
    return z, torch.randint(3, (40,), generator=generator)


def test_sums_equal_a_loop_over_samples() -> None:
    z, labels = samples(0)
    moments = Moments.of(z, labels, 3)
    counts, sums, products = np.zeros(3), np.zeros((3, 5)), np.zeros((5, 5))
    for row, label in zip(z.double().numpy(), labels.numpy(), strict=True):
        counts[label] += 1
        sums[label] += row
        products += np.outer(row, row)
    np.testing.assert_array_equal(moments.counts, counts)
    np.testing.assert_allclose(moments.sums, sums, rtol=1e-12)
    np.testing.assert_allclose(moments.products, products, rtol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(1, 39), max_size=4), st.randoms())
def test_shards_merge_in_any_order_to_the_whole(seed: int, cuts: list[int], random: object) -> None:
    z, labels = samples(seed)
    whole = Moments.of(z, labels, 3)
    edges = sorted({0, 40, *cuts})
    shards = [Moments.of(z[a:b], labels[a:b], 3) for a, b in pairwise(edges)]
    random.shuffle(shards)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    merged = sum(shards[1:], shards[0])
    assert torch.equal(merged.counts, whole.counts)
    for ours, theirs in ((merged.sums, whole.sums), (merged.products, whole.products)):
        assert (ours - theirs).abs().max() <= 1e-9 * theirs.abs().max()


def test_derived_statistics_equal_numpy() -> None:
    z, labels = samples(1)
    moments = Moments.of(z, labels, 3)
    x = z.double().numpy()
    np.testing.assert_allclose(moments.mean(), x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.covariance(), np.cov(x.T, bias=True), atol=1e-12)
    np.testing.assert_allclose(moments.root_mean_square(), np.sqrt((x**2).mean(0)), rtol=1e-12)
    for c in range(3):
        np.testing.assert_allclose(moments.class_means()[c], x[labels == c].mean(0), rtol=1e-12)
    assert moments.n_samples == 40


def test_class_without_samples_has_mean_zero() -> None:
    moments = Moments.of(torch.ones(2, 2), torch.tensor([0, 0]), 2)
    assert moments.class_means()[1].tolist() == [0, 0]


def test_half_precision_features_do_not_overflow_the_sums() -> None:
    z = torch.full((1000, 2), 60000.0, dtype=torch.float16)
    moments = Moments.of(z, torch.zeros(1000, dtype=torch.int64), 1)
    value = float(z[0, 0])
    assert float(moments.products[0, 1]) == 1000 * value**2


def test_save_and_load_are_exact(tmp_path: Path) -> None:
    moments = Moments.of(*samples(2), 3)
    moments.save(tmp_path / "moments.safetensors")
    found = Moments.load(tmp_path / "moments.safetensors")
    assert torch.equal(found.counts, moments.counts)
    assert torch.equal(found.sums, moments.sums)
    assert torch.equal(found.products, moments.products)


def test_wrong_sizes_are_refused() -> None:
    moments = Moments.zeros(3, 5)
    with pytest.raises(InputError, match=r"expected features of shape \(n_samples, 5\)"):
        moments.update(torch.ones(2, 4), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="moments of different sizes cannot be merged"):
        moments + Moments.zeros(3, 4)


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="no readable safetensors file"):
        Moments.load(path)
    with pytest.raises(InputError, match="does not exist"):
        Moments.load(tmp_path / "absent.safetensors")


def test_the_range_of_each_feature_is_kept_and_merges(tmp_path: Path) -> None:
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(50) % 3
    whole = Moments.of(z, labels, 3)
    merged = Moments.of(z[:7], labels[:7], 3) + Moments.of(z[7:], labels[7:], 3)
    empty = Moments.zeros(3, 4)
    empty.update(z[:0], labels[:0])
    for found in (whole, merged, whole + empty):
        assert torch.equal(found.low, z.double().amin(0))
        assert torch.equal(found.high, z.double().amax(0))
    whole.save(tmp_path / "m.safetensors")
    again = Moments.load(tmp_path / "m.safetensors").to("cpu")
    assert torch.equal(again.low, whole.low)
    assert torch.equal(again.high, whole.high)
    assert bool((empty.low > empty.high).all())
