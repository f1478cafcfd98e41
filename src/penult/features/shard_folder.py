"""Folders of shards: written one after the other, gone on with where a pass was interrupted."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from penult.data.open import Batch
from penult.errors import InputError
from penult.features.shards import (
    FORMAT,
    Block,
    read_notes,
    read_shard,
    save_dense,
    shard_shape,
    write_index,
    write_shard,
)
from penult.network.head import Head
from penult.network.link import SOFTMAX
from penult.storage import difference, read_json

FAULTS_NAMED = 100
COARSE = 0.02  # of the logits, whose own size is how they differ between samples

OnBlock = Callable[[Block], None]
Shards = Generator[tuple[Block, "Faults"], None, None]


class ShardsFrom(Protocol):
    """What gives the blocks of shards, one for each."""

    def __call__(self, first: int, stop: int | None = None, /) -> Shards:
        """The shards from number `first` on, up to the one before `stop`."""


@dataclass
class Faults:
    """Images left out, and images converted on the way, counted; the first are named."""

    n_faults: int = 0
    named: list[tuple[str, str]] = field(default_factory=list)
    converted: Counter[str] = field(default_factory=Counter)
    mark: str | None = None  # of the first batch, see `Batch`

    def add(self, other: Faults) -> None:
        """Count another shard's."""
        self.n_faults += other.n_faults
        self.named += other.named[: FAULTS_NAMED - len(self.named)]
        self.converted.update(other.converted)
        self.mark = self.mark or other.mark

    def to_json(self) -> dict[str, Any]:
        """As kept in a shard and in the index."""
        return {
            "n_faults": self.n_faults,
            "named": [list(pair) for pair in self.named],
            "converted": dict(sorted(self.converted.items())),
        }

    @classmethod
    def of(cls, batch: Batch) -> Faults:
        """Of one batch."""
        named = [(fault.id, fault.reason) for fault in batch.faults]
        return cls(len(named), named[:FAULTS_NAMED], Counter(batch.converted), batch.mark)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Faults:
        """From `to_json`."""
        named = [(str(path), str(reason)) for path, reason in found["named"]]
        return cls(int(found["n_faults"]), named, Counter(found["converted"]), found.get("mark"))


