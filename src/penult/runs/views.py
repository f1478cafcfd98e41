"""Views: the analysed images once more, cropped and mirrored, for heads to be fitted to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.augmentation import augmented, surviving
from penult.data.image import ImageData
from penult.data.open import Batch
from penult.data.source import ImageSource, Pass
from penult.data.tokens import Preparation
from penult.data.transform import Transform
from penult.features.collect import network_shards
from penult.features.shard_folder import ShardsFrom
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.reopen import Chosen, matched_images
from penult.runs.run import Run

TRIED = 2048  # images on which it is tried which changes the network survives


@dataclass
class ViewSource(ImageSource):
    """Batches of images, each changed at random in a way that only its place and a seed decide.

    Attributes:
        kinds: names of `AUGMENTATIONS`.
        seed: a text.
    """

    kinds: tuple[str, ...] = ()
    seed: str = ""

    def inputs(self, batch: Batch, device: torch.device) -> Tensor:
        """Normalised images, changed."""
        text = f"{self.seed} {batch.ids[0]}".encode("utf-8", "surrogateescape")
        drawn = int.from_bytes(hashlib.blake2b(text, digest_size=7).digest(), "little")
        generator = torch.Generator().manual_seed(drawn)
        images = super().inputs(batch, device)
        assert isinstance(images, Tensor)
        return augmented(images, self.kinds, generator)


@dataclass(frozen=True, eq=False)
class ImageView:
    """What any process needs to make one view of the analysed images.

    Attributes:
        positions: (n_samples,) int64, of the images among all.
        labels: (n_samples,) int64, of these.
        kinds: names of `AUGMENTATIONS`.
        seed: a text.
    """

    positions: Tensor
    labels: Tensor
    kinds: tuple[str, ...]
    seed: str

    def source(self, data: ImageData, transform: Preparation, how: Pass) -> ViewSource:
        """The images, changed; each of them was read before, so that none can be left out."""
        images = Chosen(data, self.positions, self.labels)
        return ViewSource(images, transform, replace(how, strict=True), self.kinds, self.seed)


@dataclass(frozen=True)
class Views:
    """Further passes over the analysed images, with changes that the network's accuracy survives.

    Attributes:
        n: how many passes.
        model, head: the network.
        data, transform, how: the images, and how they were read.
        seed: of the changes.
        progress: called with the name of a phase; gives the function that hears of its progress.
    """

    n: int
    model: nn.Module
    head: Head
    data: ImageData
    transform: Transform
    how: Pass
    seed: int
    progress: Callable[[str], Progress] | None

    def begin(self, run: Run) -> tuple[Chosen, tuple[str, ...], dict[str, float]]:
        """Try, on some images of a run, which changes the network survives.

        Returns:
            The images that the run has features of; the changes; and the network's accuracy under
            each that was tried.
        """
        images = matched_images(self.data, run.train())
        return images, *self._surviving(run, images)

    def view(self, images: Chosen, kinds: tuple[str, ...], number: int) -> ImageView:
        """One of the views, counted from 1."""
        places, labels = torch.tensor(images.positions), torch.as_tensor(images.labels)
        return ImageView(places, labels, kinds, f"{self.seed} {number}")

    def shards(self, view: ImageView, name: str) -> ShardsFrom:
        """The shards of a view, made by this process."""
        source = view.source(self.data, self.transform, self.how)
        found: ShardsFrom = self._shards(source, self.how, name)
        return found

    def _surviving(self, run: Run, images: Chosen) -> tuple[tuple[str, ...], dict[str, float]]:
        """The changes under which the network is about as often right as without."""
        labels = run.train().labels()
        blocks = run.train().blocks()
        right = torch.cat([block.dense_classes(self.head) == block.labels for block in blocks])
        n = min(TRIED, len(labels))
        rows = torch.arange(n) * len(labels) // n
        tried = images.part(rows)
        how = replace(self.how, strict=True)

        def changed(kind: str) -> Tensor:
            source = ViewSource(tried, self.transform, how, (kind,), f"{self.seed} {kind}")
            shards = self._shards(source, how, f"trying {kind}")
            found = [block.dense_classes(self.head) for block, _ in shards(0)]
            return torch.cat(found) == labels[rows]

        return surviving(right[rows], changed, labels[rows])

    def _shards(self, source: ViewSource, how: Pass, name: str) -> Any:
        heard = self.progress(name) if self.progress else None
        return network_shards(self.model, source, self.head, how, heard)
