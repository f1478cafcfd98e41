"""Look up: the image that a user names, its features in the run's network, and its heat maps."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from penult.data.dataset import CHANGES
from penult.data.image import open_image, read_file
from penult.data.inputs import Inputs
from penult.data.open import DatasetImages, ImageData, read
from penult.data.transform import Transform
from penult.errors import InputError
from penult.explain.gallery import TOLERANCE
from penult.explain.maps import Maps, open_maps
from penult.explain.thumbnails import image_of
from penult.features.shards import Block
from penult.network.calling import autocast, evaluating, kind_of
from penult.network.find import FeatureTap
from penult.network.head import Head
from penult.network.watch import run_hooked
from penult.runs.reopen import Places, dtype_of_run, images_of, reopen_network
from penult.runs.run import Run
from penult.text import is_number, nearest, one_line, some

PARTS = (("eval", "evaluation"), ("train", "data"))
NAMES_COMPARED = 20_000
Label = int | tuple[int, ...] | None


@dataclass(eq=False)
class LookedUp:
    """One image.

    Attributes:
        name: of the image.
        label: class that the data says it is, or classes of multi-label data, or None.
        picture: what the network sees, or None where the image is not at hand.
        features: (n_features,) float32.
        note: how maps are made, or why there are none.
    """

    name: str
    label: Label
    picture: Image.Image | None
    features: Tensor
    note: str
    _maps: Maps | None = None
    _inputs: Tensor | None = None
    _context: tuple[nn.Module, torch.dtype] | None = None

    @property
    def maps_kind(self) -> str | None:
        """How maps are made: "mean", "attribution", or None for not at all."""
        return None if self._maps is None else self._maps.kind

    def maps(self, features: Sequence[int]) -> Tensor | None:
        """Heat maps (n, h, w) of some features."""
        if self._maps is None or self._inputs is None or self._context is None or not features:
            return None
        model, dtype = self._context
        try:
            with evaluating(model), autocast(self._inputs.device, dtype):
                _, (found,) = self._maps(self._inputs, [list(features)])
        except InputError as error:
            self._without_maps(error)
            return None
        return found

    def _without_maps(self, error: InputError) -> None:
        warnings.warn(f"no heat maps: {error}", stacklevel=3)
        self._maps, self.note = None, f"There are no heat maps: {error}."


def look_up(
    run: Run, image: str | Path | Image.Image, sources: Places, device: torch.device, maps: bool
) -> LookedUp:
    """Find an image and its features; see `Explanation.of` for what `image` may be.

    Raises:
        InputError: there is no such image, or it cannot be used.
    """
    data, name, stored = _found(run, image, sources)
    label = label_of(run, stored)
    if "transform" not in run.about:
        assert stored is not None
        note = "The run was made from features: there is no image."
        return LookedUp(name, label, None, stored.features[0], note)
    transform = Transform.from_json(run.about["transform"])
    pixels = None
    if data is not None:
        pixels = read(data[0], transform, data[1]).values
    if pixels is None:
        assert stored is not None
        note = (
            "The image cannot be opened where the run found it (say with --data or --eval where it "
            "is now): these are the features that the run holds."
        )
        return LookedUp(name, label, None, stored.features[0], note)
    picture = image_of(pixels)
    try:
        model = reopen_network(run, sources)
    except InputError as error:
        if stored is None:
            raise
        warnings.warn(f"no heat maps: {error}", stacklevel=2)
        note = f"There are no heat maps: {error}."
        return LookedUp(name, label, picture, stored.features[0], note)
    model = model.to(device)
    inputs = transform.normalise(pixels[None].to(device))
    dtype = dtype_of_run(run)
    head = run.train().require_head()
    z = features_of(model, head, inputs, dtype, device)
    if stored is not None and (z - stored.features[0]).abs().max() > TOLERANCE * z.abs().max():
        return _changed(run, name, label, picture, stored)
    made = LookedUp(name, label, picture, z, "The heat maps were left out.")
    if maps:
        try:
            made._maps = open_maps(model, head, inputs)
            made.note = made._maps.note if made._maps is not None else made.note
        except InputError as error:
            made._without_maps(error)
        made._inputs, made._context = inputs, (model, dtype)
    return made


def _changed(run: Run, name: str, label: Label, picture: Image.Image, stored: Block) -> LookedUp:
    """An image to which the network gives other features by itself: those of the run, without maps.

    Raises:
        InputError: no batch can be the reason; the image is another one.
    """
    if "batch" in run.summary().get("doubts", {}):
        note = (
            "The network's features of an image depend on the other images of its batch. These are "
            "the features that the run holds; there are no heat maps."
        )
        return LookedUp(name, label, picture, stored.features[0], note)
    notes = {note for of in run.summary()["notes"].values() for note in of}
    raise InputError(
        f"{name} is no longer the image that was analysed: the network gives it other features"
        + (f"; {CHANGES}" if CHANGES in notes else "")
    )


def features_of(
    model: nn.Module, head: Head, inputs: Inputs, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Features (n_features,) of one sample.

    Raises:
        InputError: they are NaN or infinite.
    """
    tap = FeatureTap(model, head)
    with tap, autocast(device, dtype):
        run_hooked(model, inputs, {})
    z = tap.features[0].float().cpu()
    if not bool(z.isfinite().all()):
        raise InputError("the network gives NaN or infinite features on this sample")
    return z


