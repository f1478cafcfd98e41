"""Comparison: two heads on the same samples, what is lost and won, and where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from penult.features.features import Features
from penult.features.shards import Block
from penult.intervals import accuracy_interval, paired_bound, paired_interval, sign_test
from penult.network.head import Head
from penult.network.link import decided, divergences

Classifier = Callable[[Tensor], Tensor]
CHUNK = 2**24  # numbers in the logits of one step
USUAL = 20  # features per class of the largest head that is fitted without a look at others


class Judges(Protocol):
    """Samples on which heads are compared; `Features`, or a part of them."""

    @property
    def head(self) -> Head | None:
        """The dense head, whose classes may be recorded."""

    @property
    def link(self) -> str:
        """What the logits mean."""

    @property
    def n_samples(self) -> int:
        """In all."""

    @property
    def n_features(self) -> int:
        """Of each."""

    @property
    def n_classes(self) -> int:
        """Of the head."""

    def blocks(self) -> Iterator[Block]:
        """All of them, in order."""


@dataclass(frozen=True)
class PairedCounts:
    """How often two heads are right on the same samples.

    A sample asks for one decision, its class. A sample of multi-label data asks for one of each
    class, yes or no; those of one sample depend on each other, and intervals and bounds are made
    for that: see `effective`.

    Attributes:
        n_samples: in all.
        n_before: decisions that the first head has right.
        lost: decisions that only the first has right.
        won: decisions that only the second has right.
        n_agree: decisions that are the same by both.
        divergence: sum over the decisions of KL(first ‖ second) of the probabilities, in nats; None
            where it was not asked for.
        per_sample: decisions that each sample asks for.
        squares: sum over the samples of (lost − won)², where they ask for several.
    """

    n_samples: int
    n_before: int
    lost: int
    won: int
    n_agree: int
    divergence: float | None = None
    per_sample: int = 1
    squares: int = 0

    @classmethod
    def of(
        cls, labels: Tensor, before: Tensor, after: Tensor, divergence: float | None = None
    ) -> PairedCounts:
        """Counts from labels and the classes by both heads, each (n_samples,) int64.

        Of multi-label data all are (n_samples, n_classes) bool.
        """
        first, second = before == labels, after == labels
        several = labels.ndim == 2
        net = (first.int() - second.int()).sum(1) if several else first.new_zeros(0)
        return cls(
            len(labels),
            int(first.sum()),
            int((first & ~second).sum()),
            int((second & ~first).sum()),
            int((before == after).sum()),
            divergence,
            labels.shape[1] if several else 1,
            int(net.square().sum()),
        )

    def __add__(self, other: PairedCounts) -> PairedCounts:
        """Counts over both sets of samples."""
        mine, its = self.divergence, other.divergence
        return PairedCounts(
            self.n_samples + other.n_samples,
            self.n_before + other.n_before,
            self.lost + other.lost,
            self.won + other.won,
            self.n_agree + other.n_agree,
            None if None in (mine, its) else (mine or 0.0) + (its or 0.0),
            max(self.per_sample, other.per_sample),
            self.squares + other.squares,
        )

    @property
    def n_decisions(self) -> int:
        """Decisions in all: of each sample one, or one for each class."""
        return self.n_samples * self.per_sample

    @property
    def n_after(self) -> int:
        """Decisions that the second head has right."""
        return self.n_before - self.lost + self.won

    @property
    def before(self) -> float | None:
        """Accuracy of the first head; None without samples."""
        return self.n_before / self.n_decisions if self.n_samples else None

    @property
    def after(self) -> float | None:
        """Accuracy of the second head; None without samples."""
        return self.n_after / self.n_decisions if self.n_samples else None

    @property
    def loss(self) -> float | None:
        """Accuracy of the first head less that of the second; None without samples."""
        return (self.lost - self.won) / self.n_decisions if self.n_samples else None

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the loss."""
        return paired_interval(*self.effective)

    @property
    def at_most(self) -> float:
        """What the loss stays below with 95 % confidence."""
        return paired_bound(*self.effective)

    @property
    def agreement(self) -> float | None:
        """Fraction of the decisions that are the same by both; None without samples."""
        return self.n_agree / self.n_decisions if self.n_samples else None

    @property
    def kl(self) -> float | None:
        """Mean divergence of the probabilities of a decision, in nats; None where not known."""
        known = self.divergence is not None and self.n_samples
        return max(0.0, (self.divergence or 0.0) / self.n_decisions) if known else None

    @property
    def effective(self) -> tuple[float, float, float]:
        """Decisions lost, won and in all, as many as independent ones that would tell as much.

        The decisions of one sample are a cluster: the variance of the accuracy lost is that of the
        samples' own losses, Σ (lost − won)² over the samples, where independent decisions would
        have lost + won. One more sample that loses all of its decisions is counted in, so that few
        changes, or none, do not pass for the independence of decisions.
        """
        most = self.per_sample
        if most == 1:
            return self.lost, self.won, self.n_samples
        factor = (self.squares + most**2) / (self.lost + self.won + most)
        factor = max(1.0, factor)
        return self.lost / factor, self.won / factor, self.n_decisions / factor

    @property
    def p(self) -> float:
        """Two-sided p value of no change; of multi-label data by the clusters of `effective`."""
        if self.per_sample == 1:
            return sign_test(self.lost, self.won)
        lost, won, _ = self.effective
        return math.erfc(abs(lost - won) / math.sqrt(2 * (lost + won))) if lost + won else 1.0

    def _accuracy_interval(self, n_right: int) -> tuple[float, float]:
        """Of an accuracy; with several decisions per sample as if each sample told of one only."""
        return accuracy_interval(n_right / self.per_sample, self.n_samples)

    def document(self) -> dict[str, Any]:
        """As JSON holds it: the counts, and what follows from them."""
        return {
            "n_samples": self.n_samples,
            "before": self.before,
            "before_interval": list(self._accuracy_interval(self.n_before)),
            "after": self.after,
            "after_interval": list(self._accuracy_interval(self.n_after)),
            "lost": self.lost,
            "won": self.won,
            "loss": self.loss,
            "interval": list(self.interval),
            "at_most": self.at_most,
            "p": self.p,
            "agreement": self.agreement,
            "kl": self.kl,
        }


