"""Batch dependence: networks whose features of an image change with the images beside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from penult.data.inputs import Inputs, changed, n_samples_of
from penult.network.calling import call_model, evaluating
from penult.network.head import Head
from penult.network.tap import FeatureTap

TOLERANCE = 2e-3  # of the largest feature, far above what the order of sums changes in float32


def batch_dependence(model: nn.Module, head: Head, inputs: Inputs) -> str | None:
    """What to say where a network's features of an image depend on the rest of its batch.

    The first and the last image are looked at twice, beside the others and beside copies of
    themselves; the size of the batch stays the same.

    Args:
        model: the network.
        head: its final linear map.
        inputs: a few different images as the network takes them.

    Returns:
        None where the features are the same, or where a single image tells nothing.
    """
    n = n_samples_of(inputs)
    if n < 2:
        return None
    beside_others = _features(model, head, inputs)
    for i in (0, n - 1):
        copies = changed(inputs, lambda values, i=i: values[[i] * n])  # type: ignore[misc]
        alone = _features(model, head, copies)[i]
        error = (alone - beside_others[i]).abs().max()
        if error > TOLERANCE * beside_others[i].abs().max():
            return (
                f"the network's features of an image depend on the other images of its batch"
                f"{_cause(model)}: what follows holds for these batches only, and no image can be "
                "looked at by itself; give the network the averages of its training "
                "(track_running_stats), or analyse one image at a time with --batch-size 1"
            )
    return None


def _features(model: nn.Module, head: Head, inputs: Inputs) -> Tensor:
    with evaluating(model), FeatureTap(model, head) as tap, torch.no_grad():
        call_model(model, inputs)
        return tap.features.float()


def _cause(model: nn.Module) -> str:
    """The first layer that has no averages of its own, in brackets."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            return f" ({type(module).__name__} {name} has no running statistics)"
    return ""