def label_of(run: Run, stored: Block | None) -> Label:
    """The class, or the classes, that the data says a sample has; None where it does not say."""
    if stored is None or run.about["identity"].get("labels", "given") != "given":
        return None
    own = stored.labels[0]
    return int(own) if own.ndim == 0 else tuple(own.nonzero()[:, 0].tolist())


Located = tuple[tuple[ImageData, int] | None, str, Block | None]


def _found(run: Run, image: str | Path | Image.Image, sources: Places) -> Located:
    """Where the image is, its name, and its sample in the run's features."""
    if isinstance(image, Image.Image):
        _require_network(run, "a picture")
        return (DatasetImages([image], labelled=False), 0), "the picture", None
    if not isinstance(image, str | Path):
        raise InputError(
            "expected an image file, the name of an image in the run's data, eval:NUMBER or a PIL "
            f"image, found {kind_of(image)}"
        )
    text = str(image)
    if os.path.isfile(text):  # noqa: PTH113 - a Path raises where a name is too long for a file
        _require_network(run, text)
        return _of_file(Path(text))
    return by_name(run, text, sources, "image")


def by_name(run: Run, text: str, sources: Places, kind: str) -> Located:
    """A sample of the run, by its name or its number.

    Args:
        run: the run.
        text: `eval:3`, `train:3` or a sample's name.
        sources: where the data are now.
        kind: what samples are: "image" or "text".

    Raises:
        InputError: there is none; says which names are near.
    """
    part, colon, number = text.partition(":")
    if colon and part in ("train", "eval") and is_number(number):
        return _of_sample(run, part, int(number), sources)
    near: list[str] = []
    for part, _ in PARTS:
        if part == "eval" and not run.has_evaluation:
            continue
        features = run.train() if part == "train" else run.evaluation()
        names: list[str] = []
        start = 0
        for block in features.blocks():
            if text in block.ids:
                return _of_sample(run, part, start + block.ids.index(text), sources)
            start += len(block.labels)
            names += block.ids[: NAMES_COMPARED - len(names)]
        near += nearest(text, names)
    hint = f"; did you mean {some(near, 3)}?" if near else ""
    own = "an image file" if kind == "image" else "a text of several words, a file with one"
    article = "an" if kind == "image" else "a"
    raise InputError(
        f"{one_line(text, 80)} is no file, and no {kind} of the run{hint}: expected {own}, the "
        f"name of {article} {kind} in the run's data, or eval:NUMBER"
    )


def _of_file(path: Path) -> Located:
    try:
        raw = read_file(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    opened = open_image(raw, str(path))
    return (DatasetImages([opened], labelled=False), 0), path.name, None


def _of_sample(run: Run, part: str, number: int, sources: Places) -> Located:
    if part == "eval" and not run.has_evaluation:
        raise InputError(f"{run.folder} has no evaluation data: expected train:NUMBER")
    features = run.train() if part == "train" else run.evaluation()
    if number >= features.n_samples:
        raise InputError(
            f"{part}:{number} is not there: samples are numbered from 0 to {features.n_samples - 1}"
        )
    start = 0
    for block in features.blocks():
        at = number - start
        if at < len(block.labels):
            name = block.ids[at] if block.ids else f"{part}:{number}"
            only = torch.zeros(len(block.labels), dtype=torch.bool)
            only[at] = True
            stored = block.where(only)
            return _place(run, part, name, sources), name, stored
        start += len(block.labels)
    raise AssertionError("the number is within the samples")


def _place(run: Run, part: str, name: str, sources: Places) -> tuple[ImageData, int] | None:
    if "transform" not in run.about:
        return None
    data = images_of(run, dict(PARTS)[part], sources)
    if data is None:
        return None
    for i in range(len(data)):
        if data.id(i) == name:
            return data, i
    return None


def _require_network(run: Run, what: str) -> None:
    if "transform" not in run.about:
        raise InputError(
            f"{run.folder} was made from features and holds no network for {what}: expected "
            "train:NUMBER or eval:NUMBER"
        )
