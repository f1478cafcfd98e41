"""Gallery: small pictures of some of a run's images, with heat maps of some of their features."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.image import read_file
from penult.data.open import ImageData, ImageFaultError, read
from penult.data.transform import Transform
from penult.errors import InputError
from penult.explain.maps import Maps, open_maps
from penult.explain.survey import ShownSample
from penult.explain.thumbnails import SIDE, coarser, picture_of
from penult.network.calling import autocast, evaluating
from penult.progress import Progress
from penult.runs.reopen import Places, dtype_of_run, holds_texts, images_of, reopen_network
from penult.runs.run import Run
from penult.storage import read_json, read_tensors, write_folder, write_json, write_tensors
from penult.text import one_line

FORMAT = "penult-examples/1"
MAPS_FORMAT = "penult-maps/1"
MOST_CELLS = 16  # a side of a heat map as it is kept
BATCH_SIZE = 64
EXAMPLES = 16  # images that tell what size the network takes
MOST_ATTRIBUTED = 200
MOST_EXACT = 2000  # pictures from which tiny ones are compressed too
TOLERANCE = 0.02  # of the largest feature: half-precision runs round as coarsely

LONGEST_TEXT = 240  # characters of a text that are shown
TEXTS = (
    "The samples are texts, of which the beginnings are shown; penult explain RUN eval:NUMBER "
    "marks the words that count."
)

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
        text: the beginning of a text; empty for an image.
    """

    sample: ShownSample
    state: str
    data: bytes = b""
    text: str = ""


