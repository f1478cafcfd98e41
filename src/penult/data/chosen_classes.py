"""Some classes of the network alone: which, and the images of these."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penult.data.class_list import class_list
from penult.data.classes import ClassPlaces
from penult.data.image import UNLABELLED, ImageData, ImageFaultError, Label, Loaded
from penult.data.some_images import SomeImages
from penult.errors import InputError
from penult.text import some

PRESENT = "present"


def chosen_classes(asked: str, places: ClassPlaces, *data: ImageData | None) -> tuple[int, ...]:
    """The classes of `--classes`, in the order of the logits.

    Args:
        asked: `present` for those that have images, names or numbers between commas, or a file of
            names.
        places: the network's classes.
        data: the images, aligned.

    Raises:
        InputError: an unknown class, fewer than two, or `present` where labels are not known.
    """
    if asked == PRESENT:
        found = set().union(*(_present(images) for images in data if images is not None))
    else:
        found = set(map(places.require, _names_in(asked)))
    if len(found) < 2:
        raise InputError(f"--classes {asked}: expected two classes at least, found {len(found)}")
    return tuple(sorted(found))


class ClassImages(SomeImages):
    """The images of some classes, which are counted anew from 0.

    Where samples can have several, all of them stay, and are asked about these classes only.

    Args:
        data: the images, aligned with the network.
        kept: which of the network's classes.
        names: of all of the network's classes.
    """

    def __init__(self, data: ImageData, kept: Sequence[int], names: Sequence[str]) -> None:
        inside = np.ones(len(data), dtype=bool)
        if data.labels is not None and not data.multi_label:
            inside = np.isin(data.labels, kept)
        super().__init__(data, np.flatnonzero(inside))
        self._names = names
        self._numbers = {number: i for i, number in enumerate(kept)}
        self._kept = list(kept)
        self.named_by_folders = False
        self.class_names = tuple(names[i] for i in kept) if data.labelled else None
        if self.labels is not None:
            several = data.multi_label
            own = self.labels[:, self._kept] if several else np.searchsorted(kept, self.labels)
            self.labels = own if several else own.astype(np.int64)
        n_left = len(data) - len(self)
        left_out = f"{n_left:,} images of other classes than --classes are left out"
        self.notes = (*data.notes, *([left_out] if n_left else []))
        if not len(self):
            raise InputError(f"no image is of the classes {some(list(self.class_names or ()))}")

    def sample(self, index: int) -> tuple[Loaded, Label]:
        """The image of a sample and its label among these classes."""
        image, label = super().sample(index)
        if isinstance(label, np.ndarray):
            return image, label[self._kept]
        if label == UNLABELLED:
            return image, label
        if label not in self._numbers:
            name = self._names[label] if label < len(self._names) else label
            raise ImageFaultError(self.id(index), f"is of the class {name}, not among --classes")
        return image, self._numbers[label]

    def describe(self) -> dict[str, Any]:
        """What the data say, with the numbers of these classes."""
        return {**super().describe(), "n_classes": len(self._numbers)}


def _present(images: ImageData) -> set[int]:
    if images.labels is None:
        raise InputError(
            "--classes present needs images whose labels are known: folders of classes, or a data "
            "set with a list `targets`; or name the classes: --classes A,B"
        )
    if images.multi_label:
        return set(map(int, np.flatnonzero(images.labels.any(0))))
    return set(map(int, np.unique(images.labels)))


def _names_in(asked: str) -> list[str]:
    if Path(asked).is_file():
        found = class_list(asked)
        return list(found.names or found.renamed)
    return [name.strip() for name in asked.split(",") if name.strip()]
