"""Batches of samples, the same at every call, and the check before the long work."""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from penult.data.arrays import channels_last
from penult.data.image import (
    NOT_TURNED,
    TURNED,
    ImageData,
    ImageFaultError,
    Label,
    Loaded,
    conversion,
    damaged_reason,
    is_turned,
    refusal,
)
from penult.data.inputs import Inputs, changed
from penult.data.tokens import Preparation, TokenIds, TokenTransform
from penult.data.transform import Transform
from penult.data.workers import as_it_is, read_by, roomy, through_pipe
from penult.errors import InputError

CHECKED_IMAGES = 32
TEXT_BYTES = 1 << 15  # of a long text: a thousand tokens, each with three or four numbers


@dataclass(frozen=True)
class Fault:
    """An image that was left out, and why."""

    id: str
    reason: str


@dataclass
class Batch:
    """Consecutive samples without the faulty ones; it may be empty.

    Attributes:
        inputs: images, uint8 (n_samples, height, width, channels) for `Transform.normalise`, or
            float32 (n_samples, channels, height, width) as the data set gave them, ready; of texts
            int64 (n_samples, n_tokens) by the name of the input.
        labels: (n_samples,) int64, -1 where unlabelled; (n_samples, n_classes) bool where
            multi-label.
        ids: the samples' names.
        faults: the images left out.
        converted: how many images had to be converted, by kind ("greyscale", "palette",
            "transparent", "CMYK" and so on) or are turned by their EXIF data, see `noted_lines`.
        positions: the samples' places in the data.
        mark: hash of the samples where only looking at them again tells whether they are the same.
        refused: why the data cannot be read on; a process that decodes says it so, since torch puts
            the errors of its workers into its own words.
    """

    inputs: Inputs
    labels: Tensor
    ids: list[str]
    faults: list[Fault]
    converted: dict[str, int]
    positions: list[int] = field(default_factory=list)
    mark: str | None = None
    refused: InputError | None = None

    @property
    def images(self) -> Tensor:
        """The inputs of a batch of images."""
        assert isinstance(self.inputs, Tensor)
        return self.inputs

    def pin_memory(self) -> Batch:
        """The same in page-locked memory, from which a copy to the device need not wait."""
        inputs = changed(self.inputs, lambda values: values.pin_memory())
        return replace(self, inputs=inputs, labels=self.labels.pin_memory())


@dataclass(frozen=True)
class Pixels:
    """One image for the network: uint8 (height, width, channels), or float32 (c, h, w), ready.

    `noted` says what was done to it or left undone, see `noted_lines`.
    """

    values: Tensor
    label: Label
    noted: tuple[str, ...] = ()

    @property
    def layout(self) -> tuple[Any, ...]:
        """What images of one batch have in common: dtype and shape."""
        return self.values.dtype, tuple(self.values.shape)


def prepared(data: ImageData, transform: Preparation, index: int) -> Pixels | TokenIds:
    """Load and check one sample, and make of it what the network takes.

    Raises:
        ImageFaultError: it cannot be used; says why.
    """
    with _quiet():
        return _prepared(data, transform, index)


def _prepared(data: ImageData, transform: Preparation, index: int) -> Pixels | TokenIds:
    if isinstance(transform, Transform):
        return _read(data, transform, index)
    loaded, label = data.sample(index)
    return transform.read(loaded, label, data.id(index))


def read(data: ImageData, transform: Transform, index: int) -> Pixels:
    """Load, check and decode one image.

    Raises:
        ImageFaultError: it cannot be used; says why.
    """
    with _quiet():
        return _read(data, transform, index)


def _read(data: ImageData, transform: Transform, index: int) -> Pixels:
    loaded, label = data.sample(index)
    if isinstance(loaded, Tensor) and loaded.is_floating_point():
        if loaded.ndim != 3:
            shape = tuple(loaded.shape)
            raise ImageFaultError(
                data.id(index), f"is a tensor of shape {shape}, expected (channels, height, width)"
            )
        return Pixels(loaded.detach().to("cpu", torch.float32), label)
    image = _as_image(loaded, data.id(index))
    if reason := refusal(image) or transform.refusal(image):
        raise ImageFaultError(data.id(index), reason)
    noted = [kind] if (kind := conversion(image, transform.mode)) else []
    if is_turned(image):
        noted.append(TURNED if transform.upright else NOT_TURNED)
    try:
        array = transform.decode(image)
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ImageFaultError(data.id(index), damaged_reason(error)) from error
    return Pixels(torch.from_numpy(np.array(array)), label, tuple(noted))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings from the terminal: faults and conversions say the same."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


