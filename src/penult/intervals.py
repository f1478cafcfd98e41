"""Intervals and tests of proportions: how far an accuracy, or a change of it, can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REMEMBERED = 2**14  # intervals of thousands of groups are of few different counts
Z95 = 1.959963984540054  # two-sided
Z95_ONE_SIDED = 1.6448536269514722


@lru_cache(maxsize=REMEMBERED)
def accuracy_interval(n_right: float, n: float, z: float = Z95) -> tuple[float, float]:
    """95 % interval of a proportion: Wilson 1927, which also holds near 0 and 1 and for small n.

    Args:
        n_right: samples that are right.
        n: samples in all; without any nothing is known, and the interval is (0, 1).
        z: normal quantile of the confidence.
    """
    if n == 0:
        return 0.0, 1.0
    p, whole = n_right / n, 1 + z * z / n
    middle = (p + z * z / (2 * n)) / whole
    half = z / whole * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At its ends the interval is exact, whatever the rounding: none of n is not more than none.
    low = 0.0 if n_right <= 0 else max(0.0, middle - half)
    return low, 1.0 if n_right >= n else min(1.0, middle + half)


def accuracy_intervals(n_right: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """The `accuracy_interval` of many proportions, (…) float64 both ends; NaN without samples."""
    m = n.double()
    p, whole = n_right / m, 1 + Z95 * Z95 / m
    middle = (p + Z95 * Z95 / (2 * m)) / whole
    half = Z95 / whole * (p * (1 - p) / m + Z95 * Z95 / (4 * m * m)).sqrt()
    low = (middle - half).clamp_min(0).where(n_right > 0, 0.0)
    high = (middle + half).clamp_max(1).where(n_right < m, 1.0)
    return low.where(m > 0, torch.nan), high.where(m > 0, torch.nan)


@lru_cache(maxsize=REMEMBERED)
def paired_interval(lost: float, won: float, n: float, z: float = Z95) -> tuple[float, float]:
    """95 % interval of the accuracy that is lost between two heads on the same samples.

    Agresti and Min 2005: the adjusted Wald interval of a difference of paired proportions.

    Args:
        lost: samples that only the first head has right.
        won: samples that only the second has right.
        n: samples in all.
        z: normal quantile of the confidence.
    """
    b, c, m = lost + 0.5, won + 0.5, n + 2
    middle = (b - c) / m
    half = z * math.sqrt(b + c - (b - c) ** 2 / m) / m
    return max(-1.0, middle - half), min(1.0, middle + half)


@lru_cache(maxsize=REMEMBERED)
def score_interval(lost: float, won: float, n: float, z: float = Z95) -> tuple[float, float]:
    """95 % interval of the accuracy that is lost, which holds for few samples and high confidence.

    Tango 1998: all losses that a score test does not reject. `paired_interval` is faster, and says
    too much of ten samples, where none was lost, or of one class among a thousand.

    Args:
        lost: samples that only the first head has right.
        won: samples that only the second has right.
        n: samples in all; without any nothing is known, and the interval is (-1, 1).
        z: normal quantile of the confidence.
    """
    if n == 0:
        return -1.0, 1.0
    middle = (lost - won) / n
    ends = []
    for sign in (-1, 1):
        inside, outside = middle, float(sign)
        for _ in range(60):
            half = (inside + outside) / 2
            if abs(_score(lost, won, n, half)) <= z:
                inside = half
            else:
                outside = half
        ends.append(inside)
    return ends[0], ends[1]


def _score(lost: float, won: float, n: float, loss: float) -> float:
    """How many standard errors the counts lie above a loss, in the likeliest case of that loss."""
    b = (2 * n - lost + won) * loss - lost - won
    q = (math.sqrt(max(0.0, b * b + 8 * n * won * loss * (1 - loss))) - b) / (4 * n)
    variance = n * (2 * q + loss * (1 - loss))
    beyond = lost - won - n * loss
    if variance <= 0:
        return 0.0 if beyond == 0 else math.copysign(math.inf, beyond)
    return beyond / math.sqrt(variance)


@lru_cache(maxsize=REMEMBERED)
def exact_interval(n_found: int, n: int) -> tuple[float, float]:
    """95 % interval of a rate that is wrong at either end in no more than 2.5 %, however rare.

    Clopper and Pearson 1934.

    Args:
        n_found: samples that count.
        n: samples in all; without any nothing is known, and the interval is (0, 1).
    """
    if n == 0:
        return 0.0, 1.0
    from scipy.special import betaincinv  # slow to import

    low = 0.0 if n_found == 0 else float(betaincinv(n_found, n - n_found + 1, 0.025))
    return low, 1.0 if n_found == n else float(betaincinv(n_found + 1, n - n_found, 0.975))


def paired_bound(lost: float, won: float, n: float) -> float:
    """What the accuracy lost stays below with 95 % confidence: the one-sided `paired_interval`."""
    return paired_interval(lost, won, n, Z95_ONE_SIDED)[1]


def paired_tail(lost: float, won: float, n: float, loss: float) -> float:
    """One-sided p value of losing more than `loss` of accuracy: that of `paired_interval`."""
    b, c, m = lost + 0.5, won + 0.5, n + 2
    error = math.sqrt(b + c - (b - c) ** 2 / m) / m
    return math.erfc(((b - c) / m - loss) / error / math.sqrt(2)) / 2


def upper_tail(z: Tensor) -> Tensor:
    """The chance that a standard normal value exceeds each z: the p value of a one-sided test."""
    from scipy.special import ndtr  # slow to import

    return torch.as_tensor(ndtr(-z.numpy()))


def samples_needed(tolerance: float, differing: float = 0.0) -> int:
    """How many samples can show that no more than a tolerance is lost.

    Args:
        tolerance: fraction of accuracy, above 0.
        differing: fraction of the samples on which only one of the heads is right, as many lost
            as won; 0 gives the fewest samples with which any head can pass.
    """
    # (z / (n + 2))² · (n · differing + 1) = tolerance², solved for n + 2.
    a = (Z95_ONE_SIDED / tolerance) ** 2
    half = a * differing / 2
    return max(1, math.ceil(half + math.sqrt(half * half + a * max(0.0, 1 - 2 * differing)) - 2))


def sign_test(lost: int, won: int) -> float:
    """Two-sided p value of no change between two heads on the same samples.

    McNemar's exact test: of the samples that only one head has right, each is lost or won by the
    toss of a coin.
    """
    from scipy.special import bdtr  # slow to import

    return min(1.0, 2 * float(bdtr(min(lost, won), lost + won, 0.5))) if lost + won else 1.0


def benjamini_hochberg(p_values: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """p values adjusted for having been looked at together.

    Those of at most 0.05 hold with a false discovery rate of 5 %: Benjamini and Hochberg 1995.
    """
    if not len(p_values):
        return np.zeros(0)
    from scipy.stats import false_discovery_control  # slow to import

    adjusted: NDArray[np.float64] = false_discovery_control(p_values)
    return adjusted


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted so that all of at most 0.05 together are wrong in one of 20 cases.

    Holm 1979: from the smallest up, each is multiplied by how many are left.
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, worst = [1.0] * len(p_values), 0.0
    for place, i in enumerate(order):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[i]))
        adjusted[i] = worst
    return adjusted
