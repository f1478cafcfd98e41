"""Linear maps among a network's modules: from which sizes to which, with which weight and bias."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from penult.errors import InputError


class LinearMap(NamedTuple):
    """Proof that a module's output is `x @ weight.T + bias`: weight (n_classes, n_features)."""

    weight: Tensor
    bias: Tensor


class ChannelsFirst(nn.Module):
    """A head for (n_samples, n_features, ...) inputs, made of one for (..., n_features)."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Logits (n_samples, n_classes, ...)."""
        logits: Tensor = self.head(x.movedim(1, -1))
        return logits.movedim(-1, 1)


def channels_first(module: nn.Module) -> bool:
    """Whether the module reads (n_samples, n_features, ...) as convolutions do."""
    return isinstance(module, (_ConvNd, ChannelsFirst))


def rows(values: Tensor, axis: int) -> Tensor:
    """Values with their channels on `axis` as (n_samples, n_positions, n_channels)."""
    # One image alone, whose axis of samples the network has squeezed away.
    last = values[None] if values.ndim == 1 else values.movedim(axis, -1)
    n_positions = last[0, ..., 0].numel() if len(last) else 1
    return last.reshape(len(last), n_positions, last.shape[-1])


def reduced(values: Tensor, reduce: str) -> Tensor:
    """Rows (n_samples, n_positions, n_channels) as one vector per sample: a copy, same dtype.

    Raises:
        InputError: the positions are not as many as `reduce` speaks of.
    """
    n_positions = values.shape[1]
    if reduce == "mean":
        return values.mean(1)
    position = int(reduce.removeprefix("position:")) if reduce != "none" else 0
    if position >= n_positions or (reduce == "none" and n_positions > 1):
        expected = f"position {position}" if reduce != "none" else "one position"
        raise InputError(
            f"expected {expected} per sample at the head, found {n_positions} positions: "
            "find the head again with an example of this size"
        )
    return values[:, position].clone()


def reduction(values: Tensor, target: Tensor) -> str | None:
    """How rows (n_samples, n_positions, n_classes) become a (n_samples, n_classes), or None."""
    if values.shape[::2] != target.shape:
        return None
    if values.shape[1] == 1:
        return "none" if close(values[:, 0], target) else None
    if close(values.mean(1), target):
        return "mean"
    error = (wide(values) - wide(target)[:, None]).abs().amax((0, 2))
    position = int(error.argmin())
    return f"position:{position}" if close(values[:, position], target) else None


def linear_map(module: nn.Module, x: Tensor, y: Tensor) -> LinearMap | None:
    """The module's weight and bias if its output `y` is the linear map of its input `x`."""
    axis, weights = possible_weights(module, x, y)
    biases = [b for b in _tensors(module) if b.ndim == 1]
    for weight in weights:
        inputs, outputs, w = wide(rows(x, axis)), rows(y, axis), wide(weight)
        product = inputs @ w.T
        bound = inputs.abs() @ w.abs().T
        zeros = weight.new_zeros(len(weight))
        for bias in [*(b for b in biases if len(b) == len(weight)), zeros]:
            scale = bound + wide(bias).abs()
            if close(outputs, product + wide(bias), scale=scale, products=True):
                return LinearMap(weight.detach(), bias.detach())
    return None


def possible_weights(module: nn.Module, x: Tensor, y: Tensor) -> tuple[int, list[Tensor]]:
    """Channel axis and the module's own matrices that could map `x` to `y`, judged by shape.

    The matrices are (n_classes, n_features), transposed where the module keeps them otherwise.
    """
    floating = x.is_floating_point() and y.is_floating_point()
    if x.ndim < 2 or y.ndim != x.ndim or not floating:
        return -1, []
    for axis in [1] if channels_first(module) else [-1, 1][: x.ndim - 1]:
        if x.movedim(axis, -1).shape[:-1] != y.movedim(axis, -1).shape[:-1]:
            continue
        shape = (y.shape[axis], x.shape[axis])
        fitting = [w for m in _matrices(module) for w in (m, m.T) if w.shape == shape]
        if fitting:
            return axis, fitting
    return -1, []


