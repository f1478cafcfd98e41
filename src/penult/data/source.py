"""Where batches of samples come from, and how the network is run over them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from penult.data.forms import DataOptions
from penult.data.image import digest_of
from penult.data.inputs import Inputs, first, on_device
from penult.data.open import Batch, ImageData, batches, open_data
from penult.data.tokens import Preparation, TokenTransform, normalised
from penult.data.transform import Transform
from penult.errors import InputError

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

    def identity(self) -> dict[str, Any]:
        """What the features depend on."""
        return {
            "labels": self.labels,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch size": self.batch_size,
            "store": str(self.store).removeprefix("torch."),
        }

    @property
    def given(self) -> bool:
        """Whether the labels come with the data."""
        return self.labels == "given"


class BatchSource(Protocol):
    """Batches of samples, the same at every call, from any batch on."""

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """Names of the classes, where known."""

    @property
    def n_samples(self) -> int:
        """Images in all, faulty ones included."""

    @property
    def fingerprint(self) -> str:
        """Hash of the data and of how it is prepared."""

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several labels."""

    def batches(self, start: int, stop: int | None = None) -> Iterator[Batch]:
        """The batches from number `start` on, up to the one before `stop`."""

    def inputs(self, batch: Batch, device: torch.device) -> Inputs:
        """A batch's samples as the network takes them, on `device`."""


@dataclass
class ImageSource:
    """Batches of an `ImageData`, images decoded or texts cut into tokens by `transform`."""

    data: ImageData
    transform: Preparation
    how: Pass

    @property
    def class_names(self) -> tuple[str, ...] | None:
        """The data's."""
        return self.data.class_names

    @property
    def n_samples(self) -> int:
        """Images in all."""
        return len(self.data)

    @property
    def fingerprint(self) -> str:
        """The data's and the transform's."""
        return f"{self.data.fingerprint} {self.transform.fingerprint}"

    @property
    def multi_label(self) -> bool:
        """Whether a sample may have several labels."""
        return self.data.multi_label

    def batches(self, start: int, stop: int | None = None) -> Iterator[Batch]:
        """Decoded batches."""
        how = self.how
        return iter(
            batches(
                self.data,
                self.transform,
                batch_size=how.batch_size,
                workers=how.workers,
                start_batch=start,
                stop_batch=stop,
                strict=how.strict,
            )
        )

    def inputs(self, batch: Batch, device: torch.device) -> Inputs:
        """Normalised images, or tokens."""
        return normalised(self.transform, on_device(batch.inputs, device))


@dataclass
class LoaderSource:
    """Batches of a DataLoader, ready for the network."""

    loader: DataLoader[Any]
    how: Pass
    class_names: tuple[str, ...] | None = None
    marks: Sequence[str | None] = ()  # of the first batch of each shard that a pass left behind

    @property
    def multi_label(self) -> bool:
        """Whether labels are multi-hot rows, by the first batch."""
        return any(batch.labels.ndim == 2 for batch in islice(self.batches(0), 1))

    @property
    def n_samples(self) -> int:
        """Images in all."""
        return len(self.loader.dataset)  # type: ignore[arg-type]  # map-style by `_source`

    @property
    def fingerprint(self) -> str:
        """Hash of the kind of data set, its length and its first batch."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(f"{type(self.loader.dataset).__qualname__} {self.n_samples}".encode())
        for images, labels in islice(map(self._pair, self.loader), 1):
            digest.update(_mark(images, labels).encode())
        return digest.hexdigest()

    def batches(self, start: int, stop: int | None = None) -> Iterator[Batch]:
        """The loader's batches.

        Raises:
            InputError: those of shards that are there already are no longer what they were.
        """
        position = 0
        for number, item in enumerate(islice(self.loader, stop)):
            images, labels = self._pair(item)
            ids = [str(i) for i in range(position, position + len(images))]
            position += len(images)
            shard, within = divmod(number, self.how.batches_per_shard)
            mark = None if within else _mark(images, labels)
            if number >= start:
                yield Batch(images, labels, ids, [], {}, mark=mark)
            elif mark and shard < len(self.marks) and self.marks[shard] not in (None, mark):
                raise InputError(
                    f"batch {number} of the DataLoader is not what it was when the pass began that "
                    "is to go on: give a loader without shuffling and augmentation, and another "
                    "out to begin anew"
                )

    def inputs(self, batch: Batch, device: torch.device) -> Inputs:
        """The images as they are."""
        return on_device(batch.inputs, device)

    def _pair(self, item: Any) -> tuple[Tensor, Tensor]:
        pair = list(item) if isinstance(item, list | tuple) else [item]
        images, labels = pair[0], pair[1] if len(pair) == 2 else None
        if isinstance(images, Tensor) and not self.how.given:
            return images, torch.full((len(images),), -1)
        if (
            isinstance(images, Tensor)
            and isinstance(labels, Tensor)
            and labels.shape == images.shape[:1]
            and not labels.is_floating_point()
        ):
            return images, labels.long()
        if (
            isinstance(images, Tensor)
            and isinstance(labels, Tensor)
            and labels.ndim == 2
            and len(labels) == len(images)
            and bool(((labels == 0) | (labels == 1)).all())
        ):
            return images, labels == 1
        found = [
            f"{x.dtype} {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            for x in pair
        ]
        raise InputError(
            "expected batches (images, labels) of the DataLoader, labels integers of shape "
            f"(n_samples,), or 0 and 1 of shape (n_samples, n_classes); found {', '.join(found)}"
        )


def _mark(images: Tensor, labels: Tensor) -> str:
    """Hash of a batch."""
    parts = (tensor.contiguous().view(torch.uint8).numpy().tobytes() for tensor in (images, labels))
    return digest_of(*parts)


def source_of(data: Any, transform: Preparation | None, how: Pass) -> BatchSource:
    """Batches of whatever `collect` takes as data."""
    if isinstance(data, DataLoader):
        if transform is not None:
            raise InputError("a DataLoader's images are ready: it takes no transform")
        if isinstance(data.dataset, IterableDataset) or data.batch_size is None:
            raise InputError(
                "expected a DataLoader of batches over a map-style data set: its length and order "
                "must be known"
            )
        if not isinstance(data.sampler, SequentialSampler):
            raise InputError("the DataLoader shuffles or samples: give one with shuffle=False")
        return LoaderSource(data, how)
    transform = transform or Transform()
    if not isinstance(data, ImageData):
        options = DataOptions(texts=isinstance(transform, TokenTransform))
        data = open_data(data, labelled=how.given, options=options)
    return ImageSource(data, transform, how)


def examples(source: BatchSource, device: torch.device, n: int = 4) -> Iterator[Inputs]:
    """The first few usable samples of each batch, as the network takes them.

    Raises:
        InputError: there are none.
    """
    empty = True
    for batch in source.batches(0):
        if batch.ids:
            empty = False
            yield first(source.inputs(batch, device), n)
    if empty:
        raise InputError("none of the samples could be used")
