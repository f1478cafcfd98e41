"""Given: features, labels and heads as users have them, made into tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penult.data.labels import labels_of
from penult.errors import InputError
from penult.features.shards import Block, require_one_each
from penult.text import some

COARSE = 64  # float32's steps in a feature's standard deviation, below which it is said


def block_as_given(
    features: Any,
    labels: Any,
    class_names: Sequence[str] | None,
    ids: Sequence[Any] | None,
    multi_label: bool | None,
) -> tuple[Block, Sequence[str] | None]:
    """All samples as one block, and the classes' names where known; see `Features.of`."""
    try:
        z = tensor_of(features)
        y, class_names = labels_as_given(labels, len(z), class_names, multi_label)
    except (TypeError, ValueError) as error:
        kind = InputError(f"expected arrays of numbers: {error}")
        raise error if isinstance(error, InputError) else kind from error
    if z.ndim != 2 or not z.dtype.is_floating_point:
        raise InputError(
            "expected floating-point features of shape (n_samples, n_features), found "
            f"{z.dtype} of shape {tuple(z.shape)}"
        )
    several = y.ndim == 2
    if not several and (
        y.dtype.is_floating_point or y.dtype == torch.bool or y.shape != z.shape[:1]
    ):
        raise InputError(
            f"expected integer labels of shape ({len(z)},), found {y.dtype} of shape "
            f"{tuple(y.shape)}"
        )
    names = [] if ids is None else [str(name) for name in ids]
    if ids is not None:
        require_one_each("the features", names, len(z))
    y = y.to("cpu", torch.bool if several else torch.int64)
    return Block(in_float32(z), y, None, names), class_names


def check_labels(where: str, labels: Tensor, n_classes: int | None) -> None:
    """Refuse labels that are none of the classes.

    Args:
        where: what holds them, for messages.
        labels: (n_samples,) int64, or multi-hot.
        n_classes: None where unknown.
    """
    if labels.ndim == 2:
        if n_classes not in (None, labels.shape[1]):
            raise InputError(
                f"{where}: multi-hot labels of {labels.shape[1]} classes, expected {n_classes}"
            )
        return
    bad = labels < 0 if n_classes is None else (labels < 0) | (labels >= n_classes)
    if bool(bad.any()):
        i = int(bad.nonzero()[0, 0])
        bound = "[0, n_classes)" if n_classes is None else f"[0, {n_classes})"
        raise InputError(
            f"{where}: labels must lie in {bound}, found {int(labels[i])} at sample {i}"
        )


def in_float32(z: Tensor) -> Tensor:
    """Features (n_samples, n_features) as they are computed with; warns where much is lost.

    Raises:
        InputError: a value that is beyond float32.
    """
    found = z.to("cpu", torch.float32)
    if z.dtype != torch.float64 or len(z) < 2:
        return found
    size = z.detach().abs().amax(0).cpu()
    beyond = (size > torch.finfo(torch.float32).max) & size.isfinite()
    if bool(beyond.any()):
        j = int(beyond.nonzero()[0, 0])
        raise InputError(
            f"feature {j} reaches {float(size[j]):.3g}, more than float32 holds (3.4e38): scale "
            "the features down"
        )
    spread, step = z.detach().std(0).cpu(), size * torch.finfo(torch.float32).eps
    coarse = ((spread > 0) & (step > spread / COARSE)).nonzero()[:, 0].tolist()
    if coarse:
        warnings.warn(
            f"features are computed with in float32, which rounds feature {coarse[0]} to steps of "
            f"{float(step[coarse[0]]):.2g} where it varies by {float(spread[coarse[0]]):.2g}"
            f"{f' ({len(coarse)} features are like that)' if len(coarse) > 1 else ''}: subtract "
            "the features' means first",
            stacklevel=4,
        )
    return found


def tensor_of(values: Any) -> Tensor:
    """A tensor of an array, a table or a list; torch warns of arrays that are read-only."""
    if isinstance(values, Tensor):
        return values.detach()
    if np.ma.is_masked(values):
        raise InputError(
            "expected numbers, found a masked array: leave the masked samples out, or fill them"
        )
    array = np.asarray(values)
    # torch takes neither of these orders of bytes and memory.
    usual = array.dtype.isnative and min(array.strides, default=0) >= 0
    array = array if usual else array.astype(array.dtype.newbyteorder("="), order="C")
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def labels_as_given(
    labels: Any, n_samples: int, class_names: Sequence[str] | None, multi_label: bool | None
) -> tuple[Tensor, Sequence[str] | None]:
    """Labels as a tensor, (n_samples,) or multi-hot bool, and the classes' names where known."""
    if isinstance(labels, Tensor):
        if labels.ndim < 2 and not multi_label:
            return labels.detach(), class_names
    else:
        array = _array(labels)
        if not (multi_label or array.ndim == 2 or array.dtype.kind in "OUT") or not len(array):
            return tensor_of(array), class_names
        labels = labels if array.ndim == 2 else list(array)
    found, class_names = labels_of(labels, n_samples, class_names, multi_label)
    return torch.from_numpy(found), class_names


def _array(labels: Any) -> np.ndarray[Any, Any]:
    """Labels as an array, of objects where they are lists of different lengths."""
    try:
        return np.asarray(labels)
    except ValueError:
        made = np.empty(len(labels), dtype=object)
        made[:] = labels
        return made


def belonging(labels: Tensor, c: int) -> Tensor:
    """Which samples have class c, (n_samples,) bool, by labels (n_samples,) or multi-hot ones."""
    return labels[:, c] if labels.ndim == 2 else labels == c


def multi_hot(labels: Tensor, n_classes: int) -> Tensor:
    """Labels (n_samples,) as (n_samples, n_classes) bool."""
    return torch.nn.functional.one_hot(labels, n_classes).bool()


def class_places(names: Sequence[str] | None, known: Sequence[str] | None) -> Tensor | None:
    """Place of each class among those that are known; None where nothing is to be put in order.

    Raises:
        InputError: a class that is unknown.
    """
    if names is None or known is None or tuple(names) == tuple(known):
        return None
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(
            f"the features for evaluation have classes that the features do not include: "
            f"{some(unknown)}"
        )
    position = {name: i for i, name in enumerate(known)}
    return torch.tensor([position[name] for name in names])
