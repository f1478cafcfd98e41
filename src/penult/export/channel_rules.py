"""Rules of channels: what an operation needs of its inputs to give some positions along an axis.

Each rule looks at one axis of what an operation gives; several axes are narrowed one by one. Those
that only move axes are in `axis_rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import fx

from penult.export.axis_rules import MOVES
from penult.export.narrowing import (
    Keep,
    Narrowing,
    Need,
    NewCall,
    Rule,
    Slot,
    operation_of,
    passed_on,
    shape_of,
    size_at,
    whole_groups,
)
from penult.export.plain_graph import STORED

ELEMENTWISE = {
    *("relu", "relu6", "hardtanh", "silu", "gelu", "elu", "celu", "selu", "sigmoid", "hardsigmoid"),
    *(
        "hardswish",
        "tanh",
        "leaky_relu",
        "mish",
        "softplus",
        "log_sigmoid",
        "softsign",
        "threshold",
    ),
    *("hardshrink", "softshrink", "rrelu", "dropout", "feature_dropout", "alpha_dropout", "detach"),
    *(
        "clone",
        "contiguous",
        "alias",
        "to",
        "_to_copy",
        "lift_fresh_copy",
        "zeros_like",
        "ones_like",
    ),
    *(
        "neg",
        "abs",
        "sign",
        "exp",
        "expm1",
        "log",
        "log1p",
        "sqrt",
        "rsqrt",
        "square",
        "erf",
        "sin",
    ),
    *("cos", "tan", "atan", "reciprocal", "floor", "ceil", "round", "trunc", "frac", "nan_to_num"),
    *("clamp", "clamp_min", "clamp_max", "add", "sub", "rsub", "mul", "div", "maximum", "minimum"),
    *("pow", "fmod", "remainder", "atan2", "lerp", "addcmul", "addcdiv", "where", "eq", "ne", "lt"),
    *("le", "gt", "ge", "logical_and", "logical_or", "logical_not", "bitwise_not", "isnan", "copy"),
    *("full_like", "cosh", "sinh", "asinh", "xlogy", "logaddexp", "masked_fill"),
}
REDUCTIONS = {
    **dict.fromkeys(("mean", "sum", "amax", "amin", "max", "min", "prod", "var", "std"), 1),
    **dict.fromkeys(("logsumexp", "argmax", "argmin", "any", "all"), 1),
    **dict.fromkeys(("linalg_vector_norm", "norm"), 2),
}
POOLINGS = {
    f"{kind}_pool{n}d": n
    for kind in ("avg", "max", "adaptive_avg", "adaptive_max", "_adaptive_avg")
    for n in (1, 2, 3)
} | {"max_pool2d_with_indices": 2, "max_pool3d_with_indices": 3}
RESIZINGS = {
    **{f"upsample_{kind}1d": 1 for kind in ("nearest", "linear", "_nearest_exact")},
    **{f"upsample_{kind}2d": 2 for kind in ("nearest", "bilinear", "bicubic")},
    **{"upsample_nearest3d": 3, "upsample_trilinear3d": 3, "_upsample_nearest_exact2d": 2},
}
CONVOLUTIONS = {"conv1d": 1, "conv2d": 2, "conv3d": 3}
TRANSPOSED = {"conv_transpose1d": 1, "conv_transpose2d": 2, "conv_transpose3d": 3}
GROUPS = 6  # the place of their number among a convolution's arguments
LAYERS = {*CONVOLUTIONS, *TRANSPOSED, "linear", "addmm"}  # that are named when they become smaller


def _elementwise(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Every tensor's own position where it has one; a length of one is the same for all."""
    n_axes, size = len(shape_of(node)), size_at(node, axis)
    needs = []
    for slot, x in _tensors(node):
        place = axis - (n_axes - len(shape_of(x)))
        if place >= 0 and size_at(x, place) == size:
            needs.append((slot, place, keep))
    return Narrowing(keep, needs)


def _tensors(node: fx.Node) -> Iterable[tuple[Slot, fx.Node]]:
    for i, x in enumerate(node.args):
        if isinstance(x, fx.Node) and hasattr(x.meta.get("val"), "shape"):
            yield (i,), x


