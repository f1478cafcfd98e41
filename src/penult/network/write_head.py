"""Write a head's weights into the layer of a network that it belongs to."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.calling import layer_named
from penult.network.head import Head


def write_head(model: nn.Module, old: Head, new: Head) -> None:
    """Put other weights in the place of those of a network's final layer.

    The network stays what it is, so its weights can be loaded wherever it could be loaded before.

    Args:
        model: the network, changed in place.
        old: its head, as it was found; says which parameters are meant.
        new: of the same size.

    Raises:
        InputError: the layer's parameters are not those of the head, or it has no bias to take the
            new one.
    """
    layer = layer_named(model, old.name)
    own = dict(layer.named_parameters(recurse=False))
    weight = next((p for p in own.values() if _holds(p, old) is not None), None)
    if weight is None:
        raise InputError(
            f"layer {old.name} holds no parameter with the head's weights: put the head in its "
            "place with penult.replace_head"
        )
    rows = slice(None) if old.kept is None else list(old.kept)
    biases = (p for p in own.values() if p.shape == (old.layer_classes,))
    bias = next((p for p in biases if _equal(p[rows], old.bias)), None)
    if bias is None and bool((new.bias != 0).any()):
        raise InputError(
            f"layer {old.name} has no bias, and the new head needs one: put the head in its place "
            "with penult.replace_head"
        )
    with torch.no_grad():
        matrix = weight.reshape(weight.shape[:2]).clone()
        # Of a layer of which only some classes are kept, the others' weights stay.
        (matrix.T if _holds(weight, old) else matrix)[rows] = new.weight.to(matrix)
        weight.copy_(matrix.reshape(weight.shape))
        if bias is not None:
            bias[rows] = new.bias.to(bias)


def _holds(parameter: Tensor, head: Head) -> bool | None:
    """Whether a parameter is a head's weight transposed (True), as it is (False), or not (None)."""
    if parameter.ndim < 2 or parameter.shape[2:].numel() != 1:
        return None
    matrix = parameter.detach().reshape(parameter.shape[:2])
    rows = slice(None) if head.kept is None else list(head.kept)
    for transposed, own in ((False, matrix), (True, matrix.T)):
        if len(own) == head.layer_classes and _equal(own[rows], head.weight):
            return transposed
    return None


def _equal(parameter: Tensor, values: Tensor) -> bool:
    return parameter.shape == values.shape and torch.equal(
        parameter.detach().float().cpu(), values.float()
    )
