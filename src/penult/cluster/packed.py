"""Packed: sums as they cross the network, without the numbers that are 0."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penult.features.influence import TopCounts
from penult.features.moments import Moments
from penult.runs.sums import Summing, Sums


@dataclass(frozen=True, eq=False)
class PackedSums:
    """Sums of some samples; `packed` makes them and `unpacked` gives them back to the bit.

    Attributes:
        sums: with the classes that have samples alone, and without the counts.
        classes: (n_found,) these classes.
        places, counts: (n_counts,) where counts are not 0, and what they are.
    """

    sums: Sums
    classes: Tensor
    places: Tensor
    counts: Tensor


def packed(sums: Sums) -> PackedSums:
    """Sums without what is 0: of many classes few have samples in one span."""
    none = torch.empty(0, dtype=torch.int64)
    evidence = sums.evidence
    if evidence is None:
        return PackedSums(sums, none, none, none)
    evidence = evidence.to("cpu")
    moments, tops = evidence.moments, evidence.top_counts
    flat = tops.counts.reshape(-1)
    places = flat.nonzero()[:, 0]
    found = (moments.sums != 0).any(1) | (tops.shares != 0).any(1) | (moments.counts > 0)
    classes = found.nonzero()[:, 0]
    short = replace(
        evidence,
        weight=torch.empty(0),
        moments=replace(moments, sums=moments.sums[classes]),
        top_counts=TopCounts(tops.tops, none, tops.shares[classes]),
    )
    counts = flat[places]
    if len(flat) < 2**31:  # and no sample counts twice
        places, counts = places.int(), counts.int()
    return PackedSums(replace(sums, evidence=short), classes, places, counts)


def unpacked(found: PackedSums, summing: Summing) -> Sums:
    """The sums that were packed."""
    evidence = found.sums.evidence
    if evidence is None:
        return found.sums
    whole = replace(summing, device="cpu").zeros().evidence
    assert whole is not None
    moments = evidence.moments
    sums, shares = whole.moments.sums, whole.top_counts.shares
    sums[found.classes] = moments.sums
    shares[found.classes] = evidence.top_counts.shares
    counts = whole.top_counts.counts
    counts.view(-1)[found.places.long()] = found.counts.long()
    full = replace(
        evidence,
        weight=whole.weight,
        moments=Moments(
            moments.counts, sums, moments.products, moments.low, moments.high, moments.whole
        ),
        top_counts=TopCounts(evidence.top_counts.tops, counts, shares),
    )
    return replace(found.sums, evidence=full)
