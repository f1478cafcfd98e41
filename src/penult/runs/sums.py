"""Sums: what the pass over the samples adds up, the same whoever adds up which part of them."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penult.features.influence import Evidence, Top, sizes_within
from penult.features.shards import Block
from penult.network.head import Head
from penult.runs.calls import Calls, calls_of
from penult.runs.decisions import Decisions

# Features, twice the classes counted too, for which a span has one shard more. The sums of a span
# have about features times features and classes numbers, whatever its length: the longer it is, the
# less is handed over for the same samples. So it is a quarter of their features, and the counts.
SHORT = 256
LONGEST = 32  # so that many workers have something to add up


@dataclass(eq=False)
class Sums:
    """What is known of some samples of one part of the data.

    Attributes:
        evidence: sums over the features, or None where they are not asked for.
        calls: the network's classes beside the labels.
    """

    evidence: Evidence | None
    calls: Calls | Decisions

    def add(self, block: Block) -> None:
        """Some more samples."""
        if self.evidence is not None:
            self.evidence.update(block.features, block.labels)
        self.calls.add(block)

    def __add__(self, other: Sums) -> Sums:
        """Those of the other's samples after these."""
        both = [one.evidence for one in (self, other) if one.evidence is not None]
        calls = self.calls + other.calls  # type: ignore[operator]  # of one kind, by the head
        return Sums(both[0] + both[1] if len(both) == 2 else None, calls)


@dataclass(frozen=True, eq=False)
class Summing:
    """How samples are added up: shard by shard within a span, span by span to the whole.

    Rounding depends on the order in which numbers are added. Spans are fixed by the numbers of
    features and classes alone, so that several processes which add up spans get the bytes that one
    gets.

    Attributes:
        head: the dense head.
        seed: of the random control.
        top: what a sample takes in the score `frequency`, see `Evidence`.
        device: where the sums are computed.
        evidence: whether sums over the features are made, or the calls alone.
    """

    head: Head
    seed: int = 0
    top: Top | None = None
    device: str = "cpu"
    evidence: bool = True

    @property
    def span(self) -> int:
        """Shards in one span; the last span may be shorter."""
        width = self.head.n_features + 2 * self.head.n_classes
        return min(LONGEST, -(-width // SHORT)) if self.evidence else 1

    def zeros(self) -> Sums:
        """Sums of no samples."""
        found = None
        if self.evidence:
            found = Evidence.zeros(
                self.head.weight.to(self.device),
                sizes_within(self.head.n_features),
                seed=self.seed,
                top=self.top,
                device=self.device,
            )
        return Sums(found, calls_of(self.head))

    def calls_alone(self) -> Summing:
        """The same without sums over the features."""
        return replace(self, evidence=False)


class Total:
    """Adds up blocks, one for each shard, span by span.

    Args:
        summing: how.
    """

    def __init__(self, summing: Summing) -> None:
        self._summing = summing
        self._whole: Sums | None = None
        self._span: Sums | None = None
        self._n = 0

    def add(self, block: Block) -> None:
        """The next shard."""
        if self._span is None:
            self._span = self._summing.zeros()
        self._span.add(block)
        self._n += 1
        if self._n == self._summing.span:
            self._close()

    def add_span(self, sums: Sums) -> None:
        """The next span, added up elsewhere."""
        self._whole = sums if self._whole is None else self._whole + sums

    def _close(self) -> None:
        if self._span is not None:
            self.add_span(self._span)
        self._span, self._n = None, 0

    @property
    def sums(self) -> Sums:
        """Of all that was added."""
        self._close()
        return self._summing.zeros() if self._whole is None else self._whole
