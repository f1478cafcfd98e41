"""Rules of operations that take out, join or write over some positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penult.export.narrowing import (
    Keep,
    Narrowing,
    Need,
    NewCall,
    Rule,
    Slot,
    axis_told,
    operation_of,
    passed_on,
    places_of,
    shape_of,
    size_at,
)


def _select(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    gone = axis_told(node, 1, len(shape_of(node.args[0])))
    return passed_on(node, axis + (axis >= gone), keep)


def _selected(node: fx.Node) -> Narrowing | None:
    before = shape_of(node.args[0])
    axis, index = axis_told(node, 1, len(before)), node.args[2]
    if not isinstance(index, int) or (index < 0 and isinstance(before[axis], torch.SymInt)):
        return None

    def change(call: NewCall) -> None:
        call.args[2] = 0

    return Narrowing((), [((0,), axis, (index % before[axis] if index < 0 else index,))], change)


def _slice(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    cut = axis_told(node, 1, len(shape_of(node)))
    if axis != cut:
        return passed_on(node, axis, keep)
    positions = _sliced(node, 2, cut)
    if positions is None:
        return "where it is cut is not known"
    return Narrowing(keep, [((0,), axis, tuple(positions[j] for j in keep))], _pass)


def _pass(call: NewCall) -> None:
    call.passes = True


def _sliced(node: fx.Node, at: int, axis: int) -> range | None:
    """The positions that three arguments tell; None where they are not known."""
    size = size_at(node.args[0], axis)
    told: list[Any] = [node.args[i] if len(node.args) > i else None for i in range(at, at + 3)]
    if isinstance(size, torch.SymInt) or any(isinstance(one, fx.Node) for one in told):
        return None
    return range(size)[slice(*told)]


def _cut(node: fx.Node) -> Narrowing | None:
    axis = axis_told(node, 1, len(shape_of(node)))
    positions = _sliced(node, 2, axis)
    return None if positions is None else Narrowing((), [((0,), axis, tuple(positions))], _pass)


def constant_of(node: Any) -> torch.Tensor | None:
    """The tensor that a node names, or a copy of one."""
    while isinstance(node, fx.Node) and operation_of(node) in ("clone", "lift_fresh_copy", "alias"):
        node = node.args[0]
    return node.meta.get("held") if isinstance(node, fx.Node) else None


def _gathered(node: fx.Node) -> tuple[int, Any, Slot] | None:
    """Axis, index and the index's place of what takes some positions along one axis."""
    n_axes = len(shape_of(node.args[0]))
    if operation_of(node) == "index_select":
        return axis_told(node, 1, n_axes), node.args[2], (2,)
    indices: Any = node.args[1]
    told = [i for i, one in enumerate(indices) if one is not None]
    if len(told) != 1 or len(shape_of(indices[told[0]])) != 1:
        return None
    return told[0], indices[told[0]], (1, told[0])