@dataclass(frozen=True, eq=False)
class Comparison:
    """The classes that two heads give to the same samples.

    The first is what was there before (the network's dense head), the second what takes its place
    (a sparse or an edited head).

    Attributes:
        labels, before, after: (n_samples,) int64, right class and those by both heads; of
            multi-label data (n_samples, n_classes) bool.
        n_classes: also of classes without samples.
        groups: (n_samples,) int64 ≥ 0, a group of each sample, or None.
        divergence: mean KL(first ‖ second) of the class probabilities, in nats; None where it was
            not asked for.
    """

    labels: Tensor
    before: Tensor
    after: Tensor
    n_classes: int
    groups: Tensor | None = None
    divergence: float | None = None

    @property
    def overall(self) -> PairedCounts:
        """Over all samples."""
        return PairedCounts.of(self.labels, self.before, self.after)

    def by_class(self) -> list[PairedCounts]:
        """For the samples of each class, n_classes of them; multi-label, the class's decisions."""
        if self.labels.ndim == 2:
            parts = zip(self.labels.T, self.before.T, self.after.T, strict=True)
            return [PairedCounts.of(*part) for part in parts]
        return self._each(self.labels, self.n_classes)

    def by_group(self) -> list[PairedCounts]:
        """For each group, up to the largest number that is given; none without groups."""
        if self.groups is None or not len(self.groups):
            return []
        return self._each(self.groups, int(self.groups.max()) + 1)

    def flips(self) -> list[tuple[int, int, int]]:
        """(class before, class after, samples), the commonest change first."""
        changed = self.changed()
        pairs = zip(self.before[changed].tolist(), self.after[changed].tolist(), strict=True)
        counted = Counter(pairs)
        return sorted(((b, a, n) for (b, a), n in counted.items()), key=lambda row: (-row[2], *row))

    def changed(self) -> Tensor:
        """Numbers of the samples with another class, or with others, (n_changed,) int64."""
        changed = self.before != self.after
        return (changed if changed.ndim == 1 else changed.any(1)).nonzero()[:, 0]

    def document(self, flips: int = 20) -> dict[str, Any]:
        """As JSON holds it, with the commonest changes of class."""
        return {
            **self.overall.document(),
            "divergence": self.divergence,
            "classes": [counts.document() for counts in self.by_class()],
            "groups": [counts.document() for counts in self.by_group()],
            "flips": [list(row) for row in self.flips()[:flips]],
        }

    def _each(self, key: Tensor, n: int) -> list[PairedCounts]:
        first, second = self.before == self.labels, self.after == self.labels
        same = self.before == self.after
        masks = (first, first & ~second, second & ~first, same)
        columns = [torch.bincount(key, minlength=n)]
        columns += [torch.bincount(key[mask], minlength=n) for mask in masks]
        return [PairedCounts(*row) for row in torch.stack(columns, 1).tolist()]


