"""Content: samples that are the same under other names, by their pixels or their text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from PIL import Image

from penult.data.image import ImageFaultError, Loaded, digest_of
from penult.diff.side import Side
from penult.progress import Progress
from penult.runs.reopen import images_of


def by_content(
    old: Side,
    new: Side,
    left: tuple[Sequence[int], Sequence[int]],
    progress: Progress | None = None,
) -> list[tuple[int, int]]:
    """Pairs of samples with the same pixels or text, (row of the old side, row of the new side).

    What is there twice on one side is left out, since nobody can say which of the two is meant.

    Args:
        old, new: the sides.
        left: the rows of each that no name has matched.
        progress: called with (images read, images in all).

    Returns:
        No pairs where the images of a side cannot be opened any more, or were never there.
    """
    n = len(left[0]) + len(left[1])
    if not all(left):
        return []
    found: list[dict[str, int]] = []
    done = 0
    for side, rows in zip((old, new), left, strict=True):
        part = "evaluation" if side.run.has_evaluation else "data"
        about = side.run.about.get(part)
        if not isinstance(about, dict) or about.get("kind") == "features":
            return []
        images = images_of(side.run, part)
        if images is None:
            return []
        names = side.features.ids()
        places = {images.id(i): i for i in range(len(images))}
        digests: dict[str, int] = {}
        counts: Counter[str] = Counter()
        for row in rows:
            place = places.get(names[row])
            if place is not None:
                try:
                    digest = _digest(images.load(place))
                except ImageFaultError:
                    continue
                counts[digest] += 1
                digests[digest] = row
            done += 1
            if progress is not None:
                progress(done, n)
        found.append({digest: row for digest, row in digests.items() if counts[digest] == 1})
    first, second = found
    return [(row, second[digest]) for digest, row in first.items() if digest in second]


def _digest(loaded: Loaded) -> str:
    if isinstance(loaded, str):
        return digest_of(loaded.encode())
    if isinstance(loaded, Image.Image):
        return digest_of(f"{loaded.mode} {loaded.size}".encode(), loaded.tobytes())
    values = np.asarray(loaded)
    return digest_of(f"{values.dtype} {values.shape}".encode(), values.tobytes())
