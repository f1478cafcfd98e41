"""Intervals: bootstrap, jackknife and the two-way interval over samples and seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from penult.intervals import Z95


def percentiles(values: Tensor) -> list[float] | None:
    """95 % interval of replicates (n_replicates,); None where there are none that are numbers."""
    known = values.double()[~values.isnan()]
    if not len(known):
        return None
    return [float(q) for q in known.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64))]


def jackknife(
    whole: float, without: Sequence[float], low: float = -math.inf, high: float = math.inf
) -> list[float] | None:
    """95 % interval of a smooth statistic from its values without each of g groups of samples.

    A statistic that is never below 0 is taken as its logarithm, so that the interval stays above 0
    and is as wide, as a factor, on both sides. Source: Efron and Tibshirani 1993, chapter 11.

    Args:
        whole: its value on all samples.
        without: its g values, each with one group of samples left out.
        low, high: what the statistic can be; the interval stays within.
    """
    g, values = len(without), (whole, *without)
    if g < 2 or not all(math.isfinite(value) for value in values):
        return None
    if low >= 0 and min(values) > 0:
        logs = [math.log(value) for value in without]
        ends = [math.exp(math.log(whole) + sign * _half_width(logs)) for sign in (-1, 1)]
    else:
        ends = [whole + sign * _half_width(without) for sign in (-1, 1)]
    return [min(max(end, low), high) for end in ends]


def _half_width(without: Sequence[float]) -> float:
    g, mean = len(without), sum(without) / len(without)
    return Z95 * math.sqrt((g - 1) / g * sum((value - mean) ** 2 for value in without))


def mean_interval(values: Tensor, by_seed: Tensor | None = None) -> list[float] | None:
    """95 % interval of a mean of fractions over samples, and over seeds where there are several.

    The variances of the two means add: exactly for effects of samples and seeds that add up,
    conservatively otherwise.

    Args:
        values: (n_samples,), each a mean over the seeds, in [0, 1].
        by_seed: (n_seeds,), each a mean over the samples.
    """
    if len(values) < 2:
        return None
    variance = float(values.double().var()) / len(values)
    if by_seed is not None and len(by_seed) > 1:
        variance += float(by_seed.double().var()) / len(by_seed)
    middle, half = float(values.double().mean()), Z95 * math.sqrt(variance)
    return [max(0.0, middle - half), min(1.0, middle + half)]


def resampled(n: int, n_replicates: int, generator: torch.Generator) -> Tensor:
    """How often each of n samples is drawn in n draws, (n_replicates, n) float32: the bootstrap."""
    drawn = torch.randint(n, (n_replicates, n), generator=generator)
    ones = torch.ones(n_replicates, n, dtype=torch.float32)
    return torch.zeros_like(ones).scatter_add_(1, drawn, ones)


def plain(values: Any) -> Any:
    """As JSON takes it: tensors as lists, NaN as null."""
    if isinstance(values, Tensor):
        return plain(values.tolist())
    if isinstance(values, list | tuple):
        return [plain(value) for value in values]
    if isinstance(values, dict):
        return {key: plain(value) for key, value in values.items()}
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values
