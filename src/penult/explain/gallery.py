"""Gallery: small pictures of some of a run's images, with heat maps of some of their features."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penult.data.image import read_file
from penult.errors import InputError
from penult.explain.survey import ShownSample
from penult.explain.thumbnails import SIDE
from penult.progress import Progress
from penult.runs.reopen import Places
from penult.storage import read_json, read_tensors, write_folder, write_json, write_tensors

FORMAT = "penult-examples/1"
MAPS_FORMAT = "penult-maps/1"
TOLERANCE = 0.02  # of the largest feature: half-precision runs round as coarsely


THERE, MISSING, CHANGED = "there", "missing", "changed"

Key = tuple[str, int]
"""Part of the run ("train" or "eval") and number of the sample in it."""


@dataclass(frozen=True)
class Picture:
    """One image of the gallery.

    Attributes:
        sample: what it shows.
        state: "there"; "missing" (with `file` empty); or "changed": the network sees something
            else in it than when it was analysed, so that it has no heat maps.
        data: the small picture, WebP or PNG; empty where missing, and of a text.
        side: of its wish, see `Wish`.
        text: the beginning of a text; empty for an image.
    """

    sample: ShownSample
    state: str
    data: bytes = b""
    text: str = ""
    side: int = SIDE


@dataclass(eq=False)
class Gallery:
    """Pictures of a run's images, and maps of their features.

    Attributes:
        pictures: by part and number of the sample.
        kind: how the maps were made: "mean", "attribution", or None where there are none.
        note: the same as a sentence, or why there are none.
        wishes: hash of what was wished for, where it was read from a folder.
    """

    kind: str | None
    note: str
    pictures: dict[Key, Picture] = field(default_factory=dict)
    _maps: dict[tuple[Key, int], Tensor] = field(default_factory=dict)
    wishes: str = ""

    def map(self, key: Key, feature: int) -> Tensor | None:
        """Heat map (h, w) of a feature on an image, of at most 16 × 16 cells; None without."""
        return self._maps.get((key, feature))

    def mapped(self) -> list[tuple[Key, int]]:
        """Images and features for which there are maps."""
        return [*self._maps]

    def count(self, state: str) -> int:
        """How many pictures are in a state."""
        return sum(picture.state == state for picture in self.pictures.values())

    def add_map(self, key: Key, feature: int, map: Tensor) -> None:
        """One more heat map (h, w)."""
        self._maps[key, feature] = map

    def grants(self, wish: Wish, maps: bool) -> bool:
        """Whether it has the picture of a wish with all its maps, where these are exact means."""
        picture = self.pictures.get(wish.key)
        if picture is None or picture.state != THERE or picture.side != wish.side:
            return False
        if not maps:
            return True
        return self.kind == "mean" and all((wish.key, j) in self._maps for j in wish.values)

    def with_more(self, more: Gallery, wishes: Sequence[Wish]) -> Gallery:
        """The pictures of some wishes, which stand here or in another gallery of the run."""
        made = Gallery(self.kind, self.note)
        for wish in wishes:
            source = more if wish.key in more.pictures else self
            made.pictures[wish.key] = source.pictures[wish.key]
            for j in wish.values:
                if (wish.key, j) in source._maps:
                    made._maps[wish.key, j] = source._maps[wish.key, j]
        return made

    def save(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """Write it in place of an earlier one, in one step."""
        write_folder(folder, lambda new: self._fill(new, identity))

    def _fill(self, new: Path, identity: Mapping[str, Any]) -> None:
        places = {}
        for i, (key, picture) in enumerate(self.pictures.items()):
            places[key] = i
            if picture.data:
                (new / _file(i, picture.data)).write_bytes(picture.data)
        if self._maps:
            maps = torch.stack([*self._maps.values()])
            write_tensors(new / "maps.safetensors", {"maps": maps}, {"format": MAPS_FORMAT})
        document = {
            "format": FORMAT,
            "identity": dict(identity),
            "kind": self.kind,
            "note": self.note,
            "images": [
                {
                    "part": part,
                    "number": number,
                    "id": picture.sample.id,
                    "label": picture.sample.label,
                    "predicted": picture.sample.predicted,
                    "state": picture.state,
                    "file": _file(places[part, number], picture.data) if picture.data else None,
                    "hash": _hash(picture.data),
                    "side": picture.side,
                }
                for (part, number), picture in self.pictures.items()
            ],
            "maps": [[places[key], feature] for key, feature in self._maps],
        }
        write_json(new / "index.json", document)

    @classmethod
    def load(cls, folder: Path, identity: Mapping[str, Any]) -> Gallery | None:
        """What `save` wrote of the same run, for whatever wishes; None where it is not whole."""
        try:
            document = read_json(folder / "index.json", FORMAT)
            wishes = document["identity"]["wishes"]
            if document["identity"] != {**identity, "wishes": wishes}:
                return None
            made = cls(document["kind"], document["note"], wishes=str(wishes))
            keys = []
            for about in document["images"]:
                key = (about["part"], about["number"])
                calls = (about[name] for name in ("label", "predicted"))
                several = (tuple(c) if isinstance(c, list) else c for c in calls)
                data = read_file(folder / about["file"]) if about["file"] else b""
                if about["hash"] != _hash(data):
                    return None
                sample = ShownSample(about["number"], about["id"], *several)
                # Pictures of an older version have no side, which no wish has either.
                side = about.get("side", 0)
                made.pictures[key] = Picture(sample, about["state"], data, side=side)
                keys.append(key)
            if document["maps"]:
                found, _ = read_tensors(folder / "maps.safetensors", MAPS_FORMAT, ("maps",))
                for (place, feature), values in zip(document["maps"], found["maps"], strict=True):
                    made._maps[keys[place], feature] = values
        except (InputError, OSError, LookupError, ValueError, TypeError):
            return None
        return made


@dataclass(frozen=True)
class Wish:
    """A picture that is wanted.

    Attributes:
        key: part and number.
        sample: what it shows.
        values: the features whose maps are wanted, with their values in the run.
        side: pixels of the picture's longer side, at most; small images stay as they are.
    """

    key: Key
    sample: ShownSample
    values: Mapping[int, float]
    side: int = SIDE


@dataclass(frozen=True, eq=False)
class PictureOptions:
    """How the pictures of a run are taken, for a report.

    Attributes:
        images: how many images each list shows; 8, or fewer where there are very many lists.
        maps: False leaves out the heat maps, which need the network.
        sources: where network and images are now, if not where the run found them.
        device: where the network runs.
        overwrite: take the pictures again although the run has them.
        keep: put them into the run's `examples` folder in place of those that lie there.
        progress: called with (images done, images in all).
    """

    images: int | None = None
    maps: bool = True
    sources: Places | None = None
    device: torch.device | str = "cpu"
    overwrite: bool = False
    keep: bool = True
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise InputError(f"a report shows at least 1 image of each kind, found {self.images}")


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _file(i: int, data: bytes) -> str:
    return f"{i:05d}.{'png' if data.startswith(bytes([137])) else 'webp'}"
