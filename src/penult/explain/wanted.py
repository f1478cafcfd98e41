"""Wanted: which features' maps are asked for, and the images that they are asked of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from torch import Tensor

from penult.errors import InputError
from penult.network.calling import kind_of

Wanted = Sequence[Sequence[int]]


def check_wanted(inputs: Tensor, wanted: Wanted, n_features: int) -> None:
    """Check that `wanted` names, for each of the inputs, features that there are.

    Raises:
        InputError: it does not, or the inputs are no batch of images.
    """
    check_images(inputs)
    if len(wanted) != len(inputs):
        raise InputError(
            f"expected wanted features for each of {len(inputs)} inputs, found them for "
            f"{len(wanted)}"
        )
    for j in chain.from_iterable(wanted):
        if not 0 <= j < n_features:
            raise InputError(f"expected wanted features from 0 to {n_features - 1}, found {j}")


def check_images(inputs: Tensor) -> None:
    """Check that inputs are a batch of images.

    Raises:
        InputError: they are not floating (n_samples, channels, height, width), or none.
    """
    if inputs.ndim != 4 or not inputs.is_floating_point() or not inputs.numel():
        raise InputError(
            "expected floating images (n_samples, channels, height, width), found "
            f"{kind_of(inputs)}"
        )
