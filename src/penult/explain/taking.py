"""Taking: a pass over some images of a run once more, for their pictures and heat maps."""

from __future__ import annotations

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.open import ImageData, ImageFaultError, read
from penult.data.transform import Transform
from penult.errors import InputError
from penult.explain.gallery import (
    CHANGED,
    MISSING,
    THERE,
    TOLERANCE,
    Gallery,
    Picture,
    PictureOptions,
    Wish,
)
from penult.explain.maps import Maps, open_maps
from penult.explain.survey import ShownSample
from penult.explain.thumbnails import coarser, picture_of
from penult.network.calling import autocast, evaluating
from penult.progress import Progress
from penult.runs.reopen import Places, dtype_of_run, holds_texts, images_of, reopen_network
from penult.runs.run import Run
from penult.text import one_line

MOST_CELLS = 16  # a side of a heat map as it is kept
BATCH_SIZE = 64
EXAMPLES = 16  # images that tell what size the network takes
MOST_ATTRIBUTED = 200
MOST_EXACT = 2000  # pictures from which tiny ones are compressed too
LONGEST_TEXT = 240  # characters of a text that are shown
TEXTS = (
    "The samples are texts, of which the beginnings are shown; penult explain RUN eval:NUMBER "
    "marks the words that count."
)


def take_pictures(
    run: Run,
    wishes: Sequence[Wish],
    options: PictureOptions | None = None,
) -> Gallery:
    """Load images of a run once more, and run its network on them for the heat maps.

    They are kept in the run's `examples` folder where that can be written and they are to be kept;
    the same wishes find them there. Images that are gone are noted as missing. A network that is
    gone leaves the pictures without maps.

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
    same = found is not None and found.wishes == identity["wishes"]
    whole = found is not None and found.count(THERE) == len(wishes) and (found.kind or not maps)
    if found is not None and same and whole and not options.overwrite:
        return found
    made = _taken(run, wishes, None if options.overwrite else found, options)
    if found is not None and same and made.count(MISSING) > found.count(MISSING):
        n = made.count(MISSING)
        said = f"{n:,} images are gone: the pictures that the run has are kept"
        warnings.warn(said, stacklevel=2)
        return found
    if not options.keep:
        return made
    try:
        with run.writing():
            made.save(run.examples_folder, identity)
    except (InputError, OSError) as error:
        # They only save time; the folder may well be one that is not to be written.
        warnings.warn(f"the pictures are not kept in the run: {error}", stacklevel=2)
    return made


def _taken(
    run: Run, wishes: Sequence[Wish], found: Gallery | None, options: PictureOptions
) -> Gallery:
    """The pictures of all wishes; those that an earlier gallery grants are not taken again."""
    exact = len(wishes) <= MOST_EXACT
    lacking = [one for one in wishes if found is None or not found.grants(one, options.maps)]
    if found is None or len(lacking) == len(wishes):
        return PictureTaker(run, wishes, options, exact).take(wishes)
    if not lacking:
        return found.with_more(Gallery(None, ""), wishes)
    more = PictureTaker(run, lacking, options, exact).take(lacking)
    if more.kind not in (found.kind, None):
        return PictureTaker(run, wishes, options, exact).take(wishes)
    return found.with_more(more, wishes)


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


class PictureTaker:
    """Takes pictures and maps of a run's images, in one pass or in several.

    Args:
        run: made from images.
        wishes: what is wanted first; a few of them tell what images the network takes.
        options: how they are taken.
        exact: keep every pixel of tiny images.

    Attributes:
        maps: how maps are made; None where there are none, and `note` says why.
    """

    def __init__(
        self, run: Run, wishes: Sequence[Wish], options: PictureOptions, exact: bool = True
    ) -> None:
        self.run_ = run
        self.exact = exact
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

    def take(self, wishes: Sequence[Wish], progress: Progress | None = None) -> Gallery:
        """The pictures of some wishes, with their maps.

        Args:
            wishes: the most important first.
            progress: called with (images done, images in all); by default that of the options.
        """
        self.wishes, self.progress = wishes, progress or self.progress
        made = Gallery(None if self.maps is None else self.maps.kind, self.note)
        n_left = MOST_ATTRIBUTED
        done = 0
        self._say(done)
        for wishes, values in self._batches():
            for wish, pixels in zip(wishes, values, strict=True):
                state = MISSING if pixels is None else THERE
                data = b"" if pixels is None else self._picture(pixels, wish)
                made.pictures[wish.key] = Picture(wish.sample, state, data, side=wish.side)
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

    def _picture(self, pixels: Tensor, wish: Wish) -> bytes:
        return picture_of(pixels, exact=self.exact, side=wish.side)

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
                made.add_map(wish.key, j, values)

    def _note_change(self, made: Gallery, wish: Wish) -> None:
        old = made.pictures[wish.key]
        made.pictures[wish.key] = replace(old, state=CHANGED)


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
