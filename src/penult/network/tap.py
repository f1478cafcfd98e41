"""Tap: what a network's head reads and gives while the network runs."""

from __future__ import annotations

from typing import Any, Self

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from penult.errors import InputError
from penult.network.calling import first_tensor, kind_of, layer_named
from penult.network.head import Head
from penult.network.linear_maps import (
    channel_axis,
    reduced,
    rows,
)


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
        self._alone = False
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
            self._model.register_forward_pre_hook(self._forget, with_kwargs=True),
            self._layer.register_forward_hook(self._read, with_kwargs=True),
        ]
        return self

    def __exit__(self, *error: object) -> None:
        while self._handles:
            self._handles.pop().remove()

    def _last(self, values: Tensor | None) -> Tensor:
        if values is None:
            raise InputError(
                f"layer {self._head.name} did not run in the network's last run, "
                "so there are no features: run the network inside the tap"
            )
        return values

    def _forget(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._features = self._logits = None
        inputs = first_tensor(args, kwargs)
        self._alone = inputs is not None and inputs.ndim > 1 and len(inputs) == 1

    def _read(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> None:
        x, head = first_tensor(args, kwargs), self._head
        for values in (x, output):
            # Of one image alone a network may squeeze the axis of samples away.
            if not isinstance(values, Tensor) or values.ndim < 2 - self._alone:
                raise InputError(f"layer {head.name} ran without features: found {kind_of(values)}")
        assert x is not None
        axis = head_axis(module, x, output, head)
        if axis is None:
            raise InputError(
                f"layer {head.name} was found with {head.n_features} features and "
                f"{head.layer_classes} classes, and now maps {kind_of(x)} to {kind_of(output)}"
            )
        self._features = reduced(rows(x.detach(), axis), head.reduce)
        self._logits = head.own(reduced(rows(output.detach(), axis), head.reduce))


def head_axis(module: nn.Module, x: Tensor, output: Tensor, head: Head) -> int | None:
    """Axis of the channels where a head's layer, or its replacement, maps `x` to `output`.

    Returns:
        None where the sizes are not the head's: all classes of its layer, or those that it keeps.
    """
    for n_classes in dict.fromkeys((head.layer_classes, head.n_classes)):
        size = (n_classes, head.n_features)
        axis = channel_axis(module, x, output, size)
        if (output.shape[axis], x.shape[axis]) == size:
            return axis
    return None
