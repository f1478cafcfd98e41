"""Job: what a worker is told, and what it does: write shards, and add them up."""

from __future__ import annotations

import os
import socket
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch

from penult.cluster.handover import Handover
from penult.cluster.packed import PackedSums, packed
from penult.data.source import ImageSource, Pass
from penult.data.tar_images import is_pattern, shard_paths
from penult.data.tokens import Preparation
from penult.errors import InputError
from penult.features.collect import network_shards
from penult.features.shard_folder import ShardFolder
from penult.network.head import Head
from penult.runs.sums import Summing, Sums
from penult.runs.views import ImageView
from penult.user_code import code_digest

T = TypeVar("T")

PAUSE = 0.5  # seconds between two words of a worker on its progress


class Opened(Protocol):
    """A network with its images, as each worker opens them for itself."""

    @property
    def network(self) -> torch.nn.Module:
        """On its device."""

    @property
    def head(self) -> Head:
        """Its final linear map."""

    @property
    def transform(self) -> Preparation:
        """Preprocessing."""

    @property
    def how(self) -> Pass:
        """How the network is run."""

    @property
    def network_about(self) -> Mapping[str, Any]:
        """With the "fingerprint" of the network."""

    def part(self, name: str) -> tuple[Any, Pass]:
        """The images of "train", "eval" or "also", and how they are read."""


@dataclass(frozen=True)
class PassJob:
    """What all tasks of one command have in common.

    Attributes:
        key: tells it from other jobs of the same worker process.
        opens: opens the network and the images, where the worker is.
        folder: the current one of the command, from which relative paths start.
        network, head: fingerprints of what the command itself opened.
        code: digest of the network's code, likewise.
        files: sizes and times of the files that hold the images.
        store: dtype in which features are stored.
    """

    key: str
    opens: Callable[[], Opened]
    folder: Path
    network: str
    head: str
    code: str | None
    files: Mapping[str, tuple[int, int]]
    store: torch.dtype


@dataclass(frozen=True)
class PartJob:
    """One part of a job's data.

    Attributes:
        name: "train", "eval", "also", or what a view is called.
        place: where its shards are handed over.
        fingerprint: of its data.
        n_samples: in all.
        summing: how its samples are added up.
        view: how it is made of the images of "train", where it is a view of them.
    """

    name: str
    place: Handover
    fingerprint: str
    n_samples: int
    summing: Summing
    view: ImageView | None = None

    @property
    def images(self) -> str:
        """The part whose images are read."""
        return self.name if self.view is None else "train"


@dataclass(frozen=True)
class Made:
    """What a worker says of the shards that it wrote.

    Attributes:
        first, stop: the shards.
        said: warnings.
    """

    first: int
    stop: int
    said: list[str]


_stations: dict[str, Opened] = {}  # of this worker process: one, so that a network is loaded once


def opened(job: PassJob) -> Opened:
    """The network and the images of a job, opened by this process the first time."""
    if job.key not in _stations:
        _stations.clear()
        with suppress(OSError):  # else a relative path is not found, which says more
            os.chdir(job.folder)
        with warnings.catch_warnings(action="ignore"):
            station = job.opens()
        if station.network_about["fingerprint"] != job.network:
            raise InputError("its network has other weights than that of the command")
        if code_digest(str(station.network_about["spec"])) != job.code:
            raise InputError("its network has other code than that of the command")
        if station.head.fingerprint() != job.head:
            raise InputError("it finds another final layer in the network than the command")
        _stations[job.key] = station
    return _stations[job.key]


def files_of(about: Mapping[str, Any]) -> dict[str, tuple[int, int]]:
    """Size and time of change of the files that hold images in one piece: archives and tables.

    Args:
        about: what the images say of themselves. Those in a folder are files of their own, and are
            not listed.
    """
    name = str(about.get("path", about.get("shards", "")))
    paths = shard_paths(name) if is_pattern(name) else [Path(name)]
    # Of `data.zip/train` the archive is what counts.
    whole = [next((at for at in (path, *path.parents) if at.is_file()), None) for path in paths]
    return {
        str(path.resolve()): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in whole
        if path is not None
    }


def require_unchanged(files: Mapping[str, tuple[int, int]]) -> None:
    """Refuse images whose file changed since the command was begun.

    Raises:
        InputError: names the file.
    """
    for name, was in files.items():
        try:
            now = Path(name).stat()
        except OSError as error:
            raise InputError(
                f"{name} cannot be read ({error.strerror}): all workers need the data under the "
                "path that the command names"
            ) from error
        if now.st_size != was[0] or now.st_mtime_ns != was[1]:
            raise InputError(
                f"{name} changed while it was read: let no other program write it, and repeat the "
                "command with --overwrite"
            )


def told(task: Callable[..., T]) -> Callable[..., T]:
    """A task whose errors name the machine that it ran on."""

    @wraps(task)
    def run(*given: Any) -> T:
        try:
            return task(*given)
        except InputError as error:
            raise type(error)(f"a worker on {socket.gethostname()}: {error}") from None

    return run


@told
def make_shards(job: PassJob, part: PartJob, first: int, stop: int, tally: Any) -> Made:
    """Write those of a range of shards that are not there yet."""
    part.place.require_seen()
    require_unchanged(job.files)
    station = opened(job)
    images, how = station.part(part.images)
    if images is None or images.fingerprint != part.fingerprint:
        raise InputError(f"its data of {part.images} are not those of the command")
    source = ImageSource(images, station.transform, how)
    if part.view is not None:
        source = part.view.source(images, station.transform, how)
    rows = how.batch_size * how.batches_per_shard
    heard = 0.0

    def progress(done: int, total: int) -> None:
        nonlocal heard
        if time.monotonic() - heard > PAUSE or done in (total, rows * stop):
            tally.tell.remote(part.name, first, done - rows * first, _memory())
            heard = time.monotonic()

    shards = network_shards(station.network, source, station.head, how, progress)
    with warnings.catch_warnings(record=True) as caught, part.place.writing() as written:
        warnings.simplefilter("always", UserWarning)
        folder = ShardFolder(written, station.head, None, job.store, {})
        for start, end in _missing(part.place, first, stop):
            for shard, (block, faults) in enumerate(shards(start, end), start):
                folder.write_at(shard, block, faults)
                part.place.written(written, shard)
    require_unchanged(job.files)
    done = min(rows * stop, part.n_samples) - rows * first
    tally.tell.remote(part.name, first, done, _memory())
    said = [str(one.message) for one in caught if one.category is UserWarning]
    return Made(first, stop, said)


def _missing(place: Handover, first: int, stop: int) -> list[tuple[int, int]]:
    """Ranges of shards that are not there."""
    found: list[tuple[int, int]] = []
    for shard in range(first, stop):
        if place.has(shard):
            continue
        if found and found[-1][1] == shard:
            found[-1] = (found[-1][0], shard + 1)
        else:
            found.append((shard, shard + 1))
    return found


@told
def add_up(part: PartJob, first: int, stop: int) -> PackedSums:
    """Sums of a range of shards."""
    summing = part.summing
    if not torch.cuda.is_available():  # the command's own machine may have a GPU
        summing = replace(summing, device="cpu")
    return packed(sums_of(part.place, summing, first, stop))


def sums_of(place: Handover, summing: Summing, first: int, stop: int) -> Sums:
    """Sums of a range of shards, in their order."""
    sums = summing.zeros()
    for shard in range(first, stop):
        sums.add(place.block(shard))
    return sums


def _memory() -> int:
    """Bytes of memory that this process took at most."""
    import resource  # not on every system on which a command is typed, but on those of workers

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most
