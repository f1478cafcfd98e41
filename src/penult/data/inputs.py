"""Inputs: what a network takes, one tensor or several by name, as tokenizers give them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Inputs = Tensor | dict[str, Tensor]
"""What a network takes: one tensor, or several by name; samples are along the first axis."""


def changed(inputs: Inputs, change: Callable[[Tensor], Tensor]) -> Inputs:
    """The same, each tensor changed in one way."""
    if isinstance(inputs, Tensor):
        return change(inputs)
    return {name: change(values) for name, values in inputs.items()}


def on_device(inputs: Inputs, device: torch.device) -> Inputs:
    """The same on a device."""
    return changed(inputs, lambda values: values.to(device))


def first(inputs: Inputs, n: int) -> Inputs:
    """The first samples of a batch."""
    return changed(inputs, lambda values: values[:n])


def n_samples_of(inputs: Inputs) -> int:
    """How many samples a batch has."""
    return len(inputs if isinstance(inputs, Tensor) else next(iter(inputs.values())))


def one_by_one(inputs: Inputs) -> list[Inputs]:
    """Each sample of a batch as a batch of its own."""
    return [_sample(inputs, i) for i in range(n_samples_of(inputs))]


def _sample(inputs: Inputs, i: int) -> Inputs:
    return changed(inputs, lambda values: values[i : i + 1])
