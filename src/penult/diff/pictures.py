"""Pictures of a comparison: the images that flip and those that features look at, of each side."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.diff.compare import TwoSides
from penult.diff.side import ROWS, Side
from penult.explain.gallery import MISSING, Gallery, PictureOptions
from penult.explain.survey import ShownSample
from penult.explain.taking import take_pictures
from penult.explain.toplists import Entry
from penult.report.album import Album, Shots
from penult.runs.groups import evaluated_part

CLASSES = 20  # whose evidence changed, with pictures
FEATURES = 6  # of each
IMAGES = 4  # of each feature, in the class and elsewhere
FLIPS = 30  # of each kind, with pictures

Map = list[list[float]] | None
Maps = dict[int, tuple[Map, Map]]
"""By number of the shared sample the old network's map and the new one's."""

Pair = tuple[int, int]
"""A class and a feature of one side."""


@dataclass(frozen=True, eq=False)
class SideShots:
    """What the page shows of one side.

    Attributes:
        part: of the run, whose samples are shown.
        gallery: pictures and maps as they were taken.
        shots: the same as the page holds them.
        images: all of them, in the order of their numbers.
        note: how the maps were made, or why there are none.
        n_missing: images that could not be read.
        mapped: whether there are maps.
    """

    part: str
    gallery: Gallery
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
        return cls(part, gallery, shots, [*shots.images()], gallery.note, n_missing, mapped)

    def map(self, row: int, feature: int) -> list[list[float]] | None:
        """Heat map of a feature on a sample, as parts of its strongest place; None without."""
        values = self.gallery.map((self.part, row), feature)
        if values is None:
            return None
        found: list[list[float]] = (values / values.abs().max().clamp_min(1e-30)).tolist()
        return found


def take_shots(compared: TwoSides, options: PictureOptions) -> dict[str, SideShots]:
    """The pictures and maps of both sides, by "old" and "new"; warns of images that are gone."""
    sides = {which: SideShots.of(compared, which, options) for which in ("old", "new")}
    n_missing = sum(side.n_missing for side in sides.values())
    if n_missing:
        n = sum(len(side.images) for side in sides.values())
        warnings.warn(
            f"{n_missing:,} of {n:,} images are gone or can no longer be read: compare in the "
            "folder in which the runs were made, or where their paths hold",
            stacklevel=2,
        )
    return sides


def flip_maps(compared: TwoSides, sides: Mapping[str, SideShots]) -> Maps:
    """Heat maps of the first feature behind each flip that the page shows, by sample."""
    place = {int(row): i for i, row in enumerate(compared.shared.new_rows)}
    found: Maps = {}
    for flip in flips_of(compared.document):
        for feature in flip["features"][:1]:
            old, new = (
                None
                if feature[which] is None
                else sides[which].map(flip[f"row_{which}"], feature[which])
                for which in ("old", "new")
            )
            found[place[flip["row_new"]]] = old, new
    return found


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
