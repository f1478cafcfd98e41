"""A part of the data: at most so many samples."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset

from penult.data.image import ImageData
from penult.data.some_images import SomeImages
from penult.errors import InputError


class LimitedImages(SomeImages):
    """Some samples of other data, spread evenly over their order.

    Args:
        data: the samples.
        limit: how many at most, fewer than there are.
    """

    def __init__(self, data: ImageData, limit: int) -> None:
        super().__init__(data, np.unique(np.linspace(0, len(data) - 1, limit).astype(int)))
        self._limit = limit
        self.fingerprint = f"{data.fingerprint} limit {limit}"
        part = f"{len(self):,} of {len(data):,} samples are taken, spread evenly (--limit {limit})"
        self.notes = (*data.notes, part)

    def describe(self) -> dict[str, Any]:
        """What the data say, with the number of these samples."""
        about = super().describe()
        return {**about, "options": {**about.get("options", {}), "limit": self._limit}}

    def align(self, place: NDArray[np.int64], names: tuple[str, ...]) -> None:
        """Count the classes as the network does."""
        self._data.align(place, names)
        super().align(place, names)


def is_stream(found: Any) -> bool:
    """Whether something gives samples one after the other, and has no length."""
    if isinstance(found, IterableDataset):
        return True
    gives = hasattr(found, "__iter__") and not hasattr(found, "__len__")
    return gives and not isinstance(found, str | bytes | type | DataLoader)


class FirstSamples(list[Any]):
    """The first samples of a stream, with what the stream says of its classes.

    Args:
        samples: in their order.
        stream: where they come from.
    """

    def __init__(self, samples: Iterable[Any], stream: Any) -> None:
        super().__init__(samples)
        self.classes = getattr(stream, "classes", None)
        self.features = getattr(stream, "features", None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _first_samples, (list(self), self.classes, self.features)


def _first_samples(samples: list[Any], classes: Any, features: Any) -> FirstSamples:
    return FirstSamples(samples, SimpleNamespace(classes=classes, features=features))


def first_of(stream: Iterable[Any], limit: int | None, what: str) -> FirstSamples:
    """The first samples of a stream, kept in memory as they come.

    Raises:
        InputError: no limit is given, or the stream is empty.
    """
    if limit is None:
        raise InputError(
            f"{what} streams its samples and does not say how many there are: say how many to take "
            "with --limit, such as --limit 10000"
        )
    found = FirstSamples(islice(iter(stream), limit), stream)
    if not found:
        raise InputError(f"{what} is empty: it has no samples")
    return found


def limited(data: ImageData, limit: int | None) -> ImageData:
    """The data, or fewer of them."""
    return data if limit is None or limit >= len(data) else LimitedImages(data, limit)
