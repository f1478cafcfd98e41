"""Images held in one array."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from penult.data.image import ImageData, Loaded, described_as, digest_of
from penult.data.labels import labels_of
from penult.data.multi_hot import several_notes
from penult.errors import InputError

CHANNELS = (1, 3, 4)


class ArrayImages(ImageData):
    """Images held in one array: uint8, or a float tensor that is ready for the network.

    Args:
        images: (n_samples, height, width) uint8, or (n_samples, height, width, channels), or
            (n_samples, channels, height, width); where both fit, an array has its channels last
            and a tensor first. Float (n_samples, channels, height, width) goes to the network as
            it is.
        labels: (n_samples,) of any kind that `labels_of` takes; None where unlabelled.
        class_names: the classes' names, if known.
        ids: the samples' names; by default their numbers.
        kind: what `describe` calls it.
        spec: the `file.py:function` that returned them, by which they are opened again.
        multi_label: whether samples may have several labels; None to tell by the labels.

    Raises:
        InputError: shapes or dtypes do not fit, or a label is out of range.
    """

    def __init__(
        self,
        images: NDArray[Any] | Tensor,
        labels: Any = None,
        class_names: tuple[str, ...] | None = None,
        ids: list[str] | None = None,
        kind: str = "arrays",
        spec: str | None = None,
        multi_label: bool | None = None,
    ) -> None:
        images = _ready(images)
        self._spec = spec
        self.kind = kind
        self.class_names = class_names
        self.labelled = labels is not None
        self.labels = None
        if labels is not None:
            found = labels_of(labels, len(images), class_names, multi_label)
            self.labels, self.class_names = found
            self.multi_label = self.labels.ndim == 2
            self.notes = several_notes(self.labels)
        self._said = multi_label
        self._images = images
        self._ids = ids
        values = images.cpu().contiguous().numpy() if isinstance(images, Tensor) else images
        self.fingerprint = digest_of(
            f"{values.dtype} {values.shape}".encode(),
            np.ascontiguousarray(values).tobytes(),
            b"" if self.labels is None else self.labels.tobytes(),
        )

    def __len__(self) -> int:
        return len(self._images)

    def id(self, index: int) -> str:
        """The sample's name, or its number."""
        return str(index) if self._ids is None else self._ids[index]

    def load(self, index: int) -> Loaded:
        """One image of the array."""
        return self._images[index]

    def describe(self) -> dict[str, Any]:
        """Kind, where it comes from if known, numbers and fingerprint."""
        found = described_as(self.kind, self)
        if self._said is not None:
            found["options"] = {"multi_label": self._said}
        return found if self._spec is None else {**found, "source": self._spec}


def channels_last(image: NDArray[Any], first: bool) -> NDArray[Any] | None:
    """An image as (height, width) or (height, width, channels).

    Args:
        image: (height, width), or with channels first or last.
        first: where the channels are if both can be.

    Returns:
        None where neither can be.
    """
    if image.ndim == 2:
        return image
    if image.ndim != 3:
        return None
    fits = {True: image.shape[0] in CHANNELS, False: image.shape[2] in CHANNELS}
    if not any(fits.values()):
        return None
    first = first if fits[first] else not first
    return np.moveaxis(image, 0, -1) if first else image


def _ready(images: NDArray[Any] | Tensor) -> NDArray[np.uint8] | Tensor:
    """The images as they are, checked; a float array becomes a tensor."""
    shape, dtype = tuple(images.shape), str(images.dtype).removeprefix("torch.")
    if shape and shape[0] == 0:
        raise InputError(f"images have the shape {shape}: there are no samples")
    if dtype == "uint8" and len(shape) in (3, 4):
        example = np.asarray(images[0].cpu() if isinstance(images, Tensor) else images[0])
        if channels_last(example, first=isinstance(images, Tensor)) is not None:
            return images
    elif isinstance(images, Tensor):
        if images.is_floating_point() and len(shape) == 4:
            return images
    elif dtype.startswith("float") and len(shape) == 4 and shape[1] in CHANNELS:
        return torch.from_numpy(np.array(images))
    raise InputError(
        f"images are {dtype} of shape {shape}, expected uint8 (n_samples, height, width, "
        "channels), or a float tensor (n_samples, channels, height, width)"
    )
