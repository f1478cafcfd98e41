"""Inputs: whether a network takes the images as they are prepared, or grey ones, or of a size."""

from __future__ import annotations

import warnings
from itertools import islice

import torch
from torch import nn

from penult.data.inputs import first
from penult.data.open import ImageData
from penult.data.source import ImageSource, Pass, examples
from penult.data.transform import Transform
from penult.errors import InputError
from penult.network.calling import device_of
from penult.network.libraries import grey
from penult.network.state import runnable_example
from penult.network.watch import DoesNotRun, run_hooked

FEW = 4


def fitted_transform(
    model: nn.Module, images: ImageData, transform: Transform, *, fixed: bool = False
) -> tuple[Transform, bool]:
    """The transform if the network runs on what it gives, else the same for grey images.

    Args:
        model: the network, on its device.
        images: the first of them are tried.
        transform: as far as it is known.
        fixed: whether the user said how many channels there are.

    Returns:
        The transform, and whether the network runs on one image at a time only.

    Raises:
        InputError: the network runs on neither; names a size on which it does.
    """
    error = _error(model, images, transform)
    if error is None:
        return transform, False
    if transform.channels == 3 and not fixed:
        other = grey(transform)
        if _error(model, images, other) is None:
            mean, std = other.mean[0], other.std[0]
            warnings.warn(
                f"the network takes grey images: they are converted, with mean {mean:.4g} and std "
                f"{std:.4g} (--mean, --std)",
                stacklevel=2,
            )
            return other, False
    if _error(model, images, transform, alone=True) is None:
        warnings.warn("the network takes one image at a time: --batch-size is 1", stacklevel=2)
        return transform, True
    example = runnable_example(model, torch.float32)
    if example is None:
        raise error
    channels, side, width = example.shape[1:]
    remedy = f"give --size {side}"
    if channels != transform.channels:
        numbers = ",".join(["0"] * channels), ",".join(["1"] * channels)
        remedy += f" --mean {numbers[0]} --std {numbers[1]}, or the values of its training"
    raise InputError(f"{error}; it does on {channels} × {side} × {width}: {remedy}") from error


def _error(
    model: nn.Module, images: ImageData, transform: Transform, *, alone: bool = False
) -> DoesNotRun | None:
    """What the network says of the first images; None where it runs."""
    device = device_of(model)
    source = ImageSource(images, transform, Pass(batch_size=FEW))
    for inputs in islice(examples(source, device), 1):
        try:
            run_hooked(model, first(inputs, 1) if alone else inputs, {})
        except DoesNotRun as error:
            return error
    return None
