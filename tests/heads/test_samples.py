from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from penult.heads.samples import Samples


def samples_of(z: Tensor) -> Samples:
    labels = torch.zeros(len(z), dtype=torch.int64)
    return Samples([(z, labels)], torch.eye(2, z.shape[1]), torch.zeros(2))


def naive(z: Tensor) -> Tensor:
    """Correlations less the part of them that is chance, pair by pair."""
    x = (z - z.mean(0)) / z.std(0, unbiased=False)
    n, d = x.shape
    found = torch.eye(d, dtype=torch.float64)
    chance, apart = 0.0, 0.0
    for i, j in product(range(d), repeat=2):
        if i != j:
            products = x[:, i] * x[:, j]
            found[i, j] = products.mean()
            chance += float(products.var(unbiased=False)) / (n - 1)
            apart += float(products.mean()) ** 2
    part = min(1.0, chance / apart)
    return torch.where(torch.eye(d) == 1, found, found * (1 - part))


@pytest.mark.parametrize("n", [5, 30, 3000])
def test_covariances_of_few_samples_are_drawn_to_none(n: int) -> None:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    z = torch.randn(n, 2, generator=generator, dtype=torch.float64) @ mixed
    z = z + torch.randn(n, 6, generator=generator, dtype=torch.float64)
    found = samples_of(z).coordinates.second_moments
    torch.testing.assert_close(found[:-1, :-1], naive(z), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found[-1], torch.eye(7, dtype=torch.float64)[-1], rtol=0, atol=1e-5)


def test_second_moments_of_one_sample_and_of_constant_features() -> None:
    for z in (torch.rand(1, 4), torch.ones(9, 4), torch.rand(9, 1)):
        found = samples_of(z).coordinates.second_moments
        assert bool(found.isfinite().all())
        assert float(torch.linalg.eigvalsh(found).min()) > -1e-6
