"""Timings: seconds of things that take turns, so that other work on the machine meets all alike."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

ROUNDS = 9
LONGEST = 1.0  # seconds for one comparison, once each thing has had its rounds


def take_turns(
    things: Mapping[str, Callable[[], object]], rounds: int = ROUNDS, longest: float = LONGEST
) -> dict[str, list[float]]:
    """Seconds of each thing, in rounds in which each comes once.

    Args:
        things: by name; each is called twice before.
        rounds: at least so many, unless they take four times as long as they may.
        longest: seconds after which no further round begins.
    """
    for thing in things.values():
        thing()
        thing()
    seconds: dict[str, list[float]] = {name: [] for name in things}
    began = time.perf_counter()
    while True:
        for name, thing in things.items():
            start = time.perf_counter()
            thing()
            seconds[name].append(time.perf_counter() - start)
        taken, done = time.perf_counter() - began, len(next(iter(seconds.values())))
        if (done >= rounds and taken > longest) or (done >= 3 and taken > 4 * longest):
            return seconds


def summary(seconds: Sequence[float]) -> dict[str, Any]:
    """Median with its 95 % interval, by order statistics: no shape of the times is assumed."""
    ordered, n = sorted(seconds), len(seconds)
    half = 0.98 * math.sqrt(n)  # 1.96 standard deviations of a binomial count with p = 1/2
    low, high = max(0, math.floor(n / 2 - half)), min(n - 1, math.ceil(n / 2 + half))
    return {
        "median": statistics.median(ordered),
        "interval": [ordered[low], ordered[high]],
        "n": n,
    }