def channel_axis(module: nn.Module, x: Tensor, y: Tensor, size: tuple[int, int]) -> int:
    """Axis of the channels where a module of size (n_classes, n_features) maps `x` to `y`."""
    last = (y.shape[-1], x.shape[-1]) == size
    return -1 if x.ndim <= 2 or (last and not channels_first(module)) else 1


def possible_sizes(module: nn.Module) -> set[tuple[int, int]]:
    """(n_classes, n_features) that the module may map to and from, without running it."""
    known = declared_size(module)
    shapes = {(weight.shape[0], weight.shape[1]) for weight in _matrices(module)}
    if known is not None and (known in shapes or known[::-1] in shapes or not shapes):
        return {known}
    # Without a run nothing says whether a custom layer keeps its weight transposed.
    return {*shapes, *((b, a) for a, b in shapes)}


def single_layer(module: nn.Module) -> bool:
    """Whether the module is no block of layers (which may have sizes and parameters of its own)."""
    children = {name for name, _ in module.named_children()}
    return children <= {"parametrizations"} or isinstance(module, ChannelsFirst)


def declared_size(module: nn.Module) -> tuple[int, int] | None:
    """(n_classes, n_features) where the module itself says so."""
    if isinstance(module, ChannelsFirst):
        return declared_size(module.head)
    for names in (("n_classes", "n_features"), ("out_features", "in_features")):
        n_classes, n_features = (getattr(module, name, None) for name in names)
        if isinstance(n_classes, int) and isinstance(n_features, int):
            return n_classes, n_features
    return None


def close(
    found: Tensor, expected: Tensor, *, scale: Tensor | None = None, products: bool = False
) -> bool:
    """Whether two tensors are equal up to the rounding of the coarser of their dtypes.

    Args:
        found: any shape, any floating dtype.
        expected: the same shape.
        scale: size of the terms that were summed; the values themselves where None.
        products: the values are sums of products, which some devices round more coarsely.
    """
    if found.shape != expected.shape:
        return False
    if not found.numel():
        return True
    a, b = wide(found), wide(expected).to(found.device)
    size = torch.maximum(a.abs().max(), b.abs().max()) if scale is None else scale.max()
    far = (a - b).abs().max()
    return bool(far.isfinite() and far <= _tolerance(found, expected, products) * size)


def wide(values: Tensor) -> Tensor:
    """Values in float32, or float64 where they are."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _tolerance(a: Tensor, b: Tensor, products: bool) -> float:
    eps = max(torch.finfo(a.dtype).eps, torch.finfo(b.dtype).eps)
    if eps > 1e-6:
        return 4 * eps
    # TF32 and its kin keep 8 to 11 bits of the factors of a float32 product.
    coarse = a.is_cuda or torch.get_float32_matmul_precision() != "highest"
    return 1e-2 if products and coarse else 100 * eps


def _matrices(module: nn.Module) -> Iterator[Tensor]:
    """The module's own tensors that are matrices, kernels of 1 × 1 convolutions included."""
    if isinstance(module, _ConvNd):
        padded = not isinstance(module.padding, str) and any(module.padding)
        if module.groups != 1 or padded or {*module.stride} != {1}:
            return
    for values in _tensors(module):
        if values.ndim >= 2 and values.shape[2:].numel() == 1:
            yield values.reshape(values.shape[:2])


def _tensors(module: nn.Module) -> list[Tensor]:
    """The module's own floating tensors: parameters, buffers, computed weights."""
    own: dict[str, object] = {
        **vars(module),
        **dict(module.named_parameters(recurse=False)),
        **dict(module.named_buffers(recurse=False)),
    }
    if parametrize.is_parametrized(module) and isinstance(module.parametrizations, nn.ModuleDict):
        own |= {name: getattr(module, name) for name in module.parametrizations}
    tensors = [v for v in own.values() if isinstance(v, Tensor) and not is_lazy(v)]
    return [v for v in tensors if v.is_floating_point()]