@dataclass(eq=False)
class Gallery:
    """Pictures of a run's images, and maps of their features.

    Attributes:
        pictures: by part and number of the sample.
        kind: how the maps were made: "mean", "attribution", or None where there are none.
        note: the same as a sentence, or why there are none.
    """

    kind: str | None
    note: str
    pictures: dict[Key, Picture] = field(default_factory=dict)
    _maps: dict[tuple[Key, int], Tensor] = field(default_factory=dict)

    def map(self, key: Key, feature: int) -> Tensor | None:
        """Heat map (h, w) of a feature on an image, of at most 16 × 16 cells; None without."""
        return self._maps.get((key, feature))

    def mapped(self) -> list[tuple[Key, int]]:
        """Images and features for which there are maps."""
        return [*self._maps]

    def count(self, state: str) -> int:
        """How many pictures are in a state."""
        return sum(picture.state == state for picture in self.pictures.values())

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
                }
                for (part, number), picture in self.pictures.items()
            ],
            "maps": [[places[key], feature] for key, feature in self._maps],
        }
        write_json(new / "index.json", document)

    @classmethod
    def load(cls, folder: Path, identity: Mapping[str, Any]) -> Gallery | None:
        """What `save` wrote of the same identity; None where it has another, or is not whole."""
        try:
            document = read_json(folder / "index.json", FORMAT)
            if document["identity"] != dict(identity):
                return None
            made = cls(document["kind"], document["note"])
            keys = []
            for about in document["images"]:
                key = (about["part"], about["number"])
                calls = (about[name] for name in ("label", "predicted"))
                several = (tuple(c) if isinstance(c, list) else c for c in calls)
                data = read_file(folder / about["file"]) if about["file"] else b""
                if about["hash"] != _hash(data):
                    return None
                made.pictures[key] = Picture(
                    ShownSample(about["number"], about["id"], *several), about["state"], data
                )
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
        progress: called with (images done, images in all).
    """

    images: int | None = None
    maps: bool = True
    sources: Places | None = None
    device: torch.device | str = "cpu"
    overwrite: bool = False
    progress: Progress | None = None

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 1:
            raise InputError(f"a report shows at least 1 image of each kind, found {self.images}")


def take_pictures(
    run: Run,
    wishes: Sequence[Wish],
    options: PictureOptions | None = None,
) -> Gallery:
    """Load images of a run once more, and run its network on them for the heat maps.

    They are kept in the run's `examples` folder where that can be written; the same wishes find
    them there. Images that are gone are noted as missing. A network that is gone leaves the
    pictures without maps.

    Args:
        run: made from images; one made from features gives an empty gallery.
        wishes: the most important first.
        options: whether with maps, and where things are now.
    """
    options = options or PictureOptions()
    maps = options.maps
    if not wishes or "transform" not in run.about or not any(wish.sample.id for wish in wishes):
        return Gallery(None, "The run was made from features: there are no images to show.")
    if holds_texts(run):
        return _texts(run, wishes, options)
    identity = _identity(run, wishes, maps)
    found = Gallery.load(run.examples_folder, identity)
    whole = found is not None and found.count(THERE) == len(wishes) and (found.kind or not maps)
    if found is not None and whole and not options.overwrite:
        return found
    made = _Taking(run, wishes, options).run()
    if found is not None and made.count(MISSING) > found.count(MISSING):
        n = made.count(MISSING)
        said = f"{n:,} images are gone: the pictures that the run has are kept"
        warnings.warn(said, stacklevel=2)
        return found
    try:
        with run.writing():
            made.save(run.examples_folder, identity)
    except (InputError, OSError) as error:
        # They only save time; the folder may well be one that is not to be written.
        warnings.warn(f"the pictures are not kept in the run: {error}", stacklevel=2)
    return made


def _texts(run: Run, wishes: Sequence[Wish], options: PictureOptions) -> Gallery:
    """The beginnings of texts in place of pictures; they are read anew each time."""
    sources = options.sources or Places()
    data = {
        part: _ByName(images_of(run, name, sources))
        for part, name in (("train", "data"), ("eval", "evaluation"))
    }
    made = Gallery(None, TEXTS)
    for n, wish in enumerate(wishes, 1):
        found, index = data[wish.key[0]].find(wish.sample)
        text = "" if found is None else found.load(index)
        shown = one_line(" ".join(text.split()), LONGEST_TEXT) if isinstance(text, str) else ""
        made.pictures[wish.key] = Picture(wish.sample, THERE if shown else MISSING, text=shown)
        if options.progress is not None:
            options.progress(n, len(wishes))
    return made


class _Taking:
    """One pass over the images that are wanted."""

    def __init__(self, run: Run, wishes: Sequence[Wish], options: PictureOptions) -> None:
        self.run_ = run
        self.wishes = wishes
        self.progress = options.progress
        self.device = torch.device(options.device)
        sources = options.sources or Places()
        self.transform = Transform.from_json(run.about["transform"])
        self.data = {
            part: _ByName(images_of(run, name, sources))
            for part, name in (("train", "data"), ("eval", "evaluation"))
        }
        self.model: nn.Module | None = None
        self.maps: Maps | None = None
        self.size: torch.Size | None = None  # of the images that the network was tried on
        self.note = "The heat maps were left out."
        if options.maps:
            self._open(sources)

    def run(self) -> Gallery:
        """The gallery."""
        made = Gallery(None if self.maps is None else self.maps.kind, self.note)
        n_left = MOST_ATTRIBUTED
        exact = len(self.wishes) <= MOST_EXACT
        done = 0
        self._say(done)
        for wishes, values in self._batches():
            for wish, pixels in zip(wishes, values, strict=True):
                state = MISSING if pixels is None else THERE
                data = b"" if pixels is None else picture_of(pixels, exact=exact, side=wish.side)
                made.pictures[wish.key] = Picture(wish.sample, state, data)
            done += len(wishes)
            there = [(w, p) for w, p in zip(wishes, values, strict=True) if p is not None]
            for wish, pixels in there:
                if self.size is not None and pixels.shape != self.size:
                    self._note_change(made, wish)
            there = [(w, p) for w, p in there if p.shape == self.size]
            if self.maps is not None and there and n_left > 0:
                if self.maps.kind != "mean":
                    there, n_left = _first(there, n_left)
                try:
                    self._add_maps(made, there)
                except InputError as error:
                    warnings.warn(f"no more heat maps: {error}", stacklevel=3)
                    made.note += f" Some are lacking: {error}."
                    self.maps = None
            self._say(done)
        return made

    def _say(self, done: int) -> None:
        if self.progress is not None:
            self.progress(done, len(self.wishes))

    def _open(self, sources: Places) -> None:
        """The network and how its maps are made; without it, `note` says why."""
        if "batch" in self.run_.summary().get("doubts", {}):
            self.note = (
                "There are no heat maps: the network's features of an image depend on the other "
                "images of its batch."
            )
            return
        try:
            model = reopen_network(self.run_, sources).to(self.device)
            example = self._example()
            if example is None:
                self.note = "There are no heat maps: the images are gone."
                return
            head = self.run_.train().require_head()
            self.model, self.maps = model, open_maps(model, head, example.to(self.device))
        except InputError as error:
            self.note = f"There are no heat maps: {error}."
            warnings.warn(f"no heat maps: {error}", stacklevel=2)
            return
        assert self.maps is not None
        self.note = self.maps.note
        n_maps = sum(len(wish.values) for wish in self.wishes)
        if self.maps.kind != "mean" and n_maps > MOST_ATTRIBUTED:
            self.note += f" The {MOST_ATTRIBUTED} most important of {n_maps:,} were made."

    def _example(self) -> Tensor | None:
        found = []
        for wish in self.wishes:
            pixels = self._pixels(wish)
            if pixels is not None:
                found.append(pixels)
            if len(found) == EXAMPLES:
                break
        if not found:
            return None
        # Single images may have another size than when they were analysed.
        ((self.size, _),) = Counter(pixels.shape for pixels in found).most_common(1)
        return self.transform.normalise(torch.stack([p for p in found if p.shape == self.size]))

    def _batches(self) -> Iterator[tuple[list[Wish], list[Tensor | None]]]:
        for start in range(0, len(self.wishes), BATCH_SIZE):
            wishes = list(self.wishes[start : start + BATCH_SIZE])
            yield wishes, [self._pixels(wish) for wish in wishes]

    def _pixels(self, wish: Wish) -> Tensor | None:
        data, index = self.data[wish.key[0]].find(wish.sample)
        if data is None:
            return None
        try:
            return read(data, self.transform, index).values
        except ImageFaultError:
            return None

    def _add_maps(self, made: Gallery, there: Sequence[tuple[Wish, Tensor]]) -> None:
        assert self.maps is not None
        assert self.model is not None
        dtype = dtype_of_run(self.run_)
        inputs = self.transform.normalise(torch.stack([p for _, p in there]).to(self.device))
        wanted = [list(wish.values) for wish, _ in there]
        with evaluating(self.model), autocast(self.device, dtype):
            seen, maps = self.maps(inputs, wanted)
        for (wish, _), z, found in zip(there, seen, maps, strict=True):
            then = torch.tensor([*wish.values.values()])
            now = z[list(wish.values)]
            if len(then) and (now - then).abs().max() > TOLERANCE * z.abs().max():
                self._note_change(made, wish)
                continue
            for j, values in zip(wish.values, coarser(found, MOST_CELLS), strict=True):
                made._maps[wish.key, j] = values

    def _note_change(self, made: Gallery, wish: Wish) -> None:
        old = made.pictures[wish.key]
        made.pictures[wish.key] = Picture(old.sample, CHANGED, old.data)


class _ByName:
    """Images by name: some may be gone since, or others have come."""

    def __init__(self, data: ImageData | None) -> None:
        self._data = data
        self._places: dict[str, int] | None = None

    def find(self, sample: ShownSample) -> tuple[ImageData | None, int]:
        """The data and the place of a sample in it; None where it is gone."""
        if self._data is None:
            return None, 0
        if self._places is None:
            names = ((self._data.id(i), i) for i in range(len(self._data)))
            self._places = dict(names)
        place = self._places.get(sample.id)
        return (None, 0) if place is None else (self._data, place)


def _first(there: Sequence[tuple[Wish, Tensor]], n: int) -> tuple[list[tuple[Wish, Tensor]], int]:
    """Images until n maps are made, and how many are left to make."""
    kept = []
    for wish, pixels in there:
        if n > 0:
            values = dict(list(wish.values.items())[:n])
            kept.append((replace(wish, values=values), pixels))
            n -= len(values)
    return kept, n


def _identity(run: Run, wishes: Sequence[Wish], maps: bool) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    for wish in wishes:
        digest.update(f"{wish.key} {sorted(wish.values)} {wish.side}\n".encode())
    run_ = hashlib.blake2b(repr(run.about["identity"]).encode(), digest_size=8).hexdigest()
    return {"run": run_, "wishes": digest.hexdigest(), "maps": maps}


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _file(i: int, data: bytes) -> str:
    return f"{i:05d}.{'png' if data.startswith(bytes([137])) else 'webp'}"
