"""ImageShelf: pictures of a run's samples in any size, read from its data when asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict

from penult.data.open import ImageData, ImageFaultError, read
from penult.data.transform import Transform
from penult.errors import InputError
from penult.explain.thumbnails import picture_of
from penult.live.samples import PartSamples, SampleTable
from penult.runs.reopen import Places, images_of
from penult.runs.run import Run
from penult.text import one_line

KEPT_BYTES = 1 << 26
LEAST_SIDE, USUAL_SIDE, MOST_SIDE = 16, 112, 1024
LONGEST_TEXT = 240
SOURCES = {"train": "data", "eval": "evaluation"}


class ImageShelf:
    """Pictures of a run's samples as the network sees them, those asked for last kept.

    Args:
        run: a finished run.
        table: its samples.
        places: where its data are now.
    """

    def __init__(self, run: Run, table: SampleTable, places: Places) -> None:
        self._run, self._table, self._places = run, table, places
        self._lock = threading.Lock()
        # An archive is one file, which two threads must not read at once.
        self._reading = threading.Lock()
        self._data: dict[str, tuple[ImageData | None, dict[str, int]]] = {}
        self._kept: OrderedDict[tuple[str, int, int], bytes] = OrderedDict()
        self._size = 0

    def picture(self, part: str, n: int, side: int = USUAL_SIDE) -> bytes:
        """A picture, WebP or PNG, of at most so many pixels a side.

        Raises:
            InputError: no such sample, or its image is gone or can no longer be read.
        """
        key = part, n, max(LEAST_SIDE, min(side, MOST_SIDE))
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        data, index = self._found(self._table.part(part), n)
        transform = Transform.from_json(self._run.about["transform"])
        try:
            with self._reading:
                values = read(data, transform, index).values
            made = picture_of(values, side=key[2])
        except ImageFaultError as error:
            raise InputError(f"the image can no longer be read: {error}") from error
        with self._lock:
            self._keep(key, made)
        return made

    def text(self, part: str, n: int) -> str:
        """The beginning of a text, "" where it is gone."""
        try:
            data, index = self._found(self._table.part(part), n)
            with self._reading:
                found = data.load(index)
        except (InputError, ImageFaultError):
            return ""
        return one_line(" ".join(found.split()), LONGEST_TEXT) if isinstance(found, str) else ""

    def _keep(self, key: tuple[str, int, int], made: bytes) -> None:
        if key not in self._kept:
            self._kept[key] = made
            self._size += len(made)
        while self._size > KEPT_BYTES:
            self._size -= len(self._kept.popitem(last=False)[1])

    def _found(self, part: PartSamples, n: int) -> tuple[ImageData, int]:
        """The data that hold a sample, and its place in them.

        Raises:
            InputError: the run has no images; the sample is gone.
        """
        if "transform" not in self._run.about:
            raise InputError("the run was made from features: there are no images to show")
        if not 0 <= n < part.n_samples:
            raise InputError(f"{part.part} has {part.n_samples:,} samples, found number {n}")
        with self._lock:
            if part.part not in self._data:
                data = images_of(self._run, SOURCES[part.part], self._places)
                names = {} if data is None else {data.id(i): i for i in range(len(data))}
                self._data[part.part] = data, names
            data, names = self._data[part.part]
        index = names.get(part.name(n))
        if data is None or index is None:
            raise InputError(f"{one_line(part.name(n), 80)} is no longer where the run found it")
        return data, index
