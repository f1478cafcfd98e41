"""Where batches of images come from, and how the network is run over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler

from penult.data import Batch, ImageData, batches, open_data
from penult.errors import InputError
from penult.transform import Transform

SHARD_ROWS = 2048


@dataclass(frozen=True)
class Pass:
    """How the network is run over the data.

    Attributes:
        batch_size: images in one forward pass.
        workers: processes that decode images; 0 decodes in this one.
        dtype: float32, or bfloat16 or float16 through autocast.
        store: float32 or float16, how features are kept.
        labels: "given", or "predicted" to take the network's own classes as labels.
        strict: stop at the first faulty image rather than leave it out.
    """

    batch_size: int = 256
    workers: int = 0
    dtype: torch.dtype = torch.float32
    store: torch.dtype = torch.float32
    labels: str = "given"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch size must be at least 1, found {self.batch_size}")
        if self.workers < 0:
            raise InputError(f"workers must be at least 0, found {self.workers}")
        if self.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise InputError(f"dtype must be float32, bfloat16 or float16, found {self.dtype}")
        if self.store not in (torch.float32, torch.float16):
            raise InputError(f"features are stored as float32 or float16, found {self.store}")
        if self.labels not in ("given", "predicted"):
            raise InputError(f"labels must be 'given' or 'predicted', found {self.labels!r}")

    @property
    def batches_per_shard(self) -> int:
        """Whole batches in one shard, so that a resumed pass meets the same batches."""
        return max(1, SHARD_ROWS // self.batch_size)

    @property
    def given(self) -> bool:
        """Whether the labels come with the data."""
        return self.labels == "given"


class Source(Protocol):
    """Batches of images, the same at every call, from any batch on."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where known."""

    @property
    def n_samples(self) -> int:
        """Images in all, faulty ones included."""

    def batches(self, start: int) -> Iterator[Batch]:
        """The batches from number `start` on."""

    def inputs(self, batch: Batch, device: torch.device) -> Tensor:
        """A batch's images as the network takes them, on `device`."""


@dataclass
class ImageSource:
    """Batches of an `ImageData`, decoded by `transform`."""

    data: ImageData
    transform: Transform
    how: Pass

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The data's."""
        return self.data.class_names

    @property
    def n_samples(self) -> int:
        """Images in all."""
        return len(self.data)

    def batches(self, start: int) -> Iterator[Batch]:
        """Decoded batches."""
        how = self.how
        return iter(
            batches(
                self.data,
                self.transform,
                batch_size=how.batch_size,
                workers=how.workers,
                start_batch=start,
                strict=how.strict,
            )
        )

    def inputs(self, batch: Batch, device: torch.device) -> Tensor:
        """Normalised images."""
        return self.transform.normalise(batch.images.to(device))


@dataclass
class LoaderSource:
    """Batches of a DataLoader, ready for the network."""

    loader: DataLoader[Any]
    class_names: tuple[str, ...] | None = None

    @property
    def n_samples(self) -> int:
        """Images in all."""
        return len(self.loader.dataset)  # type: ignore[arg-type]  # map-style by `_source`

    def batches(self, start: int) -> Iterator[Batch]:
        """The loader's batches."""
        position = 0
        for number, (images, labels) in enumerate(self.loader):
            ids = [str(i) for i in range(position, position + len(labels))]
            position += len(labels)
            if number >= start:
                yield Batch(images, labels.long(), ids, [], {})

    def inputs(self, batch: Batch, device: torch.device) -> Tensor:
        """The images as they are."""
        return batch.images.to(device)


def source_of(data: Any, transform: Transform | None, how: Pass) -> Source:
    """Batches of whatever `collect` takes as data."""
    if isinstance(data, DataLoader):
        if isinstance(data.sampler, RandomSampler):
            raise InputError("the DataLoader shuffles: give one with shuffle=False")
        return LoaderSource(data)
    images = data if isinstance(data, ImageData) else open_data(data, labelled=how.given)
    return ImageSource(images, transform or Transform(), how)


def first_inputs(source: Source, device: torch.device, n: int = 4) -> Tensor:
    """The first few usable images, as the network takes them."""
    for batch in source.batches(0):
        if len(batch.images):
            return source.inputs(batch, device)[:n]
    raise InputError("none of the images could be used")
