from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from penult.errors import InputError
from penult.heads.select import walk
from penult.heads.select.quadratic import correlations
from penult.heads.select.tableau import Tableau
from penult.heads.select.walk import improve


def problem(
    seed: int, n_features: int = 8, n_classes: int = 4, n_samples: int = 300
) -> tuple[Tensor, Tensor]:
    """Correlated, shifted, unequally scaled features and a dense weight."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(n_features, n_features, generator=generator, dtype=torch.float64)
    z = torch.randn(n_samples, n_features, generator=generator, dtype=torch.float64) @ mix
    z = z * torch.logspace(-1, 1, n_features, dtype=torch.float64) + 3
    weight = torch.randn(n_classes, n_features, generator=generator)
    return z, weight


def correlation_of(z: Tensor) -> Tensor:
    """Correlations of features."""
    wide = torch.cat([z, torch.ones(len(z), 1, dtype=z.dtype)], 1)
    return correlations(wide.T @ wide / len(z))[0]


def reference(tableau: Tableau) -> tuple[Tensor, Tensor, Tensor]:
    """Weights, residuals and open variances of a tableau by plain solves."""
    rows = []
    for i in range(len(tableau.support)):
        g = tableau.covariance[tableau.owners[i]]
        s = tableau.support[i]
        weights = torch.linalg.solve(g[s][:, s], tableau.products[i, s])
        through = torch.linalg.solve(g[s][:, s], g[s])
        residuals = tableau.products[i] - weights @ g[s]
        rows.append((weights, residuals, g.diagonal() - (through * g[s]).sum(0)))
    weights, residuals, variances = (torch.stack(column) for column in zip(*rows, strict=True))
    return weights, residuals, variances


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.booleans())
def test_updates_equal_plain_solves(seed: int, shared: bool) -> None:
    z, weight = problem(seed)
    correlation = correlation_of(z)
    covariance = correlation if shared else correlation.expand(4, -1, -1).clone()
    tableau = Tableau.empty(covariance, weight.double() @ correlation)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(4):
        free = tableau.gains() >= 0
        tableau.add(torch.multinomial(free.double(), 1, generator=generator)[:, 0])
    tableau.remove(torch.randint(4, (4,), generator=generator))
    free = tableau.gains() >= 0
    place = torch.randint(3, (4,), generator=generator)
    tableau.swap(place, torch.multinomial(free.double(), 1, generator=generator)[:, 0])
    found = (tableau.weights, tableau.residuals, tableau.variances)
    for ours, theirs in zip(found, reference(tableau), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
    fresh = Tableau.of(covariance, tableau.products, tableau.support)
    torch.testing.assert_close(fresh.variances, tableau.variances, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_gains_losses_and_swaps_are_what_they_say(seed: int) -> None:
    z, weight = problem(seed)
    correlation = correlation_of(z)
    products = weight.double() @ correlation
    support = torch.tensor([[0, 3, 5]] * 4)
    tableau = Tableau.of(correlation, products, support)
    scale = float(products.abs().max() ** 2)

    def value(kept: list[int]) -> Tensor:
        return Tableau.of(correlation, products, torch.tensor([kept] * 4)).explained

    everything = torch.arange(8).expand(4, -1)
    swaps, bounds = tableau.swap_gains(everything), tableau.swap_bounds()
    for new in (1, 2, 4, 6, 7):
        gain = value([0, 3, 5, new]) - tableau.explained
        torch.testing.assert_close(tableau.gains()[:, new], gain, rtol=1e-4, atol=1e-6 * scale)
        for place, out in enumerate([0, 3, 5]):
            kept = [j for j in (0, 3, 5) if j != out]
            gain = value([*kept, new]) - tableau.explained
            torch.testing.assert_close(swaps[:, place, new], gain, rtol=1e-4, atol=1e-6 * scale)
            assert bool((gain <= bounds[:, new] + 1e-6 * scale).all())
    loss = tableau.explained - value([0, 5])
    torch.testing.assert_close(tableau.losses()[:, 1], loss, rtol=1e-4, atol=1e-6 * scale)
    assert bool((tableau.gains().gather(1, support) == -1).all())


def test_supports_of_a_batch_do_not_mix() -> None:
    z, weight = problem(7)
    correlation = correlation_of(z)
    products = weight.double() @ correlation
    together = Tableau.of(correlation, products, torch.tensor([[0, 1, 2]] * 4))
    improve(together)
    for c in range(4):
        alone = Tableau.of(correlation[None], products[c : c + 1], torch.tensor([[0, 1, 2]]))
        improve(alone)
        assert torch.equal(alone.support[0], together.support[c])


def test_swaps_end_only_where_no_feature_at_all_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where the one feature that promises most is of no help, and another is."""
    monkeypatch.setattr(walk, "FIRST_LOOKED_AT", 1)
    for seed in range(30):
        z, weight = problem(seed)
        correlation = correlation_of(z)
        products = weight.double() @ correlation
        tableau = Tableau.of(correlation, products, torch.tensor([[0, 1, 2]] * 4))
        before = tableau.explained
        improve(tableau)
        assert bool((tableau.explained > before).any())
        every = torch.arange(z.shape[1]).expand(4, -1)
        assert float(tableau.swap_gains(every).max()) <= 1e-7 * float(tableau.explained.max())


def test_sums_that_are_no_numbers_end_in_one_line() -> None:
    z, weight = problem(0)
    products = weight.double() @ correlation_of(z)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(InputError, match="the features' sums hold NaN or overflow"):
            Tableau.of(correlation_of(z) * bad, products, torch.tensor([[0, 1]] * 4))
