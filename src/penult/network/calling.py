"""How a network is called, and its layers found by name."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.head import HeadNotFound
from penult.network.linear_maps import possible_sizes, single_layer
from penult.text import nearest, some

Example = Tensor | Mapping[str, Any] | tuple[Any, ...] | list[Any]


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
    """All of a network's modules in evaluation mode and uncompiled; on leaving all is as before."""
    # Not model.eval(): some networks override it and merge weights, which is no reversible edit.
    flags = [(module, module.training) for module in model.modules()]
    # Compiled code ignores hooks that were added after it was made.
    compiled = [
        (module, call)
        for module, _ in flags
        if (call := getattr(module, "_compiled_call_impl", None)) is not None
    ]
    try:
        for module, _ in flags:
            module.training = False
        for module, _ in compiled:
            module._compiled_call_impl = None
        yield
    finally:
        for module, training in flags:
            module.training = training
        for module, call in compiled:
            module._compiled_call_impl = call


def autocast(device: torch.device, dtype: torch.dtype) -> torch.autocast:
    """Context in which a float32 network computes in `dtype`."""
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


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
    if name in dict(model.named_parameters()):
        raise HeadNotFound(
            f"{name} is a parameter and no layer: leave --head out, so that the head is looked for "
            "by what the network computes"
        )
    near = nearest(name, layers)
    linear = [n for n, m in layers.items() if n and single_layer(m) and possible_sizes(m)]
    raise HeadNotFound(
        f"the network has no layer {name}: "
        + (f"the nearest names are {some(near)}" if near else f"it has {some(linear[::-1])}")
    )


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
