"""Images with one class each, taken as those of a multi-label network."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penult.data.image import UNLABELLED, ImageData, ImageFaultError, Label, Loaded
from penult.data.some_images import SomeImages
from penult.errors import InputError


class MultiHotImages(SomeImages):
    """Other data, whose single labels stand for a 1 of their class and a 0 of all others.

    Args:
        data: labelled, with one class per sample.

    Raises:
        InputError: it does not say which classes there are.
    """

    def __init__(self, data: ImageData) -> None:
        super().__init__(data, np.arange(len(data)))
        self.multi_label = True
        labels = data.labels
        n_known = 0 if labels is None else 1 + int(labels.max(initial=-1))
        self._n_classes = len(self.class_names) if self.class_names is not None else n_known
        if not self._n_classes:
            raise InputError(
                "--multi-label needs the number of classes: give the data set an attribute "
                "`classes`, the names in the order of their numbers"
            )
        self.labels = None if labels is None else self._rows(labels)
        self.fingerprint = f"{data.fingerprint} multi-label"
        self.notes = (*data.notes, "each sample's one class is taken as one of several possible")

    def sample(self, index: int) -> tuple[Loaded, Label]:
        """The image of a sample and its row of classes."""
        if self.labels is not None:
            return self.load(index), self.labels[index]
        image, label = super().sample(index)
        if label == UNLABELLED:
            return image, label
        if not 0 <= int(label) < self._n_classes:
            raise ImageFaultError(self.id(index), f"has the label {label}")
        return image, self._rows(np.array([label]))[0]

    def describe(self) -> dict[str, Any]:
        """What the data say, and that they are taken as multi-label."""
        about = super().describe()
        return {**about, "options": {**about.get("options", {}), "multi_label": True}}

    def align(self, place: NDArray[np.int64], names: tuple[str, ...]) -> None:
        """Count the classes as the network does."""
        self._data.align(place, names)
        super().align(place, names)
        self._n_classes = len(names)

    def _rows(self, labels: NDArray[Any]) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = labels[:, None] == np.arange(self._n_classes)
        return found


def alike(data: ImageData, other: ImageData | None) -> tuple[ImageData, ImageData | None]:
    """Both multi-label where one of them is."""
    if other is None or not (data.labelled and other.labelled):
        return data, other
    if data.multi_label and not other.multi_label:
        return data, MultiHotImages(other)
    if other.multi_label and not data.multi_label:
        return MultiHotImages(data), other
    return data, other