class Batches:
    """Batches of consecutive samples, read anew by every iteration; see `batches`."""

    def __init__(self, loader: DataLoader[Batch], strict: bool) -> None:
        self._loader = loader
        self._strict = strict

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        for batch in read_by(self._loader):
            if batch.refused is not None:
                raise batch.refused
            if self._strict and batch.faults:
                fault = batch.faults[0]
                raise ImageFaultError(fault.id, fault.reason)
            yield batch


def batches(
    data: ImageData,
    transform: Preparation,
    *,
    batch_size: int,
    workers: int = 0,
    start_batch: int = 0,
    stop_batch: int | None = None,
    strict: bool = False,
    pin_memory: bool = False,
) -> Batches:
    """Read `data` in batches that are the same at every call.

    Batch i always covers the samples [i * batch_size, (i + 1) * batch_size), so that whoever
    stopped before batch i goes on with `start_batch=i`. A sample that cannot be used is left out
    and listed in its batch's `faults`; all must end up with the size of the first usable one.

    Args:
        data: the samples, from `open_data`.
        transform: how images are decoded; float tensors of a data set are passed on untouched. Or
            how texts become tokens.
        batch_size: samples per batch, at least 1; the last batch may be smaller.
        workers: processes that decode; 0 decodes in this one.
        start_batch: number of the first batch, counted from 0.
        stop_batch: number of the first batch that is not read; all are where None.
        strict: raise at the first faulty image rather than leave it out.
        pin_memory: hand out batches in page-locked memory (for CUDA).

    Raises:
        InputError: no image can be used, or (while iterating, if `strict`) one cannot.
    """
    if batch_size < 1:
        raise InputError(f"batch_size must be at least 1, found {batch_size}")
    reader = _Reader(data, transform, batch_size)
    n_batches = -(-len(data) // batch_size)
    stop = n_batches if stop_batch is None else min(stop_batch, n_batches)
    with warnings.catch_warnings():
        # How many workers there are is the user's choice, and torch counts cores on each call.
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        loader: DataLoader[Batch] = DataLoader(
            reader,
            batch_size=None,
            sampler=range(start_batch, stop),
            num_workers=workers,
            collate_fn=as_it_is if roomy(reader.n_bytes, workers) else through_pipe,
            pin_memory=pin_memory,
            # Otherwise every iteration draws from, and so changes, torch's global generator.
            generator=torch.Generator(),
        )
    return Batches(loader, strict)


def check_data(data: ImageData, transform: Preparation) -> None:
    """Look at up to 32 samples spread over the data, before the long work.

    It warns of images that are on their side, as their EXIF orientation says.

    Raises:
        InputError: none of them can be used, or they differ in size and `transform` sets none.
    """
    n_samples = len(data)
    spread = np.linspace(0, n_samples - 1, min(n_samples, CHECKED_IMAGES)).astype(int)
    faults: list[ImageFaultError] = []
    layouts: dict[tuple[Any, ...], str] = {}
    n_turned = 0
    for index in map(int, spread):
        try:
            one = prepared(data, transform, index)
            layouts.setdefault(one.layout, data.id(index))
            n_turned += NOT_TURNED in one.noted
        except ImageFaultError as fault:
            faults.append(fault)
    if not layouts:
        raise InputError(
            f"none of {len(faults)} {transform.samples} looked at can be used; the first, "
            f"{faults[0].id}, {faults[0].reason}"
        )
    if len(layouts) > 1:
        (size, named), (other, second) = list(layouts.items())[:2]
        raise InputError(
            f"images differ in size: {named} gives {_shown(size)}, {second} {_shown(other)}; give "
            "one size for all, such as --size 224"
        )
    if n_turned:
        warnings.warn(
            f"{n_turned} of {len(spread)} images looked at have an EXIF orientation, which is not "
            "applied: give --upright if the network saw them upright",
            stacklevel=2,
        )


class _Reader(Dataset[Batch]):
    """Batches by number."""

    def __init__(self, data: ImageData, transform: Preparation, batch_size: int) -> None:
        self._data = data
        self._transform = transform
        self._batch_size = batch_size
        self._first, self._layout = _first_usable(data, transform)
        if isinstance(transform, TokenTransform):
            self.n_bytes = batch_size * TEXT_BYTES
        else:
            dtype, shape = self._layout
            self.n_bytes = batch_size * math.prod(shape) * dtype.itemsize

    def __getitem__(self, number: int) -> Batch:
        start = number * self._batch_size
        found: list[Pixels | TokenIds] = []
        positions: list[int] = []
        faults: list[Fault] = []
        refused: InputError | None = None
        with _quiet():
            for index in range(start, min(start + self._batch_size, len(self._data))):
                try:
                    one = _prepared(self._data, self._transform, index)
                    self._require_layout(one, index)
                except ImageFaultError as fault:
                    faults.append(Fault(fault.id, fault.reason))
                except InputError as error:
                    refused = error
                    break
                else:
                    found.append(one)
                    positions.append(index)
        return Batch(
            inputs=self._joined(found),
            labels=_labels([one.label for one in found]),
            ids=[self._data.id(index) for index in positions],
            faults=faults,
            converted=dict(Counter(kind for one in found for kind in one.noted)),
            positions=positions,
            refused=refused,
        )

    def _joined(self, found: Sequence[Pixels | TokenIds]) -> Inputs:
        if isinstance(self._transform, TokenTransform):
            return self._transform.joined([one for one in found if isinstance(one, TokenIds)])
        dtype, shape = self._layout
        values = [one.values for one in found if isinstance(one, Pixels)]
        return torch.stack(values) if values else torch.empty((0, *shape), dtype=dtype)

    def _require_layout(self, one: Pixels | TokenIds, index: int) -> None:
        if one.layout != self._layout:
            raise ImageFaultError(
                self._data.id(index),
                f"gives {_shown(one.layout)}, expected {_shown(self._layout)} as {self._first} "
                "gives: set a size with --size",
            )


def _first_usable(data: ImageData, transform: Preparation) -> tuple[str, tuple[Any, ...]]:
    first: ImageFaultError | None = None
    for index in range(len(data)):
        try:
            return data.id(index), prepared(data, transform, index).layout
        except ImageFaultError as fault:
            first = first or fault
    found = f"the first, {first.id}, {first.reason}" if first else "there are none"
    raise InputError(f"no {transform.samples[:-1]} can be used: {found}")


def _as_image(loaded: Loaded, id: str) -> Image.Image:
    """A PIL image of what a data set gave."""
    if isinstance(loaded, Image.Image):
        return loaded
    if isinstance(loaded, str):
        raise ImageFaultError(id, "is a text, expected an image, as the network takes images")
    first = isinstance(loaded, Tensor)
    given = loaded.detach().cpu().numpy() if isinstance(loaded, Tensor) else loaded
    if given is None:
        raise ImageFaultError(id, "has no image")
    if not isinstance(given, np.ndarray):
        raise ImageFaultError(
            id, f"is a {type(loaded).__name__}, expected an image, an array or a tensor"
        )
    array = channels_last(given, first) if given.dtype == np.uint8 else None
    if array is None:
        what = "a tensor" if first else "an array"
        raise ImageFaultError(
            id,
            f"is {what} of {given.dtype} and shape {given.shape}, expected uint8 (height, "
            "width) or (height, width, channels), or a float tensor (channels, height, width)",
        )
    return Image.fromarray(
        np.ascontiguousarray(array[..., 0] if array.shape[2:] == (1,) else array)
    )


def _shown(layout: tuple[Any, ...]) -> str:
    dtype, shape = layout
    if dtype == torch.uint8:
        return f"{shape[0]} × {shape[1]} pixels (height × width)"
    return f"a float tensor of shape {shape}"


def _labels(labels: list[Label]) -> Tensor:
    """As `Batch` has them."""
    if labels and isinstance(labels[0], np.ndarray):
        return torch.from_numpy(np.stack(labels))
    return torch.tensor(labels, dtype=torch.int64)
