"""Pictures of a comparison: the images that flip and those that features look at, of each side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.diff.compare import TwoSides
from penult.diff.side import ROWS, Side
from penult.explain.gallery import MISSING, PictureOptions
from penult.explain.survey import ShownSample
from penult.explain.taking import take_pictures
from penult.explain.toplists import Entry
from penult.report.album import Album, Shots
from penult.runs.groups import evaluated_part

CLASSES = 20  # whose evidence changed, with pictures
FEATURES = 6  # of each
IMAGES = 4  # of each feature, in the class and elsewhere
FLIPS = 30  # of each kind, with pictures

Pair = tuple[int, int]
"""A class and a feature of one side."""


@dataclass(frozen=True, eq=False)
class SideShots:
    """What the page shows of one side.

    Attributes:
        part: of the run, whose samples are shown.
        shots: pictures and maps.
        images: all of them, in the order of their numbers.
        note: how the maps were made, or why there are none.
        n_missing: images that could not be read.
        mapped: whether there are maps.
    """

    part: str
    shots: Shots
    images: list[dict[str, Any]]
    note: str
    n_missing: int
    mapped: bool

    @classmethod
    def of(cls, compared: TwoSides, which: str, options: PictureOptions) -> SideShots:
        """Take the pictures of a side.

        Args:
            compared: both sides.
            which: "old" or "new".
            options: how they are taken; nothing is written into the run.
        """
        side: Side = getattr(compared, which)
        rows: Tensor = getattr(compared.shared, f"{which}_rows")
        part, names = evaluated_part(side.run), side.features.ids()
        shared = compared.shared
        called = getattr(shared, which)
        place = {row: i for i, row in enumerate(rows.tolist())}

        def sample(row: int) -> ShownSample:
            i = place[row]
            return ShownSample(row, names[row], int(shared.labels[i]), int(called[i]))

        album = Album()
        samples: dict[tuple[str, int], ShownSample] = {}
        strongest = _strongest(side, rows, shared.labels, pairs_of(compared, which))
        for (c, j), lists in strongest.items():
            for where, entries in lists.items():
                album.lists[c, j, where] = part, j, entries
                samples |= {(part, e.sample): sample(e.sample) for e in entries}
        for flip in flips_of(compared.document):
            row = flip[f"row_{which}"]
            behind = [one[which] for one in flip["features"] if one[which] is not None]
            values = side.rows(torch.tensor([row]))[0]
            chosen = {j: float(values[j]) for j in behind}
            album.mistakes.append(((part, row), sample(row), chosen))
        gallery = take_pictures(side.run, album.wishes(samples), options)
        shots = Shots(gallery, album)
        n_missing, mapped = gallery.count(MISSING), bool(gallery.mapped())
        return cls(part, shots, [*shots.images()], gallery.note, n_missing, mapped)


def flips_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The flips that the page shows."""
    found = document["flips"]
    return [row for kind in ("negative", "positive") for row in found[kind]["samples"][:FLIPS]]


def evidence_of(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes whose evidence the page shows, each with the features that changed most."""
    return [
        {**row, "features": row["features"][:FEATURES]}
        for row in document["evidence"]["classes"][:CLASSES]
    ]


def pairs_of(compared: TwoSides, which: str) -> list[Pair]:
    """Classes and features of one side whose images are shown."""
    place = {name: c for c, name in enumerate(compared.shared.class_names)}
    return [
        (place[row["class"]], feature[which])
        for row in evidence_of(compared.document)
        for feature in row["features"]
        if feature[which] is not None
    ]


def _strongest(
    side: Side, rows: Tensor, labels: Tensor, pairs: Sequence[Pair]
) -> dict[Pair, dict[str, list[Entry]]]:
    """The samples on which features are largest: in their class "own", and elsewhere "others"."""
    features = sorted({j for _, j in pairs})
    if not features:
        return {}
    steps = range(0, len(rows), ROWS)
    z = torch.cat([side.rows(rows[start : start + ROWS])[:, features] for start in steps])
    low = z.amin(0)
    found = {}
    for c, j in dict.fromkeys(pairs):
        place = features.index(j)
        x, lists = z[:, place], {}
        for where, among in (("own", labels == c), ("others", labels != c)):
            # As low as it gets, it sees nothing.
            numbers = (among & (x > low[place])).nonzero()[:, 0]
            order = numbers[x[numbers].argsort(descending=True, stable=True)[:IMAGES]]
            lists[where] = [Entry(int(rows[i]), float(x[i])) for i in order.tolist()]
        found[c, j] = lists
    return found
