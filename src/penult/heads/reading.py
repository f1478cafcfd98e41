"""Reading: who makes the passes over the features that heads are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

import torch

from penult.features.features import Features
from penult.features.influence import Evidence
from penult.features.moments import Moments
from penult.heads.comparison import Classifier, PairedCounts, paired_counts
from penult.heads.pace import Tick
from penult.heads.samples import Samples


class FitReading(Protocol):
    """Features that heads are fitted to, while they are read."""

    def samples(self, labels: bool) -> Samples:
        """With the dense head's probabilities as targets, or the labels."""

    def moments(self) -> Moments:
        """Of all of them."""

    def evidence(self, ks: Sequence[int], seed: int) -> Evidence:
        """Of those that have labels, with counts for the sizes `ks`."""


class PassReader(Protocol):
    """What reads features: this process, or the workers of a cluster."""

    def begin(self, features: Features, also: Sequence[Features], read: Tick) -> FitReading:
        """Begin to read.

        Args:
            features: with their dense head.
            also: further features, part by part, whose labels do not count.
            read: called after so many samples.
        """

    def counts(
        self, before: Classifier, heads: Sequence[Classifier], judges: Features
    ) -> list[PairedCounts]:
        """Each head against the dense one, see `paired_counts`."""


class ReadHere:
    """This process reads, one block after the other."""

    def begin(self, features: Features, also: Sequence[Features], read: Tick) -> ReadingHere:
        """See `PassReader`."""
        return ReadingHere(features, also, read)

    def counts(
        self, before: Classifier, heads: Sequence[Classifier], judges: Features
    ) -> list[PairedCounts]:
        """See `PassReader`."""
        return paired_counts(before, heads, judges, divergence=True)


class ReadingHere:
    """See `FitReading`."""

    def __init__(self, features: Features, also: Sequence[Features], read: Tick) -> None:
        self._features = features
        self._together = Together(features, also, read)

    def samples(self, labels: bool) -> Samples:
        """See `FitReading`."""
        head = self._features.require_head()
        return Samples(self._together, head.weight, head.bias, labels=labels, link=head.link)

    def moments(self) -> Moments:
        """See `FitReading`."""
        head = self._features.require_head()
        return moments_of(head.n_classes, head.n_features, self._together)

    def evidence(self, ks: Sequence[int], seed: int) -> Evidence:
        """See `FitReading`."""
        return Evidence.of(self._features, ks, seed=seed)


class Together:
    """Features and further ones whose labels do not count, block by block."""

    def __init__(
        self,
        features: Features,
        also: Sequence[Features],
        read: Callable[[int], None] = lambda n: None,
    ) -> None:
        self._parts = [features, *also]
        self._shape = (features.n_classes,) if features.multi_label else ()
        self._read = read

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for i, part in enumerate(self._parts):
            for z, labels in part.blocks():
                self._read(len(labels))
                yield z, labels if i == 0 else no_labels(len(labels), self._shape)


def no_labels(n: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Labels of samples whose labels do not count, of the kind of those that do."""
    return torch.zeros((n, *shape), dtype=torch.bool if shape else torch.int64)


def moments_of(
    n_classes: int, n_features: int, blocks: Iterable[tuple[torch.Tensor, torch.Tensor]]
) -> Moments:
    """Moments of features, block by block."""
    found = Moments.zeros(n_classes, n_features)
    for z, labels in blocks:
        found.update(z, labels)
    return found
