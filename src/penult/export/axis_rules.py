"""Rules of operations that move, reshape or repeat positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sympy
import torch
from torch import fx

from penult.export.cut_rules import TAKES
from penult.export.narrowing import (
    Keep,
    Narrowing,
    NewCall,
    Rule,
    axis_told,
    operation_of,
    passed_on,
    shape_of,
    size_at,
    whole_groups,
)


def _permute(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    order: Any = node.args[1]
    return passed_on(node, int(order[axis]) % len(order), keep)


def _transpose(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    n = len(shape_of(node))
    first, second = (
        (0, n - 1) if len(node.args) < 3 else (axis_told(node, 1, n), axis_told(node, 2, n))
    )
    return passed_on(node, {first: second, second: first}.get(axis, axis), keep)


def _reshape(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Axes that become one are narrowed along the one of them that leaves the least."""
    if isinstance(node.args[1] if len(node.args) > 1 else None, torch.dtype):
        return "numbers are read as others"
    before, after = shape_of(node.args[0]), shape_of(node)
    sources, targets = _group(before, after, axis)
    if not sources or (len(targets) > 1 and len(sources) > 1):
        return f"{operation_of(node)} may mix the channels"
    if any(isinstance(before[a], torch.SymInt) for a in sources):
        return "its length is not known"

    def change(call: NewCall) -> None:
        if len(call.args) > 1 and isinstance(call.args[1], list | tuple):
            call.args[1] = [len(kept) if a == axis else n for a, n in enumerate(call.args[1])]

    kept = keep
    if len(sources) == 1:
        block = _product(after[a] for a in targets[targets.index(axis) + 1 :])
        asked, size = set(keep), after[axis]
        needed = tuple(j for j in range(before[sources[0]]) if j // block % size in asked)
        return Narrowing(kept, [((0,), sources[0], needed)], change)
    place, needed, kept = min(
        (_along(before, sources, a, keep) for a in sources), key=lambda found: len(found[2])
    )
    names = " × ".join(str(before[a]) for a in sources)
    return Narrowing(kept, [((0,), place, needed)], change, f"{names} positions become one axis")


def _along(
    before: tuple[Any, ...], sources: list[int], axis: int, keep: Keep
) -> tuple[int, Keep, Keep]:
    """An axis of several that become one, its positions that are needed, and all made of these."""
    block = _product(before[a] for a in sources if a > axis)
    needed = {j // block % before[axis] for j in keep}
    whole = _product(before[a] for a in sources)
    kept = tuple(j for j in range(whole) if j // block % before[axis] in needed)
    return axis, tuple(sorted(needed)), kept


def _product(sizes: Any) -> Any:
    product = 1
    for size in sizes:
        product = product * size
    return product


def _group(
    before: tuple[Any, ...], after: tuple[Any, ...], axis: int
) -> tuple[list[int], list[int]]:
    """The axes of which one is made and those that are made with it, without axes of length one."""
    old, new = _running(before), _running(after)
    i0 = j0 = 0
    for i in range(1, len(old)):
        j = next((j for j in range(j0 + 1, len(new)) if new[j] == old[i]), None)
        if j is None:
            continue
        if j0 <= axis < j:
            sources = [a for a in range(i0, i) if before[a] != 1]
            return sources, [a for a in range(j0, j) if after[a] != 1]
        i0, j0 = i, j
    return [], []


def _running(shape: tuple[Any, ...]) -> list[Any]:
    """The products of the first sizes, as expressions of the free ones."""
    found = [sympy.Integer(1)]
    for size in shape:
        expression = size.node.expr if isinstance(size, torch.SymInt) else sympy.Integer(size)
        found.append(sympy.expand(found[-1] * expression))
    return found


def _expand(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    return _repeated(node, axis, keep, lambda told: len(keep) if told != -1 else -1)


def _repeat(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    times: Any = node.args[1]
    place = axis - (len(shape_of(node)) - len(shape_of(node.args[0])))
    if times[axis] != 1 and place >= 0 and size_at(node.args[0], place) != 1:
        size = size_at(node.args[0], place)
        if isinstance(size, torch.SymInt):
            return "positions are repeated"
        needed = tuple(sorted({j % size for j in keep}))
        kept = tuple(j for j in range(size_at(node, axis)) if j % size in set(needed))
        return Narrowing(kept, [((0,), place, needed)], None, "positions are repeated")
    return _repeated(node, axis, keep, lambda told: told if told == 1 else len(keep))


def _repeated(
    node: fx.Node, axis: int, keep: Keep, told_anew: Callable[[Any], Any]
) -> Narrowing | str:
    """Positions that are the same as one, or those of the input."""
    x = node.args[0]
    place = axis - (len(shape_of(node)) - len(shape_of(x)))
    same = place >= 0 and size_at(x, place) == size_at(node, axis)

    def change(call: NewCall) -> None:
        call.args[1] = [told_anew(n) if a == axis else n for a, n in enumerate(call.args[1])]

    return Narrowing(keep, [((0,), place, keep)] if same else [], change)


def _flip(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    dims: Any = node.args[1]
    n_axes, size = len(shape_of(node)), size_at(node, axis)
    if axis not in {a % n_axes for a in dims}:
        return passed_on(node, axis, keep)
    return Narrowing(keep, [((0,), axis, tuple(size - 1 - j for j in reversed(keep)))])


def _roll(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    dims: Any = node.args[2] if len(node.args) > 2 else []
    if not dims or axis in {a % len(shape_of(node)) for a in dims}:
        return "positions are rolled"
    return passed_on(node, axis, keep)


def _interleaved(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Each position several times, one after the other."""
    told, times = node.args[2] if len(node.args) > 2 else None, node.args[1]
    if not isinstance(times, int) or told is None:
        return "positions are repeated"
    if axis != axis_told(node, 2, len(shape_of(node))):
        return passed_on(node, axis, keep)
    needed, kept = whole_groups(keep, times)
    return Narrowing(kept, [((0,), axis, needed)], None, "positions are repeated")


def _pad(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    widths: Any = node.args[1]
    from_end = len(shape_of(node)) - 1 - axis
    if any(width != 0 for width in widths[2 * from_end : 2 * from_end + 2]):
        return "positions are added around it"
    return passed_on(node, axis, keep)


def _glu(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    size, n_axes = size_at(node, axis), len(shape_of(node))
    if axis != axis_told(node, 1, n_axes, -1):
        return passed_on(node, axis, keep)
    return Narrowing(keep, [((0,), axis, (*keep, *(j + size for j in keep)))])


def _pixel_shuffle(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    factor: Any = node.args[1]
    channels = len(shape_of(node)) - 3
    if axis > channels:
        return "pixel shuffle mixes positions"
    if axis < channels:
        return passed_on(node, axis, keep)
    square = factor * factor
    return _needing(keep, axis, tuple(j * square + i for j in keep for i in range(square)))


def _needing(keep: Keep, axis: int, needed: Keep) -> Narrowing:
    return Narrowing(keep, [((0,), axis, needed)])


def _pixel_unshuffle(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    factor: Any = node.args[1]
    channels = len(shape_of(node)) - 3
    if axis > channels:
        return "pixel unshuffle mixes positions"
    if axis < channels:
        return passed_on(node, axis, keep)
    needed, kept = whole_groups(keep, factor * factor)
    return Narrowing(kept, [((0,), axis, needed)], None, "each channel becomes several")


MOVES: dict[str, Rule] = {
    **TAKES,
    "permute": _permute,
    "transpose": _transpose,
    "t": _transpose,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "squeeze", "unsqueeze"), _reshape),
    "expand": _expand,
    "repeat": _repeat,
    "repeat_interleave": _interleaved,
    "flip": _flip,
    "roll": _roll,
    **dict.fromkeys(("pad", "constant_pad_nd"), _pad),
    "glu": _glu,
    "pixel_shuffle": _pixel_shuffle,
    "pixel_unshuffle": _pixel_unshuffle,
}