class ShardFolder:
    """A folder of shards being written: each shard is whole or absent, `complete` comes last.

    Args:
        folder: made where absent.
        head: the network's; written beside the shards if it reads these features.
        class_names: in the order of the logits; numbers where None.
        store: float32 or float16.
        identity: what the features depend on; a folder of another identity is refused.
        n_features: of a layer that the head does not read; the head's own where None.
    """

    def __init__(
        self,
        folder: Path,
        head: Head,
        class_names: Sequence[str] | None,
        store: torch.dtype,
        identity: Mapping[str, Any],
        n_features: int | None = None,
    ) -> None:
        self.folder = folder
        self.faults = Faults()
        self._head = head if n_features is None else None
        self._n_features = n_features or head.n_features
        self._link = head.link
        self._names = list(class_names or map(str, range(head.n_classes)))
        self._store = store
        self.identity = dict(identity)
        self._sizes: list[int] = []

    def fill(self, source: ShardsFrom, on_block: OnBlock | None = None) -> None:
        """Write the shards that are not there yet.

        Args:
            source: called with the number of shards found; yields the blocks of all later ones.
            on_block: called with every block in order, as a reader finds it (rounded to the store),
                so that sums over the blocks are the same whether or not the pass was interrupted.
        """
        complete = self.claim()
        for block in self.found():
            if on_block is not None:
                on_block(block)
        if complete:
            return
        # Closed, so that no hook stays on the network where writing a shard fails.
        with closing(source(len(self._sizes))) as shards:
            for block, faults in shards:
                self.write(block, faults)
                if on_block is not None:
                    on_block(block)
        self.finish()

    def write(self, block: Block, faults: Faults) -> None:
        """Write the next shard; leaves the block as a reader finds it (rounded to the store)."""
        self.write_at(len(self._sizes), block, faults)
        self._add(len(block.labels), faults)

    def write_at(self, shard: int, block: Block, faults: Faults) -> None:
        """Write one shard, whichever others are there; likewise."""
        block.features = self._stored(block, first=shard == 0)
        marked = {} if faults.mark is None else {"mark": faults.mark}
        notes = json.dumps(faults.to_json() | marked, ensure_ascii=False)
        write_shard(self.path(shard), block, {"faults": notes})
        block.features = block.features.float()

    def _stored(self, block: Block, first: bool) -> Tensor:
        """The features in the store's precision, if this keeps what the head reads of them."""
        stored = block.features.to(self._store)
        if self._store == torch.float32 or not len(stored):
            return stored
        remedy = "repeat the command with --store float32 (and --overwrite, or another --out)"
        beyond = (~stored.isfinite() & block.features.isfinite()).nonzero()
        if len(beyond):
            i, j = (int(x) for x in beyond[0])
            most = torch.finfo(self._store).max
            raise InputError(
                f"feature {j} of sample {block.ids[i] if block.ids else i} is "
                f"{float(block.features[i, j]):.6g}, and float16 holds numbers up to {most:,.0f}: "
                f"{remedy}"
            )
        if self._head is not None and first and _is_coarse(self._head, block, stored):
            warnings.warn(
                "float16 rounds these features too coarsely for the network's own logits, which "
                f"it changes by more than {100 * COARSE:.0f} %: {remedy}",
                stacklevel=5,
            )
        return stored

    def finish(self) -> None:
        """Mark the folder complete; refuse one without a sample."""
        if sum(self._sizes) == 0:
            first = "; ".join(f"{path}: {reason}" for path, reason in self.faults.named[:1])
            raise InputError(f"none of the images could be used ({first})")
        self._write_index(complete=True)

    def claim(self) -> bool:
        """Mark the folder as this pass's; True where the pass is complete already."""
        index = self.folder / "index.json"
        if index.exists():
            found = read_json(index, FORMAT)
            if found["identity"] != self.identity:
                remedy = "choose another folder, or delete this one"
                raise InputError(difference(self.folder, found["identity"], self.identity, remedy))
            listed = [self.folder / shard["file"] for shard in found["shards"]]
            return bool(found["complete"]) and all(path.exists() for path in listed)
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._head is not None:
            save_dense(self.folder / "dense.safetensors", self._head)
        self._write_index(complete=False)
        return False

    def found(self) -> Iterator[Block]:
        """The shards that are there."""
        while (path := self.path(len(self._sizes))).exists():
            block = next(read_shard(path, rows=None))
            self._add(len(block.labels), self.faults_of(len(self._sizes)))
            yield block

    @property
    def n_shards(self) -> int:
        """How many shards are there."""
        return next(i for i in count() if not self.path(i).exists())

    def faults_of(self, shard: int) -> Faults:
        """What was left out of a shard."""
        notes = read_notes(self.path(shard))["faults"]
        return Faults.from_json(json.loads(notes))

    def marks(self) -> list[str | None]:
        """Of the shards that are there, the hash of the first batch; None where it has none."""
        return [self.faults_of(shard).mark for shard in range(self.n_shards)]

    def keep(self, n_shards: int) -> None:
        """Go on after the first shards; later ones will be written again."""
        self.take(n_shards)
        # A folder that was complete says so no more before its first shard is replaced.
        if read_json(self.folder / "index.json")["complete"]:
            self._write_index(complete=False)

    def take(self, n_shards: int) -> None:
        """Take over the first shards, which are there, as if they had been written."""
        for shard in range(n_shards):
            self._add(shard_shape(self.path(shard))[0], self.faults_of(shard))

    def _add(self, size: int, faults: Faults) -> None:
        self._sizes.append(size)
        self.faults.add(faults)

    def path(self, shard: int) -> Path:
        """Where a shard lies."""
        return shard_path(self.folder, shard)

    def _write_index(self, complete: bool) -> None:
        write_index(
            self.folder,
            {
                "complete": complete,
                "n_samples": sum(self._sizes),
                "n_features": self._n_features,
                "head": self._head is not None,
                "class_names": self._names,
                **({"link": self._link} if self._link != SOFTMAX else {}),
                "shards": [
                    {"file": self.path(i).name, "n_samples": size}
                    for i, size in enumerate(self._sizes)
                ],
                "faults": self.faults.to_json(),
                "identity": self.identity,
            },
        )


def shard_path(folder: Path, shard: int) -> Path:
    """Where a shard of a folder lies."""
    return folder / f"shard-{shard:05d}.safetensors"


def _is_coarse(head: Head, block: Block, stored: Tensor) -> bool:
    """Whether rounding changes the differences between a sample's logits noticeably."""
    weight = head.weight.double() - head.weight.double().mean(0)
    exact, rounded = (z.double() @ weight.T for z in (block.features, stored))
    return bool((exact - rounded).norm() > COARSE * (exact - exact.mean(0)).norm())


def require_space(
    folder: Path, n_samples: int, n_features: Sequence[int], store: torch.dtype
) -> None:
    """Refuse before the long work starts if the features cannot fit on the disk.

    Args:
        folder: where they go; shards that are there already are counted.
        n_samples: of each layer.
        n_features: of each layer.
        store: float32 or float16.
    """
    needed = n_samples * sum(n * store.itemsize + 64 for n in n_features)
    there = sum(path.stat().st_size for path in folder.rglob("shard-*"))
    free = shutil.disk_usage(folder).free
    if needed - there > free:
        raise InputError(
            f"the features of {n_samples} samples need {needed / 1e6:,.1f} MB and the disk of "
            f"{folder} has {free / 1e6:,.1f} MB free: free some space, choose another --out, or "
            "halve the need with --store float16"
        )
