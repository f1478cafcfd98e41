"""Minimise a smooth convex function, given an approximate Hessian."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import isfinite

from torch import Tensor

from penult.errors import InputError

Map = Callable[[Tensor], Tensor]
Function = Callable[[Tensor], tuple[float, Tensor]]
# Steps that are remembered.
HISTORY = 10
# After so many evaluations the inverse Hessian is made again; later more rarely.
FIRST = 12


def minimise(
    function: Function,
    start: Tensor,
    inverse_at: Callable[[Tensor], Map],
    done: Callable[[Tensor], bool],
    max_evaluations: int,
) -> tuple[float, Tensor, Tensor]:
    """Limited-memory BFGS on an approximate inverse Hessian; no step size to choose.

    The inverse is made where the function stands when it is first needed, and anew after more and
    more evaluations: where the start is good enough it is never made.

    A step is cut until the function falls enough. Where the fall is lost in rounding, the slope at
    its end decides (the approximate Wolfe condition of Hager and Zhang 2005, equation 4.1).

    Args:
        function: value and gradient of a convex function of x, (n,).
        start: (n,).
        inverse_at: gives an approximate inverse Hessian at a point, as a map of vectors, symmetric
            and positive.
        done: whether a gradient is small enough.
        max_evaluations: bound on calls of `function`.

    Returns:
        Value, the point and its gradient.

    Raises:
        InputError: the function is not finite at the start.
    """
    x = start
    value, g = function(x)
    if not isfinite(value):
        raise InputError("the loss overflows where the refit starts: its weights are too large")
    pairs: deque[tuple[Tensor, Tensor, Tensor]] = deque(maxlen=HISTORY)
    inverse: Map | None = None
    n_evaluations, due, more = 1, 0, FIRST
    while not done(g) and n_evaluations < max_evaluations:
        if inverse is None or n_evaluations >= due:
            pairs.clear()
            inverse = inverse_at(x)
            due, more = min(n_evaluations + more, max_evaluations), 3 * more
        direction = -_inverse_hessian(g, pairs, inverse)
        slope = float(g @ direction)
        step = 1.0
        while True:
            moved = x + step * direction
            new_value, new_g = function(moved)
            n_evaluations += 1
            if not isfinite(new_value):
                step *= 0.1
                if step < 1e-12 or n_evaluations >= max_evaluations:
                    return value, x, g
                continue
            end_slope = float(new_g @ direction)
            fell = new_value <= value + 1e-4 * step * slope
            flat = new_value <= value + 1e-7 * abs(value) + 1e-9 and end_slope <= -0.8 * slope
            if fell or flat or n_evaluations >= due:
                break
            step *= min(max(slope / (slope - end_slope), 0.1), 0.6)
        if new_value > value + 1e-7 * abs(value) + 1e-9:
            inverse = None
            continue
        s, y = moved - x, new_g - g
        curvature = s @ y
        if float(curvature) > 0:
            pairs.append((s, y, curvature))
        x, g, value = moved, new_g, new_value
    return value, x, g


def _inverse_hessian(
    g: Tensor, pairs: deque[tuple[Tensor, Tensor, Tensor]], precondition: Map
) -> Tensor:
    """The two-loop recursion (Nocedal and Wright, Numerical Optimization, algorithm 7.4)."""
    q = g.clone()
    shares = []
    for s, y, curvature in reversed(pairs):
        share = (s @ q) / curvature
        q -= share * y
        shares.append(share)
    q = precondition(q)
    for (s, y, curvature), share in zip(pairs, reversed(shares), strict=True):
        q += s * (share - (y @ q) / curvature)
    return q
