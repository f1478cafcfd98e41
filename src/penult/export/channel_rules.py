"""Rules of channels: which channels of its inputs an operation needs to give some of its own.

`needs_of` says it before anything is changed, `rewritten` makes the smaller operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import fx


@dataclass(frozen=True)
class Wanted:
    """Some channels of a tensor.

    Attributes:
        axis: along which the channels lie.
        keep: which of them, rising.
    """

    axis: int
    keep: tuple[int, ...]


Needs = list[tuple[fx.Node, Wanted]]
Narrowed = Callable[[fx.Node, Wanted], fx.Node]

POINTWISE = {
    *("relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "silu", "silu_", "gelu", "elu"),
    *("sigmoid", "sigmoid_", "hardsigmoid", "hardsigmoid_", "hardswish", "hardswish_", "tanh"),
    *("leaky_relu", "leaky_relu_", "mish", "mish_", "softplus", "clamp", "clamp_min", "clamp_max"),
    *("dropout", "dropout_", "feature_dropout", "clone", "contiguous", "alias", "to", "neg", "abs"),
    *("exp", "sqrt", "square", "detach", "elu_", "gelu_", "celu", "selu", "lift_fresh_copy"),
}
PAIRWISE = {"add", "add_", "sub", "sub_", "mul", "mul_", "div", "div_", "maximum", "minimum"}
REDUCTIONS = {"mean", "sum", "amax", "amin"}
POOLINGS = {"adaptive_avg_pool2d", "avg_pool2d", "max_pool2d", "adaptive_max_pool2d"}
CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
MIXING = {
    "layer_norm": "layer norm takes mean and variance over all channels",
    "group_norm": "group norm takes mean and variance over groups of channels",
    "rms_norm": "the norm is taken over all channels",
    "softmax": "softmax divides by a sum over all channels",
    "linalg_vector_norm": "the length is taken over all channels",
}


def operation_of(node: fx.Node) -> str:
    """Name of a node's operation, such as "conv2d"."""
    return str(getattr(node.target, "overloadpacket", node.target)).split(".")[-1]


def needs_of(node: fx.Node, own: Wanted) -> Needs | str:
    """What an operation needs of its inputs to give some of its channels.

    Returns:
        The inputs of which less is needed, each with its channels; inputs that are not named are
        needed whole. Text where the operation needs all: the reason.
    """
    name = operation_of(node)
    if name in MIXING:
        return MIXING[name]
    x = node.args[0] if node.args else None
    if name == "cat":
        return _needs_of_cat(node, own)
    if not isinstance(x, fx.Node):
        return f"{name} is no operation whose channels can be told apart"
    if name in POINTWISE:
        return [(x, own)]
    if name in PAIRWISE:
        return _needs_of_pair(node, own)
    if name == "batch_norm":
        return [(x, own)] if own.axis == 1 and not node.args[5] else "batch norm over a batch"
    if name in CONVOLUTIONS:
        return _needs_of_convolution(node, own, CONVOLUTIONS[name])
    if name == "linear":
        return [] if own.axis == len(_shape(node)) - 1 else [(x, own)]
    if name in POOLINGS:
        return [(x, own)] if own.axis == len(_shape(node)) - 3 else f"{name} mixes the channels"
    axis = _axis_before(node, own.axis)
    if axis is not None:
        return [(x, Wanted(axis, own.keep))]
    return f"{name} may mix the channels"


def rewritten(
    graph: fx.Graph, node: fx.Node, own: Wanted, narrowed: Narrowed, tensors: Any
) -> tuple[fx.Node, bool]:
    """The operation that gives only some channels.

    Args:
        graph: where it is inserted.
        node: the whole operation.
        own: the channels.
        narrowed: gives an input with only some channels.
        tensors: makes parts of parameters.

    Returns:
        The node, and whether it has fewer parameters now.
    """
    name = operation_of(node)
    needs = needs_of(node, own)
    assert not isinstance(needs, str)
    args, layer = list(node.args), False

    def part(at: int, axis: int) -> None:
        held = args[at] if at < len(args) else None
        if isinstance(held, fx.Node):
            args[at] = _parameter(graph, held, axis, own.keep, narrowed, tensors)

    if name == "cat":
        inputs = [narrowed(x, wanted) for x, wanted in needs]
        args[0] = [x for x, (_, wanted) in zip(inputs, needs, strict=True) if wanted.keep]
    elif name in PAIRWISE:
        for at in (0, 1):
            place = _pair_axis(node, at, own)
            if place is None:
                continue
            held = args[at]
            assert isinstance(held, fx.Node)
            if held.op == "get_attr":
                args[at] = graph.get_attr(tensors.sliced(held, place, own.keep))
            else:
                args[at] = narrowed(held, Wanted(place, own.keep))
    else:
        if needs:
            args[0] = narrowed(*needs[0])
        if name == "batch_norm":
            for at in (1, 2, 3, 4):
                part(at, 0)
        elif name in CONVOLUTIONS or (name == "linear" and not needs):
            part(1, 0)
            part(2, 0)
            layer = True
            if needs:  # depthwise
                args[6] = len(own.keep)
        elif name in ("view", "reshape"):
            args[1] = _shape_argument(node, own)
    target: Any = node.target
    new = graph.call_function(target, tuple(args), dict(node.kwargs))
    new.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
    return new, layer


