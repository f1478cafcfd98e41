"""Fitting: passes over features that the workers of a cluster hold, as maps and sums."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial, reduce
from operator import add
from typing import Any

from torch import Tensor

from penult.cluster.holder import (
    Held,
    Holder,
    Segment,
    counted,
    evidence,
    passed,
    summed,
    surveyed,
    taken,
)
from penult.cluster.session import Place, Resources, connected
from penult.errors import InputError
from penult.extras import import_extra
from penult.features.features import Features
from penult.features.influence import Evidence
from penult.features.moments import Moments
from penult.features.piece import Piece
from penult.heads.comparison import Classifier, PairedCounts
from penult.heads.pace import Tick
from penult.heads.reading import Together
from penult.heads.samples import MEMORY_LIMIT, Samples, Sums, Tile
from penult.heads.survey import SampleSurvey
from penult.network.head import Head
from penult.text import one_line

# Segments at most: few sums to hand over, and a share for each of many workers.
MOST_SEGMENTS = 64
USED = 0.5  # part of a node's memory that features may take


@contextmanager
def cluster_reader(
    place: Place, say: Callable[[str], None] | None = None
) -> Iterator[ClusterReader]:
    """Hold the workers of a cluster for `fit_path(…, reader=…)`.

    Args:
        place: where the workers are; see `check_place`.
        say: hears what the workers hold.
    """
    with connected(place, say) as resources:
        yield ClusterReader(resources, _memory(place, resources), say)


def _memory(place: Place, resources: Resources) -> int:
    """Bytes of features that all workers together may hold."""
    if place.local:
        return MEMORY_LIMIT
    nodes = import_extra("ray", "cluster").nodes()
    there = [node["Resources"].get("memory", 0) for node in nodes if node["Alive"]]
    return max(MEMORY_LIMIT, int(USED * min(there) * resources.n_nodes))


class ClusterReader:
    """Makes the passes of fits by workers; see `PassReader`."""

    def __init__(
        self, resources: Resources, memory: int, say: Callable[[str], None] | None
    ) -> None:
        self._ray = import_extra("ray", "cluster")
        # A worker that died is begun anew on any node, since it keeps no CPU for itself.
        holder = self._ray.remote(
            max_restarts=-1, max_task_retries=-1, scheduling_strategy="SPREAD"
        )(Holder)
        self._holders = [holder.remote() for _ in range(resources.n_workers)]
        self._memory, self._say, self._said = memory, say, False

    def begin(self, features: Features, also: Sequence[Features], read: Tick) -> ClusterReading:
        """See `PassReader`."""
        return ClusterReading(self, features, also, read)

    def counts(
        self, before: Classifier, heads: Sequence[Classifier], judges: Features
    ) -> list[PairedCounts]:
        """See `PassReader`."""
        crew = self.hold([(piece, True) for piece in judges.pieces()], judges.require_head(), False)
        found: list[list[PairedCounts]] = crew.each(partial(counted, before, heads))
        return [reduce(add, of_head) for of_head in zip(*found, strict=True)]

    def hold(self, pieces: Sequence[tuple[Piece, bool]], head: Head, labels: bool) -> Crew:
        """Deal out features to the workers, as segments that depend on the features alone."""
        segments = [Segment(part, head) for part in segmented(pieces)]
        n = sum(segment.n_samples for segment in segments)
        needed = 4 * n * (head.n_features + head.n_classes)
        if self._say is not None and not self._said:
            self._said = True
            room = "stay in memory" if needed <= self._memory else "are read anew in each pass"
            self._say(
                f"{len(self._holders)} workers hold {n:,} samples: {needed / 1e9:.1f} GB with the "
                f"network's probabilities, of at most {self._memory / 1e9:.1f} GB that stay in "
                f"memory, so these {room}"
            )
        files = {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in set().union(*(segment.files for segment in segments))
        }
        memory = self._memory // len(segments)
        held = Held(secrets.token_hex(8), segments, labels, memory, files)
        return Crew(self._ray, self._holders, held)


def segmented(pieces: Sequence[tuple[Piece, bool]]) -> list[list[tuple[Piece, bool]]]:
    """Pieces in at most `MOST_SEGMENTS` runs of about as many samples."""
    n = sum(piece.n_samples for piece, _ in pieces)
    found: list[list[tuple[Piece, bool]]] = []
    done = 0
    for piece in pieces:
        if not found or done >= len(found) * n / MOST_SEGMENTS:
            found.append([])
        found[-1].append(piece)
        done += piece[0].n_samples
    return found


@dataclass(frozen=True, eq=False)
class Crew:
    """The workers, and what they hold for one fit."""

    ray: Any
    holders: Sequence[Any]
    held: Held

    @cached_property
    def _handed_over(self) -> Any:
        """What the workers hold, where all of them can take it."""
        return self.ray.put(self.held)

    def each(self, *tasks: Callable[..., Any]) -> list[Any]:
        """What each segment gives, in order.

        Args:
            tasks: one for all segments, or one for each.

        Raises:
            InputError: a worker cannot read its features; names it. One has died for good.
        """
        n, n_holders = len(self.held.segments), len(self.holders)
        held, given = self._handed_over, [self.ray.put(task) for task in tasks]
        asked = {}
        for i, holder in enumerate(self.holders):
            numbers = range(i * n // n_holders, (i + 1) * n // n_holders)
            if len(given) == 1 and len(numbers):
                asked[tuple(numbers)] = holder.each.remote(held, list(numbers), given[0])
            elif len(numbers):
                for number in numbers:
                    asked[(number,)] = holder.each.remote(held, [number], given[number])
        try:
            found = self.ray.get(list(asked.values()))
        except self.ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, InputError):
                raise error.cause from None
            raise
        except self.ray.exceptions.RayActorError as error:
            raise InputError(
                f"a worker has died and Ray could not begin it anew ({one_line(str(error), 120)}): "
                "repeat the command"
            ) from error
        return [one for part in found for one in part]


class ClusterReading:
    """See `FitReading`."""

    def __init__(
        self, reader: ClusterReader, features: Features, also: Sequence[Features], read: Tick
    ) -> None:
        self._features, self._also, self._read = features, also, read
        pieces = [(piece, True) for piece in features.pieces()]
        pieces += [(piece, False) for part in also for piece in part.pieces()]
        self._hold = partial(reader.hold, pieces, features.require_head())
        self._crew: Crew | None = None

    def samples(self, labels: bool) -> SpreadSamples:
        """See `FitReading`."""
        self._crew = self._hold(labels)
        found = SpreadSamples(self._crew, Together(self._features, self._also))
        self._read(found.n_samples)
        return found

    def moments(self) -> Moments:
        """See `FitReading`."""
        found: list[Moments] = self._workers.each(summed)
        return reduce(add, found)

    def evidence(self, ks: Sequence[int], seed: int) -> Evidence:
        """See `FitReading`."""
        found: list[Evidence] = self._workers.each(partial(evidence, ks, seed))
        return reduce(add, found)

    @property
    def _workers(self) -> Crew:
        if self._crew is None:
            self._crew = self._hold(False)
        return self._crew


class SpreadSamples(Samples):
    """Samples that workers hold: a pass is a map over their segments, and a sum.

    Sums are made segment by segment, whoever holds which, so that they do not depend on the number
    of workers.

    Args:
        crew: the workers.
        blocks: the samples, as this process can read them.
    """

    def __init__(self, crew: Crew, blocks: Together) -> None:
        self._crew = crew
        head = crew.held.segments[0].head
        found: list[tuple[SampleSurvey, bool]] = crew.each(surveyed)
        super().__init__(
            blocks,
            head.weight,
            head.bias,
            labels=crew.held.labels,
            link=head.link,
            survey=reduce(add, [survey for survey, _ in found]),
        )
        self.keeps_targets = all(keeps for _, keeps in found)
        self._starts = [0]
        for survey, _ in found:
            self._starts.append(self._starts[-1] + survey.n_samples)

    def total(self, passing: Callable[[Samples], Sums]) -> Sums:
        """What a pass over all samples adds up."""
        if self._cache is not None:  # a part of the samples, which is here
            return passing(self)
        found: list[Sums] = self._crew.each(partial(passed, passing))
        return tuple(reduce(add, parts) for parts in zip(*found, strict=True))

    def taken(self, chosen: Tensor) -> list[Tile]:
        """Some samples in tiles, with their targets."""
        if self._cache is not None:
            return super().taken(chosen)
        tasks = [partial(taken, chosen, start) for start in self._starts[:-1]]
        return [tile for tiles in self._crew.each(*tasks) for tile in tiles]
