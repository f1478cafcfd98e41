"""The decision's own dimension: how few features or logit directions keep the accuracy."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from penult.features.features import Features
from penult.features.moments import Moments
from penult.heads.sparse_head import SparseHead
from penult.intervals import paired_interval
from penult.network.head import Head

ALL_DIRECTIONS = 64


def logit_directions(moments: Moments, head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """Principal directions of the logits, a shift common to all classes taken out.

    Softmax ignores that shift, so it is no part of the decision.

    Returns:
        Variances (n_classes,), largest first, directions (n_classes, n_classes) as columns, and
        the mean centred logits (n_classes,), all float64.
    """
    weight = head.weight.double()
    weight = weight - weight.mean(0)
    bias = head.bias.double() - head.bias.double().mean()
    values, vectors = torch.linalg.eigh(weight @ moments.covariance() @ weight.T)
    middle = moments.mean() @ weight.T + bias
    return values.flip(0).clamp(min=0), vectors.flip(1), middle


def direction_sizes(n_classes: int) -> list[int]:
    """Numbers of directions that are tried: all up to 64, then ever wider apart."""
    sizes = list(range(min(n_classes - 1, ALL_DIRECTIONS) + 1))
    while sizes[-1] < n_classes - 1:
        sizes.append(min(n_classes - 1, int(sizes[-1] * 1.25)))
    return sizes


def decision(
    moments: Moments,
    head: Head,
    evaluation: Features,
    heads: Mapping[int, SparseHead],
    tolerance: float,
) -> dict[str, Any]:
    """Smallest k and smallest number of logit directions that lose no more than a tolerance.

    Each is compared with the dense head sample by sample. `smallest` is the first whose loss is at
    most the tolerance, `surely` the first for which the whole 95 % interval of the loss is, and
    `possibly` the first for which any of it is: together an interval of the smallest.

    Args:
        moments: of the features that give the directions.
        head: the dense head.
        evaluation: what accuracy is measured on.
        heads: sparse heads by k; none leaves `k` null.
        tolerance: fraction of accuracy.
    """
    variances, directions, middle = logit_directions(moments, head)
    sizes = direction_sizes(head.n_classes)
    ks = sorted(heads)
    lost, won = torch.zeros(2, len(ks) + len(sizes), dtype=torch.int64)
    n_right = 0
    with torch.no_grad():
        for block in evaluation.blocks():
            logits = head(block.features)
            dense = logits.argmax(1) == block.labels
            n_right += int(dense.sum())
            answers = [heads[k](block.features).argmax(1) for k in ks]
            answers += _by_directions(logits, directions, middle, sizes)
            for i, answer in enumerate(answers):
                right = answer == block.labels
                lost[i] += (dense & ~right).sum()
                won[i] += (right & ~dense).sum()
    n = evaluation.n_samples
    losses = [(int(b), int(c)) for b, c in zip(lost, won, strict=True)]
    accuracy = n_right / n
    return {
        "tolerance": tolerance,
        "dense_accuracy": accuracy,
        "k": _smallest(ks, losses[: len(ks)], n, accuracy, tolerance) if ks else None,
        "directions": {
            **_smallest(sizes, losses[len(ks) :], n, accuracy, tolerance),
            "variances": variances,
        },
    }


def _by_directions(
    logits: Tensor, directions: Tensor, middle: Tensor, sizes: list[int]
) -> list[Tensor]:
    """Class of each sample from its logits in the leading directions only, for every size."""
    centred = logits.double()
    centred = centred - centred.mean(1, keepdim=True) - middle
    places = centred @ directions
    seen = middle.expand(len(logits), -1)
    answers, last = [], 0
    for size in sizes:
        seen = seen + places[:, last:size] @ directions[:, last:size].T
        answers.append(seen.argmax(1))
        last = size
    return answers


def _smallest(
    sizes: list[int],
    losses: list[tuple[int, int]],
    n: int,
    accuracy: float,
    tolerance: float,
) -> dict[str, Any]:
    steps: list[dict[str, Any]] = []
    for size, (lost, won) in zip(sizes, losses, strict=True):
        loss = (lost - won) / n
        interval = list(paired_interval(lost, won, n))
        steps.append({"n": size, "accuracy": accuracy - loss, "loss": loss, "interval": interval})
    possibly = (step["n"] for step in steps if step["interval"][0] <= tolerance)
    within = (step["n"] for step in steps if step["loss"] <= tolerance)
    surely = (step["n"] for step in steps if step["interval"][1] <= tolerance)
    return {
        "smallest": next(within, None),
        "possibly": next(possibly, None),
        "surely": next(surely, None),
        "steps": steps,
    }
