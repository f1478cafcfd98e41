"""Narrowing: the words in which rules say how an operation gives only some positions of an axis."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

Keep = tuple[int, ...]  # positions along an axis, rising
Slot = tuple[int, ...]  # place of an input: its argument, and its place in it if that is a list
Need = tuple[Slot, int, Keep]  # of an input: its place, an axis, and what is needed along it
Wanted = dict[int, Keep]  # by axis; all positions of an axis that is not named


@dataclass
class NewCall:
    """An operation about to be made anew.

    Attributes:
        target: the operation.
        args: its arguments.
        kwargs: likewise by name.
        constant: makes a node of some positions.
        passes: whether its first input is already what it gives.
    """

    target: Any
    args: list[Any]
    kwargs: dict[str, Any]
    constant: Callable[[Keep], fx.Node]
    passes: bool = False


@dataclass(frozen=True)
class Narrowing:
    """How an operation gives some positions along one axis.

    Attributes:
        keep: what it gives: what was asked for, and what cannot be left out beside it.
        needs: place, axis and positions of each input of which less is needed.
        change: what else changes in the operation.
        why: why more is given than was asked for.
    """

    keep: Keep
    needs: list[Need]
    change: Callable[[NewCall], None] | None = field(default=None, compare=False)
    why: str = ""


Rule = Callable[[fx.Node, int, Keep], Narrowing | str]


def operation_of(node: fx.Node) -> str:
    """Name of a node's operation, such as "conv2d"."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return str(getattr(target, "__name__", target))
    return str(target.overloadpacket).split(".")[-1]


def shape_of(node: Any) -> tuple[Any, ...]:
    """Sizes of what a node gives, of the first where it gives several; free axes are symbols."""
    value = node.meta.get("val")
    while isinstance(value, list | tuple):
        value = value[0]
    return tuple(getattr(value, "shape", ()))


def size_at(node: Any, axis: int) -> Any:
    """One of these sizes."""
    return shape_of(node)[axis]


def places_of(keep: Keep, among: Keep) -> Keep:
    """Where some positions are among others."""
    found = {j: place for place, j in enumerate(among)}
    return tuple(found[j] for j in keep)


def whole_groups(keep: Keep, length: int) -> tuple[Keep, Keep]:
    """Groups of neighbours that hold any of some positions, and all positions of these."""
    groups = tuple(sorted({j // length for j in keep}))
    return groups, tuple(g * length + i for g in groups for i in range(length))


def axis_told(node: fx.Node, at: int, n_axes: int, default: int = 0) -> int:
    """The axis that an argument tells, counted from the first."""
    told: Any = node.args[at] if len(node.args) > at else default
    return int(told) % n_axes


def passed_on(node: fx.Node, axis: int, keep: Keep) -> Narrowing:
    """The same positions of an axis of the first input."""
    return Narrowing(keep, [((0,), axis, keep)])
