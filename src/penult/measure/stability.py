"""Stability: would other samples of the same kind have named the same features?"""

from __future__ import annotations

from math import comb
from typing import Any

import torch
from torch import Tensor

from penult.measure.class_samples import ClassSamples
from penult.measure.information import members
from penult.measure.uncertainty import percentiles, resampled

SEEN = 0.01
CHUNK = 2**24


def in_top(z: Tensor, k: int) -> Tensor:
    """Whether each feature is among the sample's top k by share: its mean is `frequency`."""
    order = z.abs().sort(dim=1, descending=True, stable=True).indices[:, :k]
    return members(order, z.shape[1]).float()


def resampled_sets(
    sample: ClassSamples, k: int, n_replicates: int, seed: int, weight: Tensor | None = None
) -> Tensor:
    """Each class's k features in bootstrap samples of its samples, (n_classes, n_replicates, k).

    Args:
        sample: drawn from, class by class: every class keeps its number of samples.
        k: features per class.
        n_replicates: bootstrap samples.
        seed: of the draws.
        weight: (n_classes, n_features): by `contribution`, weight · class mean; by `frequency`
            where None.

    Returns:
        Features, most influential first; those of a class without samples mean nothing.
    """
    generator = torch.Generator().manual_seed(seed)
    found = []
    for c, z in enumerate(sample.classes()):
        if not len(z):
            found.append(torch.arange(k).expand(n_replicates, k))
            continue
        says = in_top(z, k) if weight is None else z * weight[c]
        scores = []
        rows = max(1, CHUNK // len(z))
        for start in range(0, n_replicates, rows):
            n = min(rows, n_replicates - start)
            scores.append(resampled(len(z), n, generator) @ says)
        order = torch.cat(scores).sort(dim=1, descending=True, stable=True).indices
        found.append(order[:, :k])
    return torch.stack(found)


def chance_jaccard(k: int, n_features: int) -> float:
    """Expected Jaccard of two sets of k features drawn at random."""
    total = comb(n_features, k)
    return sum(
        comb(k, i) * comb(n_features - k, k - i) / total * i / (2 * k - i) for i in range(k + 1)
    )


def stability(sets: Tensor, replicates: Tensor, counts: Tensor, n_features: int) -> dict[str, Any]:
    """How often features are chosen again, and how like the sets of two samples are.

    Args:
        sets: (n_classes, k) features of each class by all samples.
        replicates: (n_classes, n_replicates, k) by bootstrap samples.
        counts: (n_classes,) samples; classes with fewer than two are null.
        n_features: of the layer.
    """
    k = sets.shape[1]
    half = replicates.shape[1] // 2
    classes: list[dict[str, Any] | None] = []
    all_with_all, all_with_other = [], []
    for c, n in enumerate(counts.tolist()):
        if n < 2:
            classes.append(None)
            continue
        drawn = members(replicates[c], n_features)
        with_all = _jaccard(drawn, members(sets[c], n_features))
        with_other = _jaccard(drawn[:half], drawn[half : 2 * half])
        classes.append(_class_document(drawn.double().mean(0), with_all, with_other))
        all_with_all.append(with_all)
        all_with_other.append(with_other)
    return {
        "k": k,
        "jaccard": _mean_of_classes(all_with_all),
        "between": _mean_of_classes(all_with_other),
        "chance": chance_jaccard(k, n_features),
        "classes": classes,
    }


def _jaccard(first: Tensor, second: Tensor) -> Tensor:
    both = (first & second).sum(-1)
    return both.double() / (first | second).sum(-1)


def _summary(values: Tensor) -> dict[str, Any]:
    mean = float(values.mean())
    return {"mean": mean, "interval": percentiles(values)}


def _mean_of_classes(found: list[Tensor]) -> dict[str, Any]:
    return _summary(
        torch.stack(found).mean(0) if found else torch.full((1,), torch.nan, dtype=torch.float32)
    )


def _class_document(again: Tensor, with_all: Tensor, with_other: Tensor) -> dict[str, Any]:
    order = again.argsort(descending=True, stable=True)
    seen = order[again[order] >= SEEN]
    return {
        "jaccard": _summary(with_all),
        "between": _summary(with_other),
        "features": [
            {"feature": j, "chosen": p}
            for j, p in zip(seen.tolist(), again[seen].tolist(), strict=True)
        ],
    }
