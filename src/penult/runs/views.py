"""Views: the analysed images once more, cropped and mirrored, for heads to be fitted to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.augmentation import augmented, surviving
from penult.data.image import ImageData
from penult.data.open import Batch
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.features.collect import network_shards
from penult.features.shard_folder import ShardFolder
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.reopen import matched_images
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

    def fill(
        self, run: Run, class_names: Sequence[str], identity: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Write the features of all views into a run that has those of the images themselves.

        Returns:
            What was found: the changes, and the network's accuracy under each, of some images.
        """
        images = matched_images(self.data, run.train())
        kinds, accuracy = self._surviving(run, class_names, images)
        how = replace(self.how, strict=True)
        for view in range(1, self.n + 1 if kinds else 1):
            folder = run.view_folder(view)
            source = ViewSource(images, self.transform, how, kinds, f"{self.seed} {view}")
            shards = ShardFolder(folder, self.head, class_names, self.how.store, identity)
            shards.fill(self._shards(source, how, f"view {view} of {self.n}"))
        return {"n": self.n if kinds else 0, "kinds": list(kinds), "accuracy": accuracy}

    def _surviving(
        self, run: Run, class_names: Sequence[str], images: ImageData
    ) -> tuple[tuple[str, ...], dict[str, float]]:
        """The changes under which the network is about as often right as without."""
        labels = run.train().labels()
        blocks = run.train().blocks()
        right = torch.cat([block.dense_classes(self.head) == block.labels for block in blocks])
        n = min(TRIED, len(labels))
        rows = torch.arange(n) * len(labels) // n
        tried = images.part(rows)  # type: ignore[attr-defined]
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
