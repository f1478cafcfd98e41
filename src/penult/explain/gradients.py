"""The network's features with a graph behind them, for methods that go by gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from penult.network.calling import Example, call_model, evaluating, first_tensor, layer_named
from penult.network.head import Head
from penult.network.linear_maps import reduced, rows, wide
from penult.network.tap import head_axis


@contextmanager
def differentiable(model: nn.Module, head: Head) -> Iterator[Callable[[Example], Tensor]]:
    """A function from inputs to features (n_samples, n_features), with gradients on.

    Args:
        model: the network; left as it is.
        head: its head.
    """
    seen: list[Tensor] = []

    def keep(module: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
        x = first_tensor(args, kwargs)
        assert x is not None
        axis = head_axis(module, x, output, head)
        assert axis is not None
        seen[:] = [wide(reduced(rows(x, axis), head.reduce))]

    def read(inputs: Example) -> Tensor:
        # A copy, as some networks change their inputs, which torch forbids for leaves.
        call_model(model, inputs.clone() if isinstance(inputs, Tensor) else inputs)
        return seen.pop()

    handle = layer_named(model, head.name).register_forward_hook(keep, with_kwargs=True)
    try:
        with evaluating(model), torch.inference_mode(False), torch.enable_grad():
            yield read
    finally:
        handle.remove()