def compare_heads(
    before: Classifier,
    heads: Sequence[Classifier],
    features: Features,
    *,
    groups: Tensor | None = None,
    divergence: bool = False,
) -> list[Comparison]:
    """Compare heads with one that was there before, in one pass over the features.

    Args:
        before: a dense head; where it is that of the features, the classes that the network itself
            gave count, if they are recorded.
        heads: each maps features (n_samples, n_features) to logits (n_samples, n_classes).
        features: with labels.
        groups: (n_samples,) int64 ≥ 0, for accuracies by group.
        divergence: also the mean divergence of the class probabilities.
    """
    labels: list[Tensor] = []
    first: list[Tensor] = []
    after: list[list[Tensor]] = [[] for _ in heads]
    apart = [0.0] * len(heads)
    for block in _compared(before, heads, features, divergence):
        labels.append(block.labels)
        first.append(block.before)
        for i, classes in enumerate(block.after):
            after[i].append(classes)
        apart = [a + b for a, b in zip(apart, block.divergences, strict=True)]
    right, was = torch.cat(labels), torch.cat(first)
    return [
        Comparison(
            right,
            was,
            torch.cat(after[i]),
            features.n_classes,
            groups,
            apart[i] / len(right) if divergence else None,
        )
        for i in range(len(heads))
    ]


def paired_counts(
    before: Classifier,
    heads: Sequence[Classifier],
    features: Judges,
    *,
    divergence: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> list[PairedCounts]:
    """The counts of `compare_heads` alone, in memory that does not grow with the samples.

    `progress` is called with (samples done, samples in all).
    """
    found = [PairedCounts(0, 0, 0, 0, 0, 0.0 if divergence else None)] * len(heads)
    done = 0
    for block in _compared(before, heads, features, divergence):
        done += len(block.labels)
        if progress is not None:
            progress(done, features.n_samples)
        found = [
            counts
            + PairedCounts.of(block.labels, block.before, classes, off if divergence else None)
            for counts, classes, off in zip(found, block.after, block.divergences, strict=True)
        ]
    return found


def bound_of(counts: PairedCounts, k: int) -> float:
    """What a head of k features per class loses at most.

    Sizes above the usual ones are fitted only where smaller ones have failed, so that each is one
    more chance to be wrong: they are bounded with 97.5 % confidence, the usual ones with 95 %.
    """
    return counts.at_most if k <= USUAL else counts.interval[1]


def smallest_within(
    losses: Sequence[PairedCounts], tolerance: float, sizes: Sequence[int] = ()
) -> int | None:
    """Which of several heads, from small to large, is the smallest that can be vouched for.

    A fixed sequence of one-sided paired tests: from the largest head down, each is tested for
    losing no more than the tolerance, and the first that fails ends it. So the statement that the
    last one that passed is within the tolerance holds with 95 % confidence whatever the number of
    heads, as "the smallest that passes" does not: Maurer, Hothorn and Lehmacher 1995.

    Args:
        losses: of each head, smallest head first, on samples that neither the network was trained
            on nor the heads fitted to.
        tolerance: fraction of accuracy.
        sizes: features per class of each head, where some may have been added after a look at
            others, see `bound_of`.

    Returns:
        Index of the head; None where not even the largest passes.
    """
    vouched = None
    for i in range(len(losses) - 1, -1, -1):
        if bound_of(losses[i], sizes[i] if sizes else 0) > tolerance:
            break
        vouched = i
    return vouched


@dataclass(frozen=True, eq=False)
class _Compared:
    labels: Tensor
    before: Tensor
    after: list[Tensor]
    divergences: list[float]


def _compared(
    before: Classifier, heads: Sequence[Classifier], features: Judges, divergence: bool
) -> Iterator[_Compared]:
    recorded = isinstance(before, Head) and _same(before, features.head)
    link = features.link
    rows = max(1, CHUNK // max(features.n_classes, features.n_features))
    for block in features.blocks():
        for start in range(0, len(block.labels), rows):
            part = slice(start, start + rows)
            z = block.features[part]
            known = block.predicted[part] if recorded and block.predicted is not None else None
            # Not around the yield: whoever reads this keeps its own gradient mode.
            with torch.no_grad():
                logits = before(z) if known is None or divergence else z
                after, off = [], []
                for head in heads:
                    found = head(z)
                    after.append(decided(found, link))
                    apart = divergences(logits, found, link) if divergence else z.new_zeros(1)
                    off.append(float(apart.sum()))
                classes = decided(logits, link) if known is None else known
            yield _Compared(block.labels[part], classes, after, off)


def _same(first: Head, second: Head | None) -> bool:
    if second is None:
        return False
    return torch.equal(first.weight, second.weight) and torch.equal(first.bias, second.bias)