def _parameter(
    graph: fx.Graph,
    held: fx.Node,
    axis: int,
    keep: tuple[int, ...],
    narrowed: Narrowed,
    tensors: Any,
) -> fx.Node:
    """Part of a parameter, or of a tensor that is computed from some."""
    if held.op == "get_attr":
        return graph.get_attr(tensors.sliced(held, axis, keep))
    return narrowed(held, Wanted(axis, keep))


def _shape(node: Any) -> tuple[Any, ...]:
    return tuple(node.meta["val"].shape)


def _needs_of_cat(node: fx.Node, own: Wanted) -> Needs | str:
    parts: Any = node.args[0]
    told: Any = node.args[1] if len(node.args) > 1 else 0
    axis = int(told) % len(_shape(node))
    if axis != own.axis:
        return [(x, own) for x in parts]
    found, begin = [], 0
    for x in parts:
        end = begin + int(_shape(x)[axis])
        found.append((x, Wanted(axis, tuple(j - begin for j in own.keep if begin <= j < end))))
        begin = end
    if any(not wanted.keep for _, wanted in found) and len({x for x, _ in found}) < len(found):
        return "the same tensor is joined to itself"
    return [(x, wanted) for x, wanted in found if wanted.keep]


def _pair_axis(node: fx.Node, at: int, own: Wanted) -> int | None:
    """Where the channels lie in one of two operands; None where it is the same for all of them."""
    x = node.args[at]
    if not isinstance(x, fx.Node):
        return None
    shape, whole = _shape(x), _shape(node)
    place = own.axis - (len(whole) - len(shape))
    if place < 0 or shape[place] != whole[own.axis]:
        return None
    return place


def _needs_of_pair(node: fx.Node, own: Wanted) -> Needs | str:
    found = []
    for at in (0, 1):
        place, x = _pair_axis(node, at, own), node.args[at]
        if place is not None and isinstance(x, fx.Node) and x.op != "get_attr":
            found.append((x, Wanted(place, own.keep)))
    return found


def _needs_of_convolution(node: fx.Node, own: Wanted, n_axes: int) -> Needs | str:
    x, weight = node.args[0], node.args[1]
    assert isinstance(x, fx.Node)
    if own.axis != len(_shape(node)) - n_axes - 1:
        return "the convolution mixes positions"
    groups = node.args[6] if len(node.args) > 6 else 1
    if groups == 1:
        return []
    n_out, n_in = _shape(weight)[0], _shape(x)[own.axis]
    if groups == n_in == n_out:
        return [(x, own)]
    return f"the convolution has {groups} groups of several channels"


def _axis_before(node: fx.Node, axis: int) -> int | None:
    """Where the channels lie in what an operation that only moves or reduces axes reads."""
    name, args = operation_of(node), node.args
    x: Any = args[0]
    before, after = _shape(x), _shape(node)
    if name in REDUCTIONS:
        given: Any = args[1] if len(args) > 1 else None
        if given is None:
            return None
        reduced = {a % len(before) for a in (given if isinstance(given, list | tuple) else [given])}
        keepdim = len(before) == len(after)
        left = list(range(len(before))) if keepdim else _others(before, reduced)
        return None if left[axis] in reduced else left[axis]
    if name == "permute":
        order: Any = args[1]
        return int(order[axis]) % len(before)
    if name == "movedim":
        return _axis_before_move(len(before), args[1], args[2], axis)
    if name in ("transpose", "t"):
        first, second = (int(a) % len(before) for a in (args[1:3] if name != "t" else (0, 1)))  # type: ignore[arg-type]
        return {first: second, second: first}.get(axis, axis)
    if name == "select":
        gone = int(args[1]) % len(before)  # type: ignore[arg-type]
        return _others(before, {gone})[axis]
    if name == "slice":
        cut = int(args[1]) % len(before) if len(args) > 1 else 0  # type: ignore[arg-type]
        return None if cut == axis else axis
    if name in ("flatten", "view", "reshape", "squeeze", "unsqueeze"):
        return _axis_of_reshape(before, after, axis)
    return None


def _axis_before_move(n_axes: int, source: Any, target: Any, axis: int) -> int:
    """Where an axis was before some axes were moved."""
    sources = [int(a) % n_axes for a in (source if isinstance(source, list | tuple) else [source])]
    targets = [int(a) % n_axes for a in (target if isinstance(target, list | tuple) else [target])]
    order = [-1] * n_axes
    for old, new in zip(sources, targets, strict=True):
        order[new] = old
    rest = iter(a for a in range(n_axes) if a not in sources)
    return [a if a >= 0 else next(rest) for a in order][axis]


def _others(shape: tuple[Any, ...], gone: set[int]) -> list[int]:
    return [i for i in range(len(shape)) if i not in gone]


def _axis_of_reshape(before: tuple[Any, ...], after: tuple[Any, ...], axis: int) -> int | None:
    """The axis before, where a reshape only adds or takes away axes of length one."""
    long_before = [i for i, size in enumerate(before) if size != 1]
    long_after = [i for i, size in enumerate(after) if size != 1]
    same = [str(before[i]) for i in long_before] == [str(after[i]) for i in long_after]
    if not same or axis not in long_after:
        return None
    return long_before[long_after.index(axis)]


def _shape_argument(node: fx.Node, own: Wanted) -> list[Any]:
    """The sizes that a reshape is told, with those of the channels made smaller."""
    told: Any = list(node.args[1])  # type: ignore[arg-type]
    if told[own.axis] != -1:
        told[own.axis] = len(own.keep)
    return list(told)
