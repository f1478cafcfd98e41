"""Holder: a worker that holds some of the features, and makes passes over them."""

from __future__ import annotations

import socket
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from penult.cluster.job import require_unchanged
from penult.errors import InputError
from penult.features.influence import Evidence
from penult.features.moments import Moments
from penult.features.piece import Piece
from penult.features.shards import Block
from penult.heads.comparison import Classifier, PairedCounts, paired_counts
from penult.heads.reading import moments_of, no_labels
from penult.heads.samples import Samples, Sums, Tile
from penult.heads.survey import SampleSurvey
from penult.network.head import Head


@dataclass(frozen=True, eq=False)
class Segment:
    """Consecutive pieces of the features; the unit in which sums are made.

    Attributes:
        pieces: with whether their labels count.
        head: the dense head.
    """

    pieces: Sequence[tuple[Piece, bool]]
    head: Head

    @property
    def n_samples(self) -> int:
        """In all."""
        return sum(piece.n_samples for piece, _ in self.pieces)

    @property
    def files(self) -> set[Path]:
        """That are read."""
        return {piece.part for piece, _ in self.pieces if isinstance(piece.part, Path)}

    # What passes over features want of them, see `Features`.

    @property
    def link(self) -> str:
        """What the logits mean."""
        return self.head.link

    @property
    def n_classes(self) -> int:
        """Of the head."""
        return self.head.n_classes

    @property
    def n_features(self) -> int:
        """Of the head."""
        return self.head.n_features

    def blocks(self) -> Iterator[Block]:
        """All samples, in order."""
        for piece, _ in self.pieces:
            yield from piece.blocks()

    def labelled(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Features and labels, of those whose labels count."""
        return ((z, y) for piece, counts in self.pieces if counts for z, y in piece.blocks())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        shape = (self.n_classes,) if self.head.multi_label else ()
        for piece, counts in self.pieces:
            for z, labels in piece.blocks():
                yield z, labels if counts else no_labels(len(labels), shape)


@dataclass(frozen=True, eq=False)
class Held:
    """Features that the workers hold for one fit.

    Attributes:
        key: tells it from others.
        segments: all of them, whoever holds which.
        labels: whether heads are fitted to the labels.
        memory: bytes of each segment up to which it stays in a worker's memory.
        files: sizes and times of the files, as they were when the fit was begun.
    """

    key: str
    segments: Sequence[Segment]
    labels: bool
    memory: int
    files: Mapping[str, tuple[int, int]]


class Holder:
    """A worker's memory: the segments that it has read once stay with it where they fit."""

    def __init__(self) -> None:
        self._key = ""
        self._samples: dict[int, Samples] = {}

    def each(self, held: Held, numbers: Sequence[int], task: Callable[..., Any]) -> list[Any]:
        """What a task gives for some of the segments, each called as `task(samples, segment)`."""
        if held.key != self._key:
            self._key, self._samples = held.key, {}
        try:
            with warnings.catch_warnings(action="ignore"):
                require_unchanged(held.files)
                return [task(partial(self._of, held, n), held.segments[n]) for n in numbers]
        except InputError as error:
            raise type(error)(f"a worker on {socket.gethostname()}: {error}") from None

    def _of(self, held: Held, number: int) -> Samples:
        if number not in self._samples:
            segment = held.segments[number]
            head = segment.head
            self._samples[number] = Samples(
                segment,
                head.weight,
                head.bias,
                labels=held.labels,
                link=head.link,
                memory_limit=held.memory,
            )
        return self._samples[number]


Get = Callable[[], Samples]


def surveyed(samples: Get, segment: Segment) -> tuple[SampleSurvey, bool]:
    """What the first reading found, and whether targets are kept in memory."""
    found = samples()
    return found.survey, found.keeps_targets


def passed(passing: Callable[[Samples], Sums], samples: Get, segment: Segment) -> Sums:
    """What a pass adds up."""
    return passing(samples())


def taken(chosen: Tensor, start: int, samples: Get, segment: Segment) -> list[Tile]:
    """Those of the chosen samples that a segment has, which begins at sample `start`."""
    own = chosen[(chosen >= start) & (chosen < start + segment.n_samples)] - start
    return samples().taken(own) if len(own) else []


def summed(samples: Get, segment: Segment) -> Moments:
    """Moments of all samples."""
    return moments_of(segment.n_classes, segment.n_features, segment)


def evidence(ks: Sequence[int], seed: int, samples: Get, segment: Segment) -> Evidence:
    """Of the samples whose labels count."""
    found = Evidence.zeros(segment.head.weight, ks, seed=seed)
    for z, labels in segment.labelled():
        found.update(z, labels)
    return found


def counted(
    before: Classifier, heads: Sequence[Classifier], samples: Get, segment: Segment
) -> list[PairedCounts]:
    """Each head against the one before."""
    with torch.no_grad():
        return paired_counts(before, heads, segment, divergence=True)
