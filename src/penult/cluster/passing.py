"""Passing: the images of a run passed through the network by the workers of a cluster."""

from __future__ import annotations

import hashlib
import json
import secrets
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from penult.cluster.exchange import Exchange
from penult.cluster.handover import Fetching, Handover, SharedFolder, StoredShards
from penult.cluster.job import (
    Made,
    Opened,
    PartJob,
    PassJob,
    add_up,
    files_of,
    make_shards,
    sums_of,
)
from penult.cluster.packed import unpacked
from penult.cluster.session import Place, Resources, connected, undisturbed
from penult.cluster.tally import SharedTally
from penult.errors import InputError
from penult.extras import import_extra
from penult.features.shard_folder import ShardFolder
from penult.progress import Progress
from penult.runs.parts import Part
from penult.runs.sums import Summing, Sums, Total
from penult.storage import sweep
from penult.text import duration
from penult.user_code import code_digest

POLL = 0.5  # seconds between two looks at the workers
MEASURED = 3.0  # seconds over which it is measured how fast they are
RETRIES = 4  # times that a task is begun anew where its worker or node died
LONGEST = 8  # shards of one task, which reads their images without a pause
TASKS = 4  # of each worker at least, so that none waits long for the others


@contextmanager
def cluster_fill(
    place: Place,
    opens: Callable[[], Opened],
    subject: Opened,
    progress: Callable[[str], Progress] | None = None,
    say: Callable[[str], None] | None = None,
) -> Iterator[ClusterFill]:
    """Hold a cluster for `analyze_network(…, fill=…)`; Ray is started when it is first needed.

    Args:
        place: where the workers are; see `check_place`.
        opens: opens the network and the images, on each worker; a function of a module that all
            workers have, or a `partial` of one.
        subject: the same, as this process has opened it.
        progress: called with the name of a phase; gives the function that hears of its progress.
        say: hears how fast the workers are, and how long they will take.
    """
    with ExitStack() as held:
        yield ClusterFill(place, opens, subject, progress, say, held)


