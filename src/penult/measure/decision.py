"""The decision's own dimension: how few features or logit directions keep the accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from penult.features.features import Features
from penult.features.moments import Moments
from penult.heads.comparison import PairedCounts, smallest_within
from penult.heads.sparse_head import SparseHead
from penult.intervals import Z95_ONE_SIDED, paired_interval
from penult.network.head import Head
from penult.network.link import SIGMOID, SOFTMAX, decided

ALL_DIRECTIONS = 64


def logit_directions(moments: Moments, head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """Principal directions of the logits; see `_told` for what of the logits is meant.

    Returns:
        Variances (n_classes,), largest first, directions (n_classes, n_classes) as columns, and
        the mean logits (n_classes,), all float64.
    """
    weight = _told(head.weight.T, head.link).T
    bias = _told(head.bias, head.link)
    values, vectors = torch.linalg.eigh(weight @ moments.covariance() @ weight.T)
    middle = moments.mean() @ weight.T + bias
    return values.flip(0).clamp(min=0), vectors.flip(1), middle


def _told(logits: Tensor, link: str) -> Tensor:
    """What of logits (..., n_classes) decides, float64.

    Softmax ignores a shift common to all classes, so it is taken out; a sigmoid does not.
    """
    wide = logits.double()
    return wide if link == SIGMOID else wide - wide.mean(-1, keepdim=True)


def direction_sizes(n_classes: int, link: str = SOFTMAX) -> list[int]:
    """Numbers of directions that are tried: all up to 64, then ever wider apart."""
    last = n_classes if link == SIGMOID else n_classes - 1
    sizes = list(range(min(last, ALL_DIRECTIONS) + 1))
    while sizes[-1] < last:
        sizes.append(min(last, int(sizes[-1] * 1.25)))
    return sizes


def decision(
    moments: Moments,
    head: Head,
    evaluation: Features,
    heads: Mapping[int, SparseHead],
    tolerance: float,
    *,
    vouches: bool = True,
) -> dict[str, Any]:
    """Smallest k and smallest number of logit directions that lose no more than a tolerance.

    Each is compared with the dense head sample by sample. `smallest` is the first whose measured
    loss is at most the tolerance. `confident` is the smallest that can be shown, with 95 %
    confidence, to lose no more, by tests from the largest down (`smallest_within`); null where
    there are no evaluation samples, since those that were fitted vouch for nothing. `possibly` is
    the first that cannot be shown to lose more, by tests from the smallest up.

    Args:
        moments: of the features that give the directions.
        head: the dense head.
        evaluation: what accuracy is measured on.
        heads: sparse heads by k; none leaves `k` null.
        tolerance: fraction of accuracy.
        vouches: whether these are other samples than those that the heads were fitted to.
    """
    variances, directions, middle = logit_directions(moments, head)
    sizes = direction_sizes(head.n_classes, head.link)
    ks = sorted(heads)
    whole = [PairedCounts(0, 0, 0, 0, 0)] * (len(ks) + len(sizes))
    with torch.no_grad():
        for block in evaluation.blocks():
            logits = head(block.features)
            dense = decided(logits, head.link)
            answers = [decided(heads[k](block.features), head.link) for k in ks]
            answers += _by_directions(logits, directions, middle, sizes, head.link)
            counts = [PairedCounts.of(block.labels, dense, answer) for answer in answers]
            whole = [a + b for a, b in zip(whole, counts, strict=True)]
    of_heads, of_directions = whole[: len(ks)], whole[len(ks) :]
    return {
        "tolerance": tolerance,
        "dense_accuracy": whole[-1].before,
        "k": _smallest(ks, of_heads, tolerance, vouches, added=True) if ks else None,
        "directions": {
            **_smallest(sizes, of_directions, tolerance, vouches),
            # Two classes have one direction: whatever they are like, it is needed.
            "trivial": head.n_classes <= 2 and not head.multi_label,
            "variances": variances,
        },
    }


def _by_directions(
    logits: Tensor, directions: Tensor, middle: Tensor, sizes: list[int], link: str
) -> list[Tensor]:
    """What each sample is given by its logits in the leading directions only, for every size."""
    centred = _told(logits, link) - middle
    places = centred @ directions
    seen = middle.expand(len(logits), -1)
    answers, last = [], 0
    for size in sizes:
        seen = seen + places[:, last:size] @ directions[:, last:size].T
        answers.append(decided(seen, link))
        last = size
    return answers


def _smallest(
    sizes: list[int],
    counts: list[PairedCounts],
    tolerance: float,
    vouches: bool,
    added: bool = False,
) -> dict[str, Any]:
    """The smallest of several heads within a tolerance.

    Args:
        sizes, counts: of each.
        tolerance: fraction of accuracy.
        vouches: whether the samples can show it.
        added: whether the largest may have been added after a look at smaller ones.
    """
    steps = [
        {"n": n, "accuracy": c.after, "loss": c.loss, "interval": list(c.interval)}
        for n, c in zip(sizes, counts, strict=True)
    ]
    at_least = [paired_interval(*c.effective, Z95_ONE_SIDED)[0] for c in counts]
    possibly = (n for n, low in zip(sizes, at_least, strict=True) if low <= tolerance)
    within = (n for n, c in zip(sizes, counts, strict=True) if (c.loss or 0.0) <= tolerance)
    shown = smallest_within(counts, tolerance, sizes if added else ()) if vouches else None
    return {
        "smallest": next(within, None),
        "possibly": next(possibly, None),
        "confident": None if shown is None else sizes[shown],
        "steps": steps,
    }