def _reduction(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    name = operation_of(node)
    if name in ("max", "min") and len(node.args) > 1 and isinstance(node.args[1], fx.Node):
        return _elementwise(node, axis, keep)
    given: Any = _argument(node, REDUCTIONS[name], None)
    before, after = shape_of(node.args[0]), shape_of(node)
    if given is None or given == []:
        return f"{name} is taken over all positions"
    gone = {a % len(before) for a in (given if isinstance(given, list | tuple) else [given])}
    # An axis that is kept with the length one is never narrowed.
    left = [a for a in range(len(before)) if a not in gone or len(before) == len(after)]
    return Narrowing(keep, [((0,), left[axis], keep)])


def _argument(node: fx.Node, at: int, default: Any) -> Any:
    return node.args[at] if len(node.args) > at else default


def _channelwise(n_axes: int, does: str) -> Rule:
    """Operations that treat each channel before some axes of positions by itself."""

    def rule(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
        if axis >= len(shape_of(node)) - n_axes:
            return f"{operation_of(node)} {does} positions"
        return passed_on(node, axis, keep)

    return rule


def _over(place: int, reason: str) -> Rule:
    """Operations along one axis, or along several that an argument tells."""

    def rule(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
        told: Any = _argument(node, place, None)
        axes = told if isinstance(told, list | tuple) else [told]
        if axis in {a % len(shape_of(node)) for a in axes}:
            return reason
        return passed_on(node, axis, keep)

    return rule


def _last_axes(reason: str) -> Rule:
    """Norms over the last axes, as many as their second argument has sizes."""

    def rule(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
        sizes: Any = node.args[1]
        if axis >= len(shape_of(node)) - len(sizes):
            return reason
        return passed_on(node, axis, keep)

    return rule


def _channel_norm(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """The input and up to four vectors; with stored statistics each position by itself too."""
    if axis != 1 and operation_of(node) != STORED:
        return "the norm takes mean and variance over positions"
    return _with_vectors(node, axis, keep, (1, 2, 3, 4))


def _with_vectors(node: fx.Node, axis: int, keep: Keep, at: tuple[int, ...]) -> Narrowing:
    needs: list[Need] = [((0,), axis, keep)]
    if axis == 1:
        needs += [((i,), 0, keep) for i in at if isinstance(_argument(node, i, None), fx.Node)]
    return Narrowing(keep, needs)


def _group_norm(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Whole groups of channels."""
    reason = "group norm takes mean and variance over groups of channels"
    if axis != 1:
        return reason
    n_groups: Any = node.args[1]
    groups, kept = whole_groups(keep, size_at(node, 1) // n_groups)

    def change(call: NewCall) -> None:
        call.args[1] = len(groups)

    needs = _with_vectors(node, axis, kept, (2, 3)).needs
    return Narrowing(kept, needs, change, reason)


def _prelu(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    needs: list[Need] = [((0,), axis, keep)]
    if axis == 1 and size_at(node.args[1], 0) != 1:
        needs.append(((1,), 0, keep))
    return Narrowing(keep, needs)


def _linear(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    if axis != len(shape_of(node)) - 1:
        return passed_on(node, axis, keep)
    return Narrowing(keep, _filters(node, 0, keep))


def _filters(node: fx.Node, axis: int, keep: Keep) -> list[Need]:
    """Of the weight and, where there is one, of the bias."""
    bias = isinstance(_argument(node, 2, None), fx.Node)
    return [((1,), axis, keep), *([((2,), 0, keep)] if bias else [])]


def _convolution(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Filters; of grouped convolutions whole groups, with as many filters in each."""
    at = len(shape_of(node)) - CONVOLUTIONS[operation_of(node)] - 1
    if axis != at:
        return _other_axis(node, axis, at, keep)
    n_groups: int = _argument(node, GROUPS, 1)
    if n_groups == 1:
        return Narrowing(keep, _filters(node, 0, keep))
    length = size_at(node, axis) // n_groups
    own: dict[int, list[int]] = {}
    for j in keep:
        own.setdefault(j // length, []).append(j)
    most = max(map(len, own.values()))
    for g, filters in own.items():
        rest = (j for j in range(g * length, (g + 1) * length) if j not in set(filters))
        filters += [j for j, _ in zip(rest, range(most - len(filters)), strict=False)]
    kept = tuple(sorted(j for filters in own.values() for j in filters))
    return _grouped(node, tuple(sorted(own)), n_groups, axis, kept, _filters(node, 0, kept))


def _grouped(
    node: fx.Node, groups: Keep, n_groups: int, axis: int, kept: Keep, needs: list[Need]
) -> Narrowing:
    """A convolution of only some groups, whose inputs are those of these groups."""
    n_in = size_at(node.args[0], axis) // n_groups
    inputs = tuple(g * n_in + i for g in groups for i in range(n_in))

    def change(call: NewCall) -> None:
        call.args[GROUPS] = len(groups)

    reason = f"the convolution has {n_groups} groups of several channels"
    return Narrowing(kept, [*needs, ((0,), axis, inputs)], change, reason)


def _other_axis(node: fx.Node, axis: int, channels: int, keep: Keep) -> Narrowing | str:
    if axis > channels:
        return "the convolution mixes positions"
    return passed_on(node, axis, keep)


def _transposed(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Filters lie along the second axis of the weight, and are numbered anew in each group."""
    at = len(shape_of(node)) - TRANSPOSED[operation_of(node)] - 1
    if axis != at:
        return _other_axis(node, axis, at, keep)
    n_groups: int = _argument(node, GROUPS, 1)
    if n_groups == 1:
        return Narrowing(keep, _filters(node, 1, keep))
    length = size_at(node, axis) // n_groups
    groups = tuple(sorted({j // length for j in keep}))
    own = tuple(sorted({j % length for j in keep}))
    kept = tuple(g * length + i for g in groups for i in own)
    bias = _filters(node, 1, kept)[1:]
    found = _grouped(node, groups, n_groups, axis, kept, [((1,), 1, own), *bias])
    found.needs.append(((1,), 0, found.needs[-1][2]))
    return found


def _weight_norm(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    if axis != _argument(node, 2, 0) % len(shape_of(node)):
        return "weight norm takes the length over it"
    return Narrowing(keep, [((0,), axis, keep), ((1,), axis, keep)])


def _product(first: int) -> Rule:
    """Matrix products of two arguments; one before them is added."""

    def rule(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
        a, b = node.args[first : first + 2]
        n_axes, n_a, n_b = len(shape_of(node)), len(shape_of(a)), len(shape_of(b))
        needs: list[Need] = []
        # A vector has no axis of its own in the product.
        ends = ["a"] * (n_a > 1) + ["b"] * (n_b > 1)
        from_end = n_axes - 1 - axis
        if from_end < len(ends):
            side = ends[::-1][from_end]
            needs.append(
                ((first,), n_a - 2, keep) if side == "a" else ((first + 1,), n_b - 1, keep)
            )
        else:
            batch = axis - (n_axes - len(ends))  # counted from the matrices backwards: below zero
            for i, (x, n) in enumerate(((a, n_a), (b, n_b))):
                place = n - 2 + batch
                if n > 2 and place >= 0 and size_at(x, place) == size_at(node, axis):
                    needs.append(((first + i,), place, keep))
        if first:
            place = axis - (n_axes - len(shape_of(node.args[0])))
            if place >= 0 and size_at(node.args[0], place) == size_at(node, axis):
                needs.append(((0,), place, keep))
        return Narrowing(keep, needs)

    return rule


def _attention(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """Queries give positions, values give channels, and the axes before them are heads."""
    n_axes = len(shape_of(node))
    mask = _argument(node, 3, None) or node.kwargs.get("attn_mask")
    causal = _argument(node, 5, False) or node.kwargs.get("is_causal")
    if axis == n_axes - 1:
        return Narrowing(keep, [((2,), len(shape_of(node.args[2])) - 1, keep)])
    if axis == n_axes - 2 and mask is None and not causal:
        return Narrowing(keep, [((0,), len(shape_of(node.args[0])) - 2, keep)])
    # Sizes that are free have no hash.
    alike = len({str(shape_of(x)[:-2]) for x in node.args[:3]}) == 1
    if axis < n_axes - 2 and mask is None and alike and not node.kwargs.get("enable_gqa"):
        return Narrowing(keep, [((i,), axis, keep) for i in range(3)])
    return "attention reads all positions"


def _einsum(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    told: Any = node.args[0]
    inputs, arrow, output = told.replace(" ", "").partition("->")
    if not arrow or "." in told:
        return "einsum may mix the channels"
    letter = output[axis]
    needs: list[Need] = []
    for i, letters in enumerate(inputs.split(",")):
        needs += [((1, i), at, keep) for at, one in enumerate(letters) if one == letter]
    return Narrowing(keep, needs)


def _embedding(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    last = axis == len(shape_of(node)) - 1
    return Narrowing(keep, [((0,), 1, keep) if last else ((1,), axis, keep)])


def _getitem(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """One of several things that an operation gives."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    narrowing = narrowing_of(source, axis, keep)
    if isinstance(narrowing, str):
        return narrowing
    return Narrowing(narrowing.keep, [((0,), axis, narrowing.keep)], None, narrowing.why)


RULES: dict[str, Rule] = {
    **MOVES,
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    **dict.fromkeys(REDUCTIONS, _reduction),
    **{name: _channelwise(n, "takes several") for name, n in POOLINGS.items()},
    **{name: _channelwise(n, "mixes") for name, n in RESIZINGS.items()},
    **dict.fromkeys(CONVOLUTIONS, _convolution),
    **dict.fromkeys(TRANSPOSED, _transposed),
    **dict.fromkeys((STORED, "_native_batch_norm_legit", "instance_norm"), _channel_norm),
    "group_norm": _group_norm,
    "layer_norm": _last_axes("layer norm takes mean and variance over all channels"),
    "rms_norm": _last_axes("the norm is taken over all channels"),
    "softmax": _over(1, "softmax divides by a sum over all channels"),
    "_softmax": _over(1, "softmax divides by a sum over all channels"),
    "log_softmax": _over(1, "softmax divides by a sum over all channels"),
    "cumsum": _over(1, "a sum runs over all channels"),
    "prelu": _prelu,
    "linear": _linear,
    "_weight_norm": _weight_norm,
    "matmul": _product(0),
    "mm": _product(0),
    "bmm": _product(0),
    "mv": _product(0),
    "addmm": _product(1),
    "baddbmm": _product(1),
    "einsum": _einsum,
    "scaled_dot_product_attention": _attention,
    "embedding": _embedding,
    "getitem": _getitem,
}


def narrowing_of(node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
    """What an operation does to give some positions along an axis; text where it needs all."""
    name = operation_of(node)
    if name not in RULES:
        return f"{name} may mix the channels"
    return RULES[name](node, axis, keep)
