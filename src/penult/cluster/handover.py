"""Handover: how the shards that workers write come to the command that has asked for them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from penult.cluster.exchange import Exchange
from penult.errors import InputError
from penult.features.shard_folder import shard_path
from penult.features.shards import Block, read_shard, shard_shape
from penult.storage import write_atomically, write_json

AT_ONCE = 4  # shards that are fetched
LOOKED_AT = 16  # shards at once, of which it is asked whether they are whole
BEGUN = "begun.json"  # what tells workers that the storage is the one that the command means


class Handover(Protocol):
    """Where the shards of one part lie for workers, each of which is sent it."""

    def begin(self) -> None:
        """By the command: leave what `require_seen` looks for."""

    def require_seen(self) -> None:
        """By a worker: refuse to begin where its shards would not arrive."""

    def has(self, shard: int) -> bool:
        """Whether a shard is there, whole."""

    def found(self, n_shards: int) -> set[int]:
        """Of the first so many shards, those that are there."""

    def writing(self) -> AbstractContextManager[Path]:
        """By a worker: a folder into which it writes shards, each of which is then `written`."""

    def written(self, folder: Path, shard: int) -> None:
        """By a worker: hand over a shard."""

    def block(self, shard: int) -> Block:
        """A shard's samples."""

    def fetch(self, shard: int, folder: Path) -> None:
        """By the command: copy a shard into its own folder, where it is not there already."""

    def end(self) -> None:
        """By the command, which has all shards: remove what it does not need."""


@dataclass(frozen=True)
class SharedFolder:
    """The run's own folder, which all workers see."""

    folder: Path

    def begin(self) -> None:
        """See `Handover`; the folder's index is there."""

    def require_seen(self) -> None:
        """See `Handover`."""
        if not (self.folder / "index.json").is_file():
            raise InputError(
                f"it does not see {self.folder}: --out must lie where all workers see it, such as "
                "on a file system that the machines share; or give --exchange ADDRESS of object "
                "storage, through which they hand over what they write"
            )

    def has(self, shard: int) -> bool:
        """See `Handover`."""
        return shard_path(self.folder, shard).exists()

    def found(self, n_shards: int) -> set[int]:
        """See `Handover`."""
        return {shard for shard in range(n_shards) if self.has(shard)}

    def writing(self) -> AbstractContextManager[Path]:
        """See `Handover`."""
        return nullcontext(self.folder)

    def written(self, folder: Path, shard: int) -> None:
        """See `Handover`; it is where it belongs."""

    def block(self, shard: int) -> Block:
        """See `Handover`."""
        return next(read_shard(shard_path(self.folder, shard), rows=None))

    def fetch(self, shard: int, folder: Path) -> None:
        """See `Handover`."""
        if not shard_path(folder, shard).exists():
            raise InputError(
                f"{shard_path(folder, shard)} was written by a worker and is not seen here: --out "
                "must lie where all workers and this process see it; or give --exchange ADDRESS"
            )

    def end(self) -> None:
        """See `Handover`."""


@dataclass(frozen=True)
class StoredShards:
    """A folder of an exchange, for workers that do not see the run's own.

    They stay there until the command has all of them, so that those which are added up later can be
    read.
    """

    exchange: Exchange

    def begin(self) -> None:
        """See `Handover`."""
        with tempfile.TemporaryDirectory() as made:
            file = Path(made) / BEGUN
            write_json(file, {"format": "penult-exchange/1"})
            self.exchange.put(file, BEGUN)

    def require_seen(self) -> None:
        """See `Handover`."""
        if not self.exchange.has(BEGUN):
            raise InputError(
                f"it does not see {self.exchange.address}, into which the command has written: "
                "--exchange must be the same storage for all machines"
            )

    def has(self, shard: int) -> bool:
        """See `Handover`."""
        return self.exchange.has_tensors(_name(shard))

    def found(self, n_shards: int) -> set[int]:
        """See `Handover`."""
        names = self.exchange.names()
        listed = [shard for shard in range(n_shards) if _name(shard) in names]
        with ThreadPoolExecutor(LOOKED_AT) as pool:
            whole = pool.map(self.has, listed)
            return {shard for shard, is_whole in zip(listed, whole, strict=True) if is_whole}

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """See `Handover`."""
        with tempfile.TemporaryDirectory(prefix="penult-shards-") as made:
            yield Path(made)

    def written(self, folder: Path, shard: int) -> None:
        """See `Handover`."""
        file = shard_path(folder, shard)
        self.exchange.put(file, file.name)
        file.unlink()

    def block(self, shard: int) -> Block:
        """See `Handover`."""
        with self.writing() as made:
            self.exchange.get(_name(shard), made / _name(shard))
            return next(read_shard(made / _name(shard), rows=None))

    def fetch(self, shard: int, folder: Path) -> None:
        """See `Handover`."""
        path = shard_path(folder, shard)
        if not path.exists():

            def get(file: Path) -> None:
                self.exchange.get(path.name, file)
                shard_shape(file)  # what came is whole

            write_atomically(path, get)

    def end(self) -> None:
        """See `Handover`."""
        self.exchange.clear()


class Fetching:
    """Shards on their way to the command, some at once.

    Args:
        place: where they lie.
        folder: where they go.
    """

    def __init__(self, place: Handover, folder: Path) -> None:
        self._place, self._folder = place, folder
        self._pool = ThreadPoolExecutor(AT_ONCE)
        self._begun: dict[int, Future[None]] = {}

    def begin(self, shards: Iterable[int]) -> None:
        """Fetch some."""
        for shard in shards:
            self._begun[shard] = self._pool.submit(self._place.fetch, shard, self._folder)

    def wait(self, shards: Iterable[int]) -> None:
        """Until some are there; of the others nothing is said.

        Raises:
            InputError: one of them cannot be fetched.
        """
        for shard in shards:
            if shard in self._begun:
                self._begun.pop(shard).result()

    def end(self) -> None:
        """Fetch no more."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _name(shard: int) -> str:
    return shard_path(Path(), shard).name
