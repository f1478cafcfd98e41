"""Further sizes: how a path of sparse heads goes on until one of them is good enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penult.heads.comparison import USUAL, PairedCounts
from penult.heads.judge import FITTED, Judge, size_within
from penult.heads.samples import n_few
from penult.heads.select.models import Limits
from penult.intervals import samples_needed
from penult.text import duration

# Fraction of accuracy that a head may lose and still be good enough, where nobody says another.
TOLERANCE = 0.005
# Seconds, as `Shape.seconds` reckons them, that all further sizes together may take where nobody
# sets a limit: by reckoning and not by the clock, so that every machine fits the same heads.
MOST_SECONDS = 300.0
# Multiplications in a second, where classes choose and where weights are fitted, and passes over
# the samples that a refit takes, about.
CHOOSING, FITTING, PASSES = 4e10, 4e9, 40
READING = 1e8  # numbers in a second


@dataclass(frozen=True)
class Shape:
    """What the time of a fit depends on.

    Attributes:
        n_samples: that the heads are fitted to.
        n_features, n_classes: of the dense head.
        n_folds: of a cross-fit, which fits as many times more; else 0.
    """

    n_samples: int
    n_features: int
    n_classes: int
    n_folds: int = 0

    def seconds(self, k: int) -> float:
        """About how long the head of one size takes to fit and to judge, on one core."""
        few, limits = min(self.n_samples, n_few(self.n_classes)), Limits()
        sizes = few, self.n_features, self.n_classes
        passed = 2.0 * PASSES * self.n_classes
        if k <= limits.most_walked(*sizes):
            m = limits.n_candidates(*sizes, k)
            chosen = 2.0 * self.n_classes * few * m**2 / CHOOSING
        else:
            chosen = passed * few * self.n_features / FITTING
        fitted = passed * self.n_samples * min(6 * k, self.n_features) / FITTING
        once = chosen + fitted + self.n_samples * self.n_features / READING
        return once * (1 + self.n_folds)


def further_sizes(largest: int, n_features: int) -> list[int]:
    """Sizes at which a path goes on: powers of two above its largest, then all features."""
    sizes = [2**i for i in range(5, 64) if largest < 2**i < n_features]
    return sizes + [n_features] * (largest < n_features)


def good_enough(
    sizes: Sequence[int],
    counts: Sequence[PairedCounts],
    judge: Judge,
    tolerance: float = TOLERANCE,
) -> bool:
    """Whether a path has a head that loses no more than a tolerance, so that it need not go on.

    That is one of which it can be shown, see `size_within`; where the samples are too few to show
    it of any head, one that loses no more on these samples. Without samples that can judge it is
    always so: no size would be better than another.

    Args:
        sizes: k of each head, ascending.
        counts: of each head against the dense one.
        judge: the samples of the counts.
        tolerance: fraction of accuracy, above 0.
    """
    if judge.kind == FITTED or not sizes:
        return True
    if judge.n_samples < samples_needed(tolerance):
        return min(one.loss or 0.0 for one in counts) <= tolerance
    return size_within(sizes, counts, judge, tolerance).index is not None


def go_on(
    shape: Shape,
    sizes: Sequence[int],
    good: Callable[[], bool],
    add: Callable[[int, float | None], bool],
    *,
    remedy: Callable[[int], str],
    time_left: float | None = None,
    say: Callable[[str], None] | None = None,
) -> None:
    """Add 32, 64, 128, … features per class, up to all, until the path has a good head.

    Before each size it is said what it will take. The path ends where the time does not allow the
    next one, and it is said how to go on.

    Args:
        shape: of the fit.
        sizes: of the path so far.
        good: whether it has a head that is good enough.
        add: fits the head of a size within so many seconds (None for any time); False where they
            were not enough.
        remedy: the command that goes on with a size.
        time_left: seconds; None for what `MOST_SECONDS` allows.
        say: hears one line before each size, and one where the path ends early.
    """
    began, slowness = time.monotonic(), 1.0
    # Of what was added before, too: repeated, the same command adds nothing more.
    reckoned = sum(shape.seconds(k) for k in sizes if k > USUAL)
    heard = say or (lambda text: None)
    for k in further_sizes(max(sizes), shape.n_features):
        if good():
            return
        cost, left = shape.seconds(k), None
        expected = cost * slowness
        if time_left is not None:
            left = time_left - (time.monotonic() - began)
            if expected > left:
                heard(
                    f"no head is good enough, and k = {k} would take about {duration(expected)}, "
                    f"of which {duration(max(left, 0))} are left of the time limit: {remedy(k)}"
                )
                return
        elif reckoned + cost > MOST_SECONDS:
            heard(
                f"no head is good enough, and k = {k} would take about {duration(expected)}, "
                f"which is done only if it is asked for: {remedy(k)}"
            )
            return
        whole = ", all features" if k == shape.n_features else ""
        heard(
            f"no head is good enough yet: going on with k = {k}{whole}, about {duration(expected)}"
        )
        start = time.monotonic()
        if not add(k, left):
            heard(f"the time limit passed before k = {k} was done: {remedy(k)}")
            return
        slowness = (time.monotonic() - start) / cost
        reckoned += cost
