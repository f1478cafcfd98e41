"""Inputs: whether a network takes the images as they are prepared, or grey ones, or of a size."""

from __future__ import annotations

import warnings
from itertools import islice

import torch
from torch import nn

from penult.data.inputs import changed, n_samples_of
from penult.data.open import ImageData
from penult.data.source import ImageSource, Pass, examples
from penult.data.transform import Transform
from penult.errors import InputError
from penult.network.calling import device_of
from penult.network.libraries import grey
from penult.network.state import runnable_example
from penult.network.watch import DoesNotRun, run_hooked

FEW = 4
FIXED = (16, 32, 64, 8, 128, 2, 10, 100, 256)  # batches that networks are written for


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
        InputError: the network runs on neither; names a size of images or of batches on which it
            does.
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
    if _error(model, images, transform, 1) is None:
        warnings.warn("the network takes one image at a time: --batch-size is 1", stacklevel=2)
        return transform, True
    _refuse_fixed_batches(model, images, transform)
    example = runnable_example(model, torch.float32)
    if example is None:
        raise error
    channels, side, width = example.shape[1:]
    remedy = f"give --size {side}"
    if channels != transform.channels:
        numbers = ",".join(["0"] * channels), ",".join(["1"] * channels)
        remedy += f" --mean {numbers[0]} --std {numbers[1]}, or the values of its training"
    raise InputError(f"{error}; it does on {channels} × {side} × {width}: {remedy}") from error


def _refuse_fixed_batches(model: nn.Module, images: ImageData, transform: Transform) -> None:
    """Refuse a network that runs on one number of images only, and say how it is mended."""
    size = next((n for n in FIXED if _error(model, images, transform, n) is None), None)
    if size is not None:
        raise InputError(
            f"the network runs on {size} images at once, and not on {FEW} or on one: its forward "
            "seems to have the number written in it; take the number from the input, as "
            "x.flatten(1) and len(x) do, since the last batch of a data set is smaller"
        )


def _error(
    model: nn.Module, images: ImageData, transform: Transform, n: int = FEW
) -> DoesNotRun | None:
    """What the network says of n images, the first ones over again; None where it runs."""
    device = device_of(model)
    source = ImageSource(images, transform, Pass(batch_size=min(n, FEW)))
    for inputs in islice(examples(source, device), 1):
        rows = torch.arange(n if n > FEW else min(n, n_samples_of(inputs))) % n_samples_of(inputs)
        over = changed(inputs, lambda values, rows=rows: values[rows.to(values.device)])  # type: ignore[misc]
        try:
            run_hooked(model, over, {})
        except DoesNotRun as error:
            return error
    return None
