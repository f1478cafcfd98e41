"""ShippedNetwork: a run's network with another head in it, as one module from inputs to logits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.inputs import Inputs
from penult.data.transform import Transform
from penult.errors import InputError
from penult.network.calling import call_model, layer_named
from penult.network.head import Head
from penult.network.tap import head_axis

LOGITS = "logits"
IMAGES, PIXELS = "images", "pixels"


class ShippedNetwork(nn.Module):
    """A network that gives the logits of its head and nothing else.

    Whatever else the network gives (a dictionary, a loss, further outputs) is left out, so that
    every export has one output.

    Args:
        network: in evaluation mode, with whatever layer is in its head's place.
        head: where the network's own head is, and how its positions become one vector.
        normalise: take pixels (n_samples, height, width, channels) uint8 rather than images ready
            for the network, and scale and normalise them so.
    """

    factor: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, head: Head, normalise: Transform | None = None) -> None:
        super().__init__()
        self.network = network
        self._head, self._normalise = head, normalise
        if normalise is not None:
            scale, mean, std = (
                torch.tensor(values, dtype=torch.float64)
                for values in ((normalise.scale,), normalise.mean, normalise.std)
            )
            self.register_buffer("factor", (scale / std).float().view(1, -1, 1, 1))
            self.register_buffer("shift", (mean / std).float().view(1, -1, 1, 1))
        self.eval()

    def forward(
        self,
        images: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Logits (n_samples, n_classes) of images, or of texts by the names of their inputs."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
        }
        found: list[Tensor] = []

        def note(layer: nn.Module, args: Any, kwargs: Any, output: Tensor) -> None:
            x = next(v for v in (*args, *kwargs.values()) if isinstance(v, Tensor))
            found.append(self._vector(layer, x, output))

        handle = layer_named(self.network, self._head.name).register_forward_hook(
            note, with_kwargs=True
        )
        try:
            if images is None:
                call_model(self.network, {k: v for k, v in given.items() if v is not None})
            else:
                self.network(images if self._normalise is None else self._normalised(images))
        finally:
            handle.remove()
        return found[-1]

    def _vector(self, layer: nn.Module, x: Tensor, output: Tensor) -> Tensor:
        """One vector of logits for each sample of what the layer gave."""
        head = self._head
        axis = head_axis(layer, x, output, head)
        if axis is None:
            raise InputError(f"layer {head.name} gives other sizes than in the run")
        own = output
        if output.dim() > 2:
            flat = output.movedim(axis, -1).flatten(1, -2)
            place = int(head.reduce.partition(":")[2] or 0)
            own = flat.mean(1) if head.reduce == "mean" else flat[:, place]
        if head.kept is not None and own.shape[1] != head.n_classes:
            own = own[:, list(head.kept)]
        return own.float()  # of networks in half precision too

    def _normalised(self, pixels: Tensor) -> Tensor:
        assert self._normalise is not None
        planes = pixels.to(torch.float32).permute(0, 3, 1, 2)
        if self._normalise.bgr:
            planes = planes.flip(1)
        return planes * self.factor - self.shift


def inputs_by_name(inputs: Inputs, *, pixels: bool = False) -> dict[str, Tensor]:
    """What a shipped network takes, by the names that exports give it."""
    if isinstance(inputs, Tensor):
        return {PIXELS if pixels else IMAGES: inputs}
    return dict(inputs)


def called(network: ShippedNetwork, inputs: Mapping[str, Tensor]) -> Tensor:
    """Logits (n_samples, n_classes) of inputs by the names of an export."""
    renamed = {IMAGES if name == PIXELS else name: values for name, values in inputs.items()}
    logits: Tensor = network(**renamed)
    return logits


def logits_in_batches(network: ShippedNetwork, inputs: Mapping[str, Tensor], size: int) -> Tensor:
    """Logits (n_samples, n_classes), computed in batches of a size; the last one is filled up.

    A network with a fixed batch size takes no smaller batch.
    """
    n = len(next(iter(inputs.values())))
    found = []
    with torch.no_grad():
        for start in range(0, n, size):
            rows = torch.arange(start, start + size).clamp(max=n - 1)
            found.append(called(network, {k: v[rows] for k, v in inputs.items()}).float())
    return torch.cat(found)[:n]
