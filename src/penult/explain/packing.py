"""Packing: leave as many features free as the rivals allow, with a bound on how many can be.

The integer programme behind sufficient reasons: maximise `Σ_j x_j` over x in {0, 1} subject to
`Σ_j load_jc x_j ≤ 1` for every rival c, where `load_jc ≥ 0` is the fraction of the lead over rival
c that is lost when feature j is left free. Two things make it fast. Any weights λ ≥ 0 with
`Σ_c λ_c = 1` merge the constraints into one, whose best choice is the lightest features: a bound
for every λ, and an order in which to fill. And counts are whole numbers: a bound that is a little
above the best count proves it, and the rest is a search through few choices.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

BARRED = 2.0  # the load of a feature that can never be free: two rivals' worth
_SLACK = 1e-9  # bounds are rounded upwards by this much, so that rounding never makes them wrong
_FILLS: tuple[int, ...] = (
    5,
    10,
    20,
    40,
    80,
    160,
)  # rounds of weighing after which an order is tried
_FILLS_LARGE: tuple[int, ...] = (10, 40)
_LARGE = 1 << 17  # n_features · n_rivals from which on rounds are dear
_FEW = 4  # problems that are filled one by one
_ROWS = 16  # rivals whose own constraint bounds the search
_WIDEST = 1 << 22  # values of the search's frontier: 32 MiB
_WORK = 1 << 26  # values that a search may write before it gives up


class Unfinished(Exception):  # noqa: N818
    """A search was given up: neither a choice nor a proof that there is none."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Choices for a batch of problems.

    Attributes:
        free: (n, n_features) bool, admissible, and no feature can be added.
        most: (n,) no admissible choice frees more features.
        weights: (n, n_rivals) the λ of that bound.
    """

    free: Bools
    most: Ints
    weights: Floats


def normal(gains: Floats, caps: Floats) -> Floats:
    """Loads of a batch of problems from what each feature can lose and what may be lost.

    Args:
        gains: (n, n_features, n_rivals), ≥ 0; overwritten by the result.
        caps: (n, n_rivals); where one is not positive, no feature of that problem can be free.

    Returns:
        (n, n_features, n_rivals) in [0, 1]; `BARRED` for all rivals of a feature that alone loses
        more than some rival allows.
    """
    hopeless = ~(caps > 0).all(1, keepdims=True)
    with np.errstate(over="ignore"):
        np.divide(gains, np.where(caps > 0, caps, 1.0)[:, None], out=gains)
    barred = (gains > 1).any(2) | hopeless
    gains[barred] = BARRED
    return gains


def pack(loads: Floats) -> Packed:
    """Large admissible choices with bounds, for a batch of problems, in milliseconds.

    The weights λ follow the subgradient of the merged bound by multiplicative steps: a rival that
    the lightest features overload weighs more in the next round. On the way the features are
    taken from light to heavy wherever they fit, and the largest choice is kept.

    Args:
        loads: (n, n_features, n_rivals) as from `normal`.
    """
    n, n_features, n_rivals = loads.shape
    weights = np.full((n, n_rivals), 1 / max(n_rivals, 1))
    best, best_weights = np.full(n, np.inf), weights
    free, fills = np.zeros((n, n_features), bool), _FILLS_LARGE
    if n_features * n_rivals <= _LARGE:
        fills = _FILLS
    for step in range(1, fills[-1] + 1):
        heaviness = (loads @ weights[:, :, None])[:, :, 0]
        count, taken = _lightest(heaviness)
        better = count < best
        best = np.where(better, count, best)
        best_weights = np.where(better[:, None], weights, best_weights)
        if step in fills:
            order = (loads @ best_weights[:, :, None])[:, :, 0].argsort(1, kind="stable")
            found = fill(loads, order)
            more = found.sum(1) > free.sum(1)
            free[more] = found[more]
            if (free.sum(1) >= _whole(best)).all():
                break
        excess = (taken[:, None] @ loads)[:, 0] - 1
        excess /= np.abs(excess).max(1, keepdims=True, initial=1e-12)
        weights = weights * np.exp(excess / np.sqrt(step))
        weights /= weights.sum(1, keepdims=True)
    return Packed(free, np.minimum(_whole(best), n_features), best_weights)


def _whole(bound: Floats) -> Ints:
    return np.floor(bound + _SLACK).astype(np.int64)


def _lightest(heaviness: Floats) -> tuple[Floats, Floats]:
    """How many of the lightest features weigh 1 together, (n,), and which, (n, n_features).

    The last one counts, and is taken, by the fraction that fits.
    """
    n_features = heaviness.shape[1]
    ranked = np.sort(heaviness, 1)
    total = ranked.cumsum(1)
    whole = (total <= 1 + _SLACK).sum(1)
    rows, last = np.arange(len(whole)), np.minimum(whole, n_features - 1)
    before = np.where(whole > 0, total[rows, np.maximum(whole - 1, 0)], 0.0)
    edge = np.where(whole < n_features, ranked[rows, last], np.inf)
    fraction = np.maximum(1 - before, 0.0) / edge
    taken = (heaviness < edge[:, None]) + (heaviness == edge[:, None]) * fraction[:, None]
    return whole + fraction, taken


def fill(loads: Floats, order: Ints, free: Bools | None = None) -> Bools:
    """Free features in order wherever they fit: (n, n_features), to which none can be added.

    Args:
        loads: (n, n_features, n_rivals) as from `normal`.
        order: (n, n_features) features, the first to be freed first.
        free: (n, n_features) bool, those that are free already; they must be admissible.
    """
    n, n_features, _ = loads.shape
    free = np.zeros((n, n_features), bool) if free is None else free.copy()
    used = (free[:, None].astype(np.float64) @ loads)[:, 0]
    if n <= _FEW:
        for i in range(n):
            _fill_one(loads[i], order[i], free[i], used[i])
        return free
    rows = np.arange(n)
    for features in order.T:
        after = used + loads[rows, features]
        fits = (after <= 1).all(1) & ~free[rows, features]
        used[fits] = after[fits]
        free[rows[fits], features[fits]] = True
    return free


def _fill_one(loads: Floats, order: Ints, free: Bools, used: Floats) -> None:
    """The same for one problem, in place: several times as fast as a batch of one."""
    after = np.empty_like(used)
    for j in order.tolist():
        np.add(used, loads[j], out=after)
        if not free[j] and after.max(initial=0) <= 1:
            used, after = after, used
            free[j] = True


def prove(
    loads: Floats, free: Bools, most: int, weights: Floats, seconds: float
) -> tuple[Bools, int]:
    """The largest admissible choice of one problem: search first, then an integer programme.

    Args:
        loads: (n_features, n_rivals) as from `normal`.
        free: (n_features,) bool, the choice to start from.
        most: bound to start from.
        weights: (n_rivals,) λ that gave the bound.
        seconds: limit; what was found by then is returned.

    Returns:
        Choice (n_features,) and bound; they meet where the choice is proven to be largest.
    """
    deadline = time.monotonic() + seconds
    open_features = np.flatnonzero(loads[:, 0] < BARRED)
    # Rivals that all features together cannot help to win ask nothing.
    rivals = np.flatnonzero(loads[open_features].sum(0) > 1)
    small = np.ascontiguousarray(loads[np.ix_(open_features, rivals)])
    chosen = free[open_features]
    try:
        while (n_free := int(chosen.sum())) < most:
            found = _search(small, weights[rivals], n_free + 1, deadline)
            if found is None:
                most = n_free
            else:
                chosen = found
    except Unfinished:
        chosen, most = _programme(small, chosen, most, deadline)
    best = np.zeros(len(free), bool)
    best[open_features] = chosen
    return best, most


def _search(loads: Floats, weights: Floats, target: int, deadline: float) -> Bools | None:
    """An admissible choice of `target` features, or None if there is none.

    Features are decided one after the other, the heaviest first, for all partial choices at once;
    one is dropped when, merged by λ or for one of the tightest rivals alone, the lightest features
    still to come cannot bring it to the target.

    Raises:
        Unfinished: too many partial choices, or too late.
    """
    n_features, n_rivals = loads.shape
    if target > n_features:
        return None
    tightest = np.argsort(-weights, kind="stable")[:_ROWS]
    merge = np.vstack([weights / max(weights.sum(), 1e-12), np.eye(n_rivals)[tightest]]).T
    heaviness = loads @ merge
    order = np.argsort(-heaviness[:, 0], kind="stable")
    loads, heaviness = loads[order], heaviness[order]
    left, count = np.ones((1, n_rivals)), np.zeros(1, np.int64)
    taken, work = np.zeros((1, (n_features + 7) // 8), np.uint8), 0
    for level in range(n_features):
        after = left - loads[level]
        fits = np.flatnonzero((after >= 0).all(1))
        marked = taken[fits]
        marked[:, level >> 3] |= np.uint8(1 << (level & 7))
        left = np.concatenate([left, after[fits]])
        count = np.concatenate([count, count[fits] + 1])
        taken = np.concatenate([taken, marked])
        rest = n_features - level - 1
        least = np.full((rest + 2, merge.shape[1]), np.inf)
        least[0] = 0
        np.cumsum(np.sort(heaviness[level + 1 :], 0), 0, out=least[1:-1])
        lacking = np.minimum(np.maximum(target - count, 0), rest + 1)
        able = (left @ merge + _SLACK >= least[lacking]).all(1)
        left, count, taken = left[able], count[able], taken[able]
        if not len(left):
            return None
        work += left.size
        if left.size > _WIDEST or work > _WORK or time.monotonic() > deadline:
            raise Unfinished
    found = np.zeros(n_features, bool)
    found[order] = np.unpackbits(taken[0], count=n_features, bitorder="little") == 1
    return found


def _programme(loads: Floats, free: Bools, most: int, deadline: float) -> tuple[Bools, int]:
    """The same by branch and cut, until the deadline: choice (n_features,) and bound."""
    from scipy.optimize import Bounds, LinearConstraint, milp  # slow to import, and seldom needed

    n_features = len(loads)
    seconds = deadline - time.monotonic()
    if seconds <= 0:
        return free, most
    with _standard_output_kept():
        result = milp(
            -np.ones(n_features),
            constraints=LinearConstraint(loads.T, -np.inf, 1),
            integrality=np.ones(n_features),
            bounds=Bounds(0, 1),
            # Without presolve: it gains nothing here.
            options={"time_limit": seconds, "presolve": False, "mip_rel_gap": 0},
        )
    if result.mip_dual_bound is not None and np.isfinite(result.mip_dual_bound):
        most = min(most, int(np.floor(-result.mip_dual_bound + 1e-5)))
    if result.x is not None:
        found = _repaired(loads, result.x > 0.5)
        if found.sum() > free.sum():
            free = found
    return free, max(most, int(free.sum()))


def _repaired(loads: Floats, free: Bools) -> Bools:
    """Admissible in float64: the solver's own tolerance lets a rival's constraint slip by 1e-6."""
    free = free.copy()
    while (used := loads[free].sum(0)).max(initial=0) > 1:
        free[np.where(free, loads[:, used.argmax()], -1).argmax()] = False
    order = loads.sum(1).argsort(kind="stable")
    filled: Bools = fill(loads[None], order[None], free[None])[0]
    return filled


@contextmanager
def _standard_output_kept() -> Iterator[None]:
    """HiGHS at times writes a line to standard output past its own switch, where JSON may go."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    sys.stdout.flush()
    with Path(os.devnull).open("w") as nothing:
        os.dup2(nothing.fileno(), 1)
    try:
        yield
    finally:
        # What the library has written may still lie in C's own buffer.
        with suppress(OSError, TypeError, AttributeError):
            ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