def _index(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    found = _gathered(node)
    if found is None:
        return "several axes are indexed together"
    if axis != found[0]:
        return passed_on(node, axis, keep)
    index = constant_of(found[1])
    if index is None or index.dtype == torch.bool:
        return "which positions are taken is not known"
    return _indexed(axis, index, keep, found[2], size_at(node.args[0], axis))


def _indexed(axis: int, index: torch.Tensor, keep: Keep, place: Slot, size: Any) -> Narrowing | str:
    taken = [int(j) for j in index.tolist()]
    if isinstance(size, torch.SymInt):
        return "its length is not known"
    asked = tuple(taken[j] % size for j in keep)
    needed = tuple(sorted(set(asked)))
    order = places_of(asked, needed)

    def change(call: NewCall) -> None:
        call.passes = order == tuple(range(len(needed)))
        if call.passes:
            return
        if len(place) == 1:
            call.args[2] = call.constant(order)
        else:
            one = call.constant(order)
            call.args[1] = [one if i == place[1] else None for i in range(len(call.args[1]))]

    return Narrowing(keep, [((0,), axis, needed)], change)


def _taken(node: fx.Node) -> Narrowing | None:
    found = _gathered(node)
    if found is None:
        return None
    size = shape_of(found[1])[0]
    if isinstance(size, torch.SymInt):
        return None
    part = _index(node, found[0], tuple(range(size)))
    return None if isinstance(part, str) else part


def _cat(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    parts: Any = node.args[0]
    n_axes = len(shape_of(node))
    if any(len(shape_of(x)) != n_axes for x in parts):
        return "an empty part is joined"
    if axis != axis_told(node, 1, n_axes):
        return Narrowing(keep, [((0, i), axis, keep) for i in range(len(parts))])
    needs: list[Need] = []
    begin = 0
    for i, x in enumerate(parts):
        end = begin + int(size_at(x, axis))
        needs.append(((0, i), axis, tuple(j - begin for j in keep if begin <= j < end)))
        begin = end
    return Narrowing(keep, needs, _without_empty(needs))


def _without_empty(needs: list[Need]) -> Callable[[NewCall], None]:
    def change(call: NewCall) -> None:
        call.args[0] = [call.args[0][slot[1]] for slot, _, keep in needs if keep]

    return change


def _stack(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    parts: Any = node.args[0]
    new = axis_told(node, 1, len(shape_of(node)))
    if axis != new:
        place = axis - (axis > new)
        return Narrowing(keep, [((0, i), place, keep) for i in range(len(parts))])
    unread: list[Need] = [((0, i), 0, ()) for i in range(len(parts)) if i not in keep]

    def change(call: NewCall) -> None:
        call.args[0] = [call.args[0][i] for i in keep]

    return Narrowing(keep, unread, change)


def _channel_shuffle(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    if axis != 1:
        return passed_on(node, axis, keep)
    n_groups: Any = node.args[1]
    length = size_at(node, 1) // n_groups
    source = torch.arange(n_groups * length).view(n_groups, length).t().reshape(-1)
    part = _indexed(1, source, keep, (2,), size_at(node, 1))
    assert isinstance(part, Narrowing)
    ordered = part.change

    def change(call: NewCall) -> None:
        call.target = torch.ops.aten.index_select.default
        call.args = [call.args[0], 1, None]
        assert ordered is not None
        ordered(call)

    return Narrowing(keep, part.needs, change)


def _slice_scatter(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Some positions written over by the second input."""
    cut = axis_told(node, 2, len(shape_of(node)))
    if axis != cut:
        return Narrowing(keep, [((0,), axis, keep), ((1,), axis, keep)])
    written = _sliced(node, 3, cut)
    if written is None or written.step != 1:
        return "where it is written over is not known"
    found = [j for j in keep if j in written]
    begin = sum(j < written.start for j in keep)

    def change(call: NewCall) -> None:
        call.args[2:] = [axis, begin, begin + len(found)]
        call.passes = not found

    source = tuple(j - written.start for j in found)
    return Narrowing(keep, [((0,), axis, keep), ((1,), axis, source)], change)


def _select_scatter(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """One position written over by the second input."""
    gone, index = axis_told(node, 2, len(shape_of(node))), node.args[3]
    if axis != gone:
        return Narrowing(keep, [((0,), axis, keep), ((1,), axis - (axis > gone), keep)])
    if not isinstance(index, int) or isinstance(size_at(node, axis), torch.SymInt):
        return "where it is written over is not known"
    index %= size_at(node, axis)

    def change(call: NewCall) -> None:
        call.passes = index not in keep
        if not call.passes:
            call.args[3] = keep.index(index)

    unread: list[Need] = [] if index in keep else [((1,), 0, ())]
    return Narrowing(keep, [((0,), axis, keep), *unread], change)


TAKES: dict[str, Rule] = {
    "select": _select,
    "slice": _slice,
    "index_select": _index,
    "index": _index,
    "cat": _cat,
    "stack": _stack,
    "channel_shuffle": _channel_shuffle,
    "slice_scatter": _slice_scatter,
    "select_scatter": _select_scatter,
}
# What is left unread of the input whatever is read of the output.
CUTS: dict[str, Callable[[fx.Node], Narrowing | None]] = {
    "select": _selected,
    "slice": _cut,
    "index_select": _taken,
    "index": _taken,
}
