"""Intervals cover what they promise, and tests of proportions agree with those of scipy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import binom, binomtest, multinomial

from penult.intervals import (
    accuracy_interval,
    accuracy_intervals,
    benjamini_hochberg,
    exact_interval,
    paired_bound,
    paired_interval,
    paired_tail,
    samples_needed,
    score_interval,
    sign_test,
)


@pytest.mark.parametrize(("n_right", "n"), [(0, 10), (3, 7), (10, 10), (912, 1000)])
def test_the_interval_of_an_accuracy_is_wilsons(n_right: int, n: int) -> None:
    wanted = binomtest(n_right, n).proportion_ci(0.95, "wilson")
    assert accuracy_interval(n_right, n) == pytest.approx((wanted.low, wanted.high))
    assert accuracy_interval(0, 0) == (0, 1)
    low, high = accuracy_intervals(torch.tensor([n_right, 1]), torch.tensor([n, 2]))
    assert [float(low[0]), float(high[0])] == pytest.approx([wanted.low, wanted.high])


def test_none_is_not_surely_more_than_none_nor_all_less_than_all() -> None:
    """A limit of 0 or 1 is met exactly: no rounding lies beyond it."""
    n = torch.arange(1, 3000)
    for z in (1.0, 1.959963984540054, 3.7):
        assert {accuracy_interval(0, m, z)[0] for m in n.tolist()} == {0.0}
        assert {accuracy_interval(m, m, z)[1] for m in n.tolist()} == {1.0}
    assert bool((accuracy_intervals(torch.zeros_like(n), n)[0] == 0).all())
    assert bool((accuracy_intervals(n, n)[1] == 1).all())
    assert all(bool(end.isnan().all()) for end in accuracy_intervals(n[:1] * 0, n[:1] * 0))


@pytest.mark.parametrize(("lost", "won", "n"), [(12, 3, 100), (0, 0, 20), (5, 5, 60)])
def test_the_tail_of_a_paired_loss_is_5_per_cent_at_the_end_of_its_interval(
    lost: int, won: int, n: int
) -> None:
    low, high = paired_interval(lost, won, n)
    assert paired_tail(lost, won, n, low) == pytest.approx(0.025)
    assert paired_tail(lost, won, n, high) == pytest.approx(0.975)


def covered(n: int, p_lost: float, p_won: float) -> tuple[float, float]:
    """Exact probability that interval and bound hold the true loss."""
    by_interval = by_bound = 0.0
    for lost in range(n + 1):
        p = binom.pmf(lost, n, p_lost)
        if p < 1e-9:
            continue
        for won in range(n - lost + 1):
            q = p * binom.pmf(won, n - lost, p_won / (1 - p_lost))
            if q < 1e-12:
                continue
            low, high = paired_interval(lost, won, n)
            by_interval += q * (low <= p_lost - p_won <= high)
            by_bound += q * (p_lost - p_won <= paired_bound(lost, won, n))
    return by_interval, by_bound


@pytest.mark.parametrize(
    ("n", "p_lost", "p_won"),
    [(50, 0.1, 0.05), (200, 0.03, 0.03), (400, 0.03, 0.01), (30, 0.3, 0.2)],
)
def test_paired_intervals_cover_the_true_difference(n: int, p_lost: float, p_won: float) -> None:
    interval, bound = covered(n, p_lost, p_won)
    assert 0.94 <= interval <= 0.98
    assert 0.935 <= bound <= 0.98


def test_intervals_stay_within_their_range() -> None:
    for n in (1, 2, 5, 40):
        for lost in range(n + 1):
            low, high = paired_interval(lost, n - lost, n)
            assert -1 <= low <= (2 * lost - n) / n <= high <= 1 or n < 3
    assert paired_interval(0, 0, 0) == pytest.approx((-0.98, 0.98), abs=0.01)


@pytest.mark.parametrize("tolerance", [0.001, 0.005, 0.02, 0.1])
def test_the_samples_needed_are_the_fewest_that_can_pass(tolerance: float) -> None:
    n = samples_needed(tolerance)
    assert paired_bound(0, 0, n) <= tolerance < paired_bound(0, 0, n - 1)
    more = samples_needed(tolerance, 0.1)
    half = round(more * 0.05)
    assert paired_bound(half, half, more) == pytest.approx(tolerance, rel=0.1)


def test_the_sign_test_is_mcnemars() -> None:
    assert sign_test(0, 0) == 1
    assert sign_test(8, 2) == pytest.approx(2 * binom.cdf(2, 10, 0.5))


def test_the_false_discovery_rate_is_kept() -> None:
    assert list(benjamini_hochberg([])) == []
    assert benjamini_hochberg([0.01, 0.04, 0.5]) == pytest.approx([0.03, 0.06, 0.5])
    generator = np.random.default_rng(0)
    false = []
    for _ in range(400):
        p = np.concatenate([generator.random(40), generator.random(10) * 1e-4])
        found = np.array(benjamini_hochberg(list(p))) <= 0.05
        false.append(found[:40].sum() / max(1, found.sum()))
    assert np.mean(false) < 0.055


def likeliest(lost: int, won: int, n: int, loss: float) -> float:
    """The chance of a win that makes the counts likeliest among all of that loss, by search."""
    low, high = max(0.0, -loss), (1 - loss) / 2

    def unlikely(q: float) -> float:
        with np.errstate(divide="ignore", invalid="ignore"):
            chances = np.array([q + loss, q, 1 - 2 * q - loss])
            terms = np.array([lost, won, n - lost - won]) * np.log(np.maximum(chances, 1e-300))
        return -float(terms.sum())

    return float(minimize_scalar(unlikely, bounds=(low, high), options={"xatol": 1e-12}).x)


@pytest.mark.parametrize(
    ("lost", "won", "n", "z"),
    [(8, 21, 75, 1.96), (3, 1, 10, 1.96), (92, 17, 600, 2.5), (5, 5, 30, 4.06), (12, 0, 40, 3)],
)
def test_the_score_interval_is_where_a_score_test_ends(
    lost: int, won: int, n: int, z: float
) -> None:
    def statistic(loss: float) -> float:
        q = likeliest(lost, won, n, loss)
        return float((lost - won - n * loss) / np.sqrt(n * (2 * q + loss - loss**2)))

    middle = (lost - won) / n
    low = brentq(lambda loss: statistic(loss) - z, -0.999, middle)
    high = brentq(lambda loss: statistic(loss) + z, middle, 0.999)
    assert score_interval(lost, won, n, z) == pytest.approx((low, high), abs=1e-4)


def test_nothing_lost_of_a_hundred_is_no_proof_of_two_percent() -> None:
    """Of a true loss of 2 % none of 100 samples is lost in 13 %: the rule of three."""
    low, high = score_interval(0, 0, 100)
    assert (low, high) == pytest.approx((-0.037, 0.037), abs=1e-4)  # z² / (n + z²)
    assert paired_interval(0, 0, 100)[1] < 0.02, "which the faster one takes for proved"
    assert score_interval(0, 0, 0) == (-1, 1)
    assert score_interval(10, 0, 10)[1] == pytest.approx(1)


@pytest.mark.parametrize(("n_found", "n"), [(0, 30), (1, 30), (15, 30), (30, 30), (3, 10_000)])
def test_the_exact_interval_is_clopper_and_pearsons(n_found: int, n: int) -> None:
    wanted = binomtest(n_found, n).proportion_ci(0.95, "exact")
    assert exact_interval(n_found, n) == pytest.approx((wanted.low, wanted.high))
    assert exact_interval(0, 0) == (0, 1)


@pytest.mark.parametrize(("classes", "n"), [(1, 10), (1, 40), (10, 10), (1000, 10), (1000, 30)])
def test_any_of_many_small_classes_is_called_worse_in_one_of_twenty_cases(
    classes: int, n: int
) -> None:
    """All at a loss of just the limit, by adding up the chances of all counts; however noisy."""
    from scipy.special import ndtri

    z = float(ndtri(1 - 0.025 / classes))
    counts = [(b, c) for b in range(n + 1) for c in range(n + 1 - b)]
    lows = np.array([score_interval(b, c, n, z)[0] for b, c in counts])
    highs = np.array([score_interval(b, c, n, z)[1] for b, c in counts])
    table = np.array([(b, c, n - b - c) for b, c in counts])
    for limit in (0.0, 0.02, 0.1):
        for won in (0.0, 0.05, 0.25, 0.4):
            chances = multinomial.pmf(table, n, [won + limit, won, 1 - 2 * won - limit])
            fails = float(chances[lows > limit + 1e-9].sum())
            assert 1 - (1 - fails) ** classes <= 0.055
            assert float(chances[highs < limit - 1e-9].sum()) <= 0.055


@pytest.mark.parametrize("n", [10, 30, 100])
def test_a_rate_is_called_too_high_in_one_of_forty_cases(n: int) -> None:
    found = np.arange(n + 1)
    ends = np.array([exact_interval(int(k), n) for k in found])
    for limit in (0.001, 0.005, 0.01, 0.05, 0.5):
        chances = binom.pmf(found, n, limit)
        assert float(chances[ends[:, 0] > limit].sum()) <= 0.025
        assert float(chances[ends[:, 1] < limit].sum()) <= 0.025