@dataclass(eq=False)
class ClusterFill:
    """Fills the folders of a run's parts by workers; see `cluster_fill` and `Fill`."""

    place: Place
    opens: Callable[[], Opened]
    subject: Opened
    progress: Callable[[str], Progress] | None
    say: Callable[[str], None] | None
    held: ExitStack

    def __post_init__(self) -> None:
        self._resources: Resources | None = None
        self._job: Any = None
        self._told = False

    def __call__(self, name: str, part: Part, shards: ShardFolder, summing: Summing) -> Sums:
        """Write the shards that are not there yet, and add up all of them."""
        images, how = self.subject.part(name if part.view is None else "train")
        complete = shards.claim()
        rows = how.batch_size * how.batches_per_shard
        n_shards = -(-part.n_samples // rows)
        resources = self._begin()
        place = self._handover(name, shards)
        given = PartJob(name, place, images.fingerprint, part.n_samples, summing, part.view)
        work = _Work(self._job, given, shards, n_shards, rows, resources)
        total = Total(summing)
        heard = self.progress(name) if self.progress else lambda done, total: None
        try:
            for sums in work.spans(heard, self._tell if self.say else None):
                total.add_span(sums)
            work.fetched()
        finally:
            with undisturbed():
                work.cancel()
        sweep(shards.folder)  # what workers left that died while they wrote
        for text in work.said:
            warnings.warn(text, stacklevel=2)
        shards.take(n_shards)
        if not complete:
            shards.finish()
        place.end()
        return total.sums

    def _handover(self, name: str, shards: ShardFolder) -> Handover:
        """Where workers leave the shards of a part."""
        folder = shards.folder.resolve()
        if self.place.exchange is None:
            return SharedFolder(folder)
        # The same for the same command, which then goes on with what it finds there.
        whose = json.dumps([socket.gethostname(), str(folder), shards.identity], sort_keys=True)
        key = hashlib.blake2b(whose.encode(), digest_size=8).hexdigest()
        place = StoredShards(Exchange(self.place.exchange).inside(f"penult-{key}"))
        place.begin()
        return place

    def _begin(self) -> Resources:
        """Start or join Ray, once."""
        if self._resources is None:
            self._resources = self.held.enter_context(connected(self.place, self.say))
            files: dict[str, tuple[int, int]] = {}
            for name in ("train", "eval", "also"):
                images, _ = self.subject.part(name)
                if images is not None:
                    files |= files_of(images.describe())
            job = PassJob(
                secrets.token_hex(8),
                self.opens,
                Path.cwd(),
                self.subject.network_about["fingerprint"],
                self.subject.head.fingerprint(),
                code_digest(str(self.subject.network_about["spec"])),
                files,
                self.subject.how.store,
            )
            self._job = import_extra("ray", "cluster").put(job)
        return self._resources

    def _tell(self, rate: float, n_left: int, n_samples: int, memory: int) -> None:
        """Say once how fast the workers are, and what is to come."""
        if self._told or self.say is None or self._resources is None:
            return
        self._told = True
        n, n_nodes = self._resources.n_workers, self._resources.n_nodes
        where = "this machine" if self.place.local else f"{n_nodes} machines"
        disk = n_samples * (self.subject.head.n_features * self.subject.how.store.itemsize + 64)
        self.say(
            f"{n} workers on {where}: {rate:,.0f} images a second, about {duration(n_left / rate)} "
            f"for the {n_left:,} images that are left; {disk / 1e9:,.2f} GB of features on disk, "
            f"{memory / 1e9:,.1f} GB of memory for each worker"
        )


class _Work:
    """The tasks of one part: shards in any order, sums of spans as soon as their shards are there.

    Args:
        job: what all tasks have in common, held by Ray.
        part: what is passed through the network.
        shards: the run's own folder of them.
        n_shards: in all.
        rows: samples of a shard.
        resources: of a worker.
    """

    def __init__(
        self,
        job: Any,
        part: PartJob,
        shards: ShardFolder,
        n_shards: int,
        rows: int,
        resources: Resources,
    ) -> None:
        self._ray = import_extra("ray", "cluster")
        self._part, self._rows, self._n_shards = part, rows, n_shards
        self._given = self._ray.put(part)
        self.said: list[str] = []
        self._tally = self._ray.remote(num_cpus=0, max_restarts=-1)(SharedTally).remote()
        # Workers are kept from task to task, so that each loads the network once.
        again = {"max_retries": RETRIES, "max_calls": 0, **resources.options}
        self._make = self._ray.remote(**again)(make_shards)
        self._add = self._ray.remote(**again)(add_up)
        self._own = SharedFolder(shards.folder)
        own = self._own.found(n_shards)
        self._handed = part.place.found(n_shards)
        self._there = own | self._handed
        self._fetching = Fetching(part.place, shards.folder)
        self._fetching.begin(self._handed - own)
        self._n_found = self._samples(self._there)
        self._pending: dict[Any, tuple[int, int] | int] = {}
        self._sums: dict[int, Any] = {}
        for first, stop in self._chunks(resources.n_workers):
            made = self._make.remote(job, self._given, first, stop, self._tally)
            self._pending[made] = (first, stop)

    def _samples(self, shards: set[int]) -> int:
        return sum(min(self._rows, self._part.n_samples - self._rows * shard) for shard in shards)

    def _chunks(self, n_workers: int) -> list[tuple[int, int]]:
        """Ranges of shards that are not there, none too long."""
        missing = [shard for shard in range(self._n_shards) if shard not in self._there]
        longest = max(1, min(LONGEST, len(missing) // (TASKS * n_workers)))
        found: list[tuple[int, int]] = []
        for shard in missing:
            if found and found[-1][1] == shard and shard - found[-1][0] < longest:
                found[-1] = (found[-1][0], shard + 1)
            else:
                found.append((shard, shard + 1))
        return found

    def spans(
        self, heard: Progress, tell: Callable[[float, int, int, int], None] | None
    ) -> Iterator[Sums]:
        """The sums of all spans, in order."""
        span, merged = self._part.summing.span, 0
        n_spans = -(-self._n_shards // span)
        for number in range(n_spans):
            self._sum_if_there(number)
        pace = _Speed()
        while merged < n_spans:
            if self._pending:
                done, _ = self._ray.wait([*self._pending], timeout=POLL)
                for reference in done:
                    self._take(reference)
                self._hear(heard, tell, pace)
            while merged in self._sums:
                yield self._sums_of(merged)
                merged += 1

    def _sums_of(self, number: int) -> Sums:
        """Those of a span, added up by a worker or, where it cannot read the shards, here."""
        reference = self._sums.pop(number)
        if reference is not None:
            return unpacked(self._result(reference), self._part.summing)
        shards = self._shards_of(number)
        self._fetching.wait(shards)
        return sums_of(
            self._own, replace(self._part.summing, device="cpu"), shards.start, shards.stop
        )

    def _shards_of(self, number: int) -> range:
        """The shards of a span."""
        span = self._part.summing.span
        return range(number * span, min((number + 1) * span, self._n_shards))

    def fetched(self) -> None:
        """Until the run's folder has all shards."""
        self._fetching.wait(range(self._n_shards))

    def _take(self, reference: Any) -> None:
        """Note what a task has done."""
        task = self._pending.pop(reference)
        if isinstance(task, int):
            self._sums[task] = reference
            return
        made: Made = self._result(reference, task)
        self.said += [text for text in made.said if text not in self.said]
        new = set(range(*task))
        self._fetching.begin(new - self._handed)
        self._handed |= new
        self._there |= new
        span = self._part.summing.span
        for number in range(task[0] // span, (task[1] - 1) // span + 1):
            self._sum_if_there(number)

    def _sum_if_there(self, number: int) -> None:
        """Have a span added up whose shards are all there."""
        shards = self._shards_of(number)
        if self._handed.issuperset(shards):
            self._pending[self._add.remote(self._given, shards.start, shards.stop)] = number
        elif self._there.issuperset(shards):  # some lie in the run's folder alone
            self._sums[number] = None

    def _hear(
        self,
        heard: Progress,
        tell: Callable[[float, int, int, int], None] | None,
        pace: _Speed,
    ) -> None:
        """Say how far all workers are."""
        errors = self._ray.exceptions
        try:
            done, memory = self._ray.get(self._tally.state.remote(self._part.name), timeout=POLL)
        except (errors.GetTimeoutError, errors.RayActorError):
            return
        n = self._part.n_samples
        heard(min(n, self._n_found + done), n)
        rate = pace.rate(done)
        if tell is not None and rate is not None:
            tell(rate, max(0, n - self._n_found - done), n, memory)

    def _result(self, reference: Any, shards: tuple[int, int] | None = None) -> Any:
        errors = self._ray.exceptions
        try:
            return self._ray.get(reference)
        except errors.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise
        except (errors.WorkerCrashedError, errors.OutOfMemoryError, errors.NodeDiedError) as error:
            what = "sums" if shards is None else f"shards {shards[0]} to {shards[1] - 1}"
            raise InputError(
                f"{RETRIES + 1} workers died, one after the other, on the same {what} of "
                f"{self._part.name}: they may have run out of memory; give a smaller --batch-size, "
                "or nodes with more memory, and repeat the command, which goes on where it stopped"
            ) from error

    def cancel(self) -> None:
        """End what is not done."""
        for reference in self._pending:
            self._ray.cancel(reference, force=True)
        self._pending.clear()
        self._fetching.end()
        self._ray.kill(self._tally)


class _Speed:
    """How fast samples are done, once it can be told."""

    def __init__(self) -> None:
        self._begun: tuple[float, int] | None = None

    def rate(self, done: int) -> float | None:
        """Samples in a second; None at first."""
        now = time.monotonic()
        if not done:
            return None
        if self._begun is None:
            self._begun = (now, done)
        since, before = self._begun
        if now - since < MEASURED or done == before:
            return None
        return (done - before) / (now - since)
