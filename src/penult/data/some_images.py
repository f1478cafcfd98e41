"""SomeImages: some samples of other data, in an order of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from penult.data.image import ImageData, Label, Loaded


class SomeImages(ImageData):
    """Some samples of other data: those that stay under a limit, or are of some classes.

    What makes a choice of its own is a subclass, which says what of labels, notes and fingerprint
    is not that of the other data.

    Args:
        data: the samples.
        positions: (n_samples,) int64, which of them, in the order in which they come.
    """

    def __init__(self, data: ImageData, positions: NDArray[np.int64]) -> None:
        self._data = data
        self._positions = positions
        self.named_by_folders = data.named_by_folders
        self.labelled = data.labelled
        self.multi_label = data.multi_label
        self.class_names = data.class_names
        self.labels = None if data.labels is None else data.labels[positions]
        self.fingerprint = data.fingerprint
        self.notes = data.notes

    def __len__(self) -> int:
        return len(self._positions)

    def id(self, index: int) -> str:
        """The sample's name."""
        return self._data.id(int(self._positions[index]))

    def load(self, index: int) -> Loaded:
        """The sample's image."""
        return self._data.load(int(self._positions[index]))

    def sample(self, index: int) -> tuple[Loaded, Label]:
        """The image of a sample and its label."""
        return self._data.sample(int(self._positions[index]))

    def column(self, name: str) -> list[Any]:
        """What a column of the table that lists the samples holds for each of them."""
        found = self._data.column(name)
        return [found[position] for position in self._positions.tolist()]

    def describe(self) -> dict[str, Any]:
        """What the data say, with the number of these samples and what is to be known of them."""
        own = {"n_samples": len(self), "notes": list(self.notes), "fingerprint": self.fingerprint}
        return {**self._data.describe(), **own}
