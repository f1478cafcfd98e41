"""Album: which images the report shows, within a bound on its size."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from penult.explain.gallery import Gallery, Key, Wish
from penult.explain.overlay import standing_out
from penult.explain.survey import ShownSample
from penult.explain.thumbnails import SIDE, coarser
from penult.explain.toplists import Entry

MOST_IMAGES = 7000
MOST_SHOTS = 60_000
IMAGES = 8
LEAST_IMAGES = 3
SIDES = ((600, 112), (2000, 88))  # up to so many images, pixels of a picture's longer side
MISTAKE_SIDES = ((60, 224), (250, 160))
COARSE = 8  # a side of the maps on a page with very many
MANY_SHOTS = 20_000
FULL_COLOUR = 0.99  # the part of all places of a feature's images that is less strong
MOST_PLACES = 1 << 20

Place = tuple[Any, ...]
"""Where on the page a list of images stands."""


def images_each(n_lists: int, asked: int | None) -> int:
    """How many images each list shows: as asked, else fewer where there are many lists."""
    if asked is not None:
        return asked
    return max(LEAST_IMAGES, min(IMAGES, MOST_SHOTS // max(n_lists, 1)))


@dataclass(eq=False)
class Album:
    """Lists of images, each ordered by a feature's values; images of many lists are kept once.

    Attributes:
        lists: place on the page → (part of the run, feature, entries); None for a feature asks
            for the images alone.
        ranks: place on the page → how many images of the most important lists come before the
            first of this list, where there is no room for all; 0 where not named.
        mistakes: samples of the evaluation data, each with the features that are mapped.
    """

    lists: dict[Place, tuple[str, int | None, list[Entry]]] = field(default_factory=dict)
    ranks: dict[Place, int] = field(default_factory=dict)
    mistakes: list[tuple[Key, ShownSample, dict[int, float]]] = field(default_factory=list)
    _granted: dict[Place, list[Entry]] = field(default_factory=dict)

    def granted(self, place: Place) -> list[Entry]:
        """What of a list has room on the page, once `wishes` has found that out."""
        return self._granted.get(place, [])

    def wishes(self, samples: dict[Key, ShownSample]) -> list[Wish]:
        """What pictures to take: the best of the first lists, then the second of these, …"""
        values: dict[Key, dict[int, float]] = {}
        for key, _, mapped in self.mistakes:
            values.setdefault(key, {}).update(mapped)
        n_shots = 0
        self._granted = {}
        turns: dict[int, list[tuple[Place, Entry]]] = {}
        for place, (_, _, entries) in self.lists.items():
            for turn, entry in enumerate(entries, self.ranks.get(place, 0)):
                turns.setdefault(turn, []).append((place, entry))
        for _, shots in sorted(turns.items()):
            for place, entry in shots:
                part, j, _ = self.lists[place]
                key = (part, entry.sample)
                if n_shots < MOST_SHOTS and (key in values or len(values) < MOST_IMAGES):
                    mapped = values.setdefault(key, {})
                    if j is not None:
                        mapped[j] = entry.value
                    self._granted.setdefault(place, []).append(entry)
                    n_shots += 1
        known = {key: sample for key, sample, _ in self.mistakes} | samples
        # Mistakes have their place for sure, but come last where not all maps can be made.
        last = {key for key, _, _ in self.mistakes}
        order = sorted(values, key=lambda key: key in last)
        small = _side(len(values), SIDES)
        large = max(small, _side(len(last), MISTAKE_SIDES))
        return [
            Wish(key, known[key], values[key], large if key in last else small) for key in order
        ]

    def sample_numbers(self, part: str) -> set[int]:
        """Numbers of all samples that may be shown from a part."""
        return {e.sample for p, _, entries in self.lists.values() if p == part for e in entries}


def _side(n: int, sides: Sequence[tuple[int, int]]) -> int:
    """Pixels of each of n pictures: larger ones where they are few."""
    return next((side for most, side in sides if n <= most), SIDE)


class PageImages(Protocol):
    """Images as a page names them: by numbers, with maps where there are any."""

    def of(self, place: Place) -> list[list[Any]]:
        """The images of a list: [number, value, map]."""

    def number(self, key: Key) -> int | None:
        """Number of an image, None where it is not shown."""

    def map(self, key: Key, feature: int) -> str | None:
        """The map of a feature on an image, None without."""


class Shots:
    """Images and maps as a page holds them that needs nothing but itself.

    Args:
        gallery: what was taken.
        album: what was wanted.
    """

    def __init__(self, gallery: Gallery, album: Album) -> None:
        self._gallery = gallery
        self._album = album
        self._index = {key: i for i, key in enumerate(gallery.pictures)}
        self._coarse = sum(len(found) for _, _, found in album.lists.values()) > MANY_SHOTS
        self.grid: list[int] | None = None
        self.signed = False
        self._codes = self._encoded()

    def images(self) -> Iterator[dict[str, Any]]:
        """All images, in the order of their numbers."""
        for picture in self._gallery.pictures.values():
            kind = "png" if picture.data.startswith(b"\x89") else "webp"
            text = base64.b64encode(picture.data).decode()
            yield {
                "id": picture.sample.id,
                "class": picture.sample.label,
                "predicted": picture.sample.predicted,
                "src": f"data:image/{kind};base64,{text}" if picture.data else None,
                **({"text": picture.text} if picture.text else {}),
            }

    def of(self, place: Place) -> list[list[Any]]:
        """The images of a list: [number, value, map]."""
        part, j, _ = self._album.lists[place]
        return [
            [
                self._index[part, e.sample],
                e.value,
                None if j is None else self.map((part, e.sample), j),
            ]
            for e in self._album.granted(place)
            if (part, e.sample) in self._index
        ]

    def number(self, key: Key) -> int | None:
        """Number of an image."""
        return self._index.get(key)

    def map(self, key: Key, feature: int) -> str | None:
        """A map for the page: int8 in base64, 127 where it stands out most, see `standing_out`."""
        return self._codes.get((key, feature))

    def _encoded(self) -> dict[tuple[Key, int], str]:
        """All maps, those of a feature on one scale."""
        by_feature: dict[int, dict[Key, Tensor]] = {}
        for key, feature in self._gallery.mapped():
            values = self._gallery.map(key, feature)
            assert values is not None
            by_feature.setdefault(feature, {})[key] = values
        codes: dict[tuple[Key, int], str] = {}
        for feature, found in by_feature.items():
            maps = torch.stack([*found.values()])
            if self._coarse:
                maps = coarser(maps, COARSE)
            self.grid = [maps.shape[1], maps.shape[2]]
            self.signed = self.signed or bool((maps < 0).any())
            texts = encoded_maps(maps, full_colour(maps))
            codes |= {(key, feature): text for key, text in zip(found, texts, strict=True)}
        return codes


def encoded_maps(maps: Tensor, scale: float) -> list[str]:
    """Maps (n, h, w) as pages hold them: int8 in base64, 127 where one stands out most.

    Args:
        maps: of one feature.
        scale: the strength of full colour, see `standing_out`.
    """
    levels = (standing_out(maps, scale) * 127).round().to(torch.int8).contiguous()
    return [base64.b64encode(one.tobytes()).decode() for one in levels.numpy()]


def full_colour(maps: Tensor) -> float:
    """The strength that few places of maps of any shape exceed."""
    strengths = maps.abs().flatten()
    return float(torch.quantile(strengths[:MOST_PLACES], FULL_COLOUR))
