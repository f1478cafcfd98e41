"""A network's head and the tap that watches it while the network runs."""

from __future__ import annotations

import difflib
import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penult.errors import InputError, some
from penult.linear import channel_axis, possible_sizes, reduced, rows, single_layer, wide

Example = Tensor | Mapping[str, Any] | tuple[Any, ...] | list[Any]


class NotFiniteError(InputError):
    """The network's logits are NaN or infinite on the example."""


class HeadNotFound(InputError):  # noqa: N818
    """A network has no such head; the message says what was found and how to name the layer."""


@dataclass(frozen=True, eq=False)
class Head:
    """The last linear map of a network: `logits = features @ weight.T + bias`.

    Args:
        name: dotted name of the layer; "" for a head given as arrays.
        weight: (n_classes, n_features) float32, on the CPU, a copy of the layer's.
        bias: (n_classes,), zeros where the layer has none.
        reduce: how the positions of the layer's input become one vector per sample: "none" (there
            is one), "mean", or "position:<i>".
        verified: whether it was checked on an example that this gives the network's logits.

    Raises:
        InputError: shapes that do not fit together, an unknown `reduce`.
    """

    name: str
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    reduce: str = "none"
    verified: bool = False

    def __post_init__(self) -> None:
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise InputError(
                "expected a weight of shape (n_classes, n_features) and a bias of shape "
                f"(n_classes,), found {tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            )
        kind, _, position = self.reduce.partition(":")
        if self.reduce not in ("none", "mean") and not (
            kind == "position" and position.isdecimal()
        ):
            raise InputError(
                f"expected reduce to be none, mean or position:<i>, found {self.reduce!r}"
            )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.weight.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features that every class reads."""
        return self.weight.shape[1]

    def fingerprint(self) -> str:
        """Name, and a hash of weight and bias."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in (self.weight, self.bias):
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"{self.name or 'given'} {digest.hexdigest()}"

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features), at least float32."""
        z = wide(features)
        return F.linear(z, self.weight.to(z), self.bias.to(z))


class FeatureTap:
    """Watch what a network's head reads and gives; the network is not changed.

    A context manager: inside it, after each run of the network, `features` and `logits` are those
    of that run. Leaving it takes the hooks away. Both are copies, detached, on the network's device
    and in its dtype.

    Args:
        model: the network.
        head: what `find_head` found in it.

    Raises:
        InputError: the network has no layer of the head's name; at a run, the layer reads something
            else than (n_samples, n_features) features.
    """

    def __init__(self, model: nn.Module, head: Head) -> None:
        self._model = model
        self._head = head
        self._layer = layer_named(model, head.name)
        self._features: Tensor | None = None
        self._logits: Tensor | None = None
        self._handles: list[RemovableHandle] = []

    @property
    def features(self) -> Tensor:
        """(n_samples, n_features) of the last run: what the head read, reduced over positions."""
        return self._last(self._features)

    @property
    def logits(self) -> Tensor:
        """(n_samples, n_classes) of the last run: the head's own output, reduced likewise."""
        return self._last(self._logits)

    @property
    def n_features(self) -> int:
        """How many features a sample has."""
        return self._head.n_features

    def feature(self, j: int) -> str:
        """What messages call a feature."""
        return f"feature {j}"

    def __enter__(self) -> Self:
        self._handles += [
            self._model.register_forward_pre_hook(self._forget),
            self._layer.register_forward_hook(self._read, with_kwargs=True),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _last(self, values: Tensor | None) -> Tensor:
        if values is None:
            raise InputError(
                f"layer {self._head.name} did not run in the network's last run, "
                "so there are no features: run the network inside the tap"
            )
        return values

    def _forget(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._features = self._logits = None

    def _read(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        x, head = first_tensor(args, kwargs), self._head
        for values in (x, output):
            if not isinstance(values, Tensor) or values.ndim < 2:
                raise InputError(f"layer {head.name} ran without features: found {kind_of(values)}")
        assert x is not None
        size = (head.n_classes, head.n_features)
        axis = channel_axis(module, x, output, size)
        if (output.shape[axis], x.shape[axis]) != size:
            raise InputError(
                f"layer {head.name} was found with {head.n_features} features and "
                f"{head.n_classes} classes, and now maps {kind_of(x)} to {kind_of(output)}"
            )
        self._features = reduced(rows(x.detach(), axis), head.reduce)
        self._logits = reduced(rows(output.detach(), axis), head.reduce)


def call_model(model: nn.Module, example: Example) -> Any:
    """Run a network on a tensor, on keyword inputs (a mapping) or on several inputs (a sequence).

    Raises:
        InputError: the example is none of these.
    """
    if isinstance(example, Tensor):
        return model(example)
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, (tuple, list)):
        return model(*example)
    raise InputError(
        "expected a tensor, a mapping of keyword inputs or a tuple of inputs for the network, "
        f"found {type(example).__name__}"
    )


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """All of a network's modules in evaluation mode; on leaving each has its own flag again."""
    # Not model.eval(): some networks override it and merge weights, which is no reversible edit.
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:
            module.training = False
        yield
    finally:
        for module, training in flags:
            module.training = training


def device_of(model: nn.Module) -> torch.device:
    """Where a network's parameters are; the CPU where it has none."""
    return tensor_device(model) or torch.device("cpu")


def layer_named(model: nn.Module, name: str) -> nn.Module:
    """The network's layer of a dotted name.

    Raises:
        HeadNotFound: there is none; names the nearest ones.
    """
    layers: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if name in layers and (name or single_layer(model)):
        return layers[name]
    if not name:
        raise HeadNotFound("this head was given as arrays: it names no layer of the network")
    near = nearest(name, layers)
    linear = [n for n, m in layers.items() if n and single_layer(m) and possible_sizes(m)]
    raise HeadNotFound(
        f"the network has no layer {name}: "
        + (f"the nearest names are {some(near)}" if near else f"it has {some(linear[::-1])}")
    )


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The names that could be meant by one that is not among them."""
    names = [*names]
    near = [other for other in names if other.endswith(f".{name}")]
    return near + [n for n in difflib.get_close_matches(name, names, 3, 0.5) if n not in near]


def first_tensor(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor | None:
    """The first tensor that a layer was called with."""
    return next((v for v in (*args, *kwargs.values()) if isinstance(v, Tensor)), None)


def tensor_device(module: nn.Module) -> torch.device | None:
    """Where the first of a module's parameters and buffers is; None where it has none."""
    tensors = itertools.chain(module.parameters(), module.buffers())
    return next((t.device for t in tensors), None)


def kind_of(value: object) -> str:
    """Dtype and shape of a tensor, the type of anything else, for messages."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return type(value).__name__
