"""Curvature selection: the features that keep the softmax, not only the logits, as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.refit.distillation import MEMORY_LIMIT, Distillation, check_temperature
from penult.heads.select.budget import check_shared, select_mean, select_shared
from penult.heads.select.coupled import (
    ALL_FEATURES,
    choose_candidates,
    is_affordable,
    n_considered,
    select_alternating,
    select_mean_alternating,
    select_shared_alternating,
)
from penult.heads.select.greedy import as_subspaces, check_sizes, select_moments, support_path
from penult.heads.select.joint import is_small, select_joint
from penult.heads.subspaces import Subspaces

# Softens the dense probabilities that weigh the samples.
TEMPERATURE = 3.0
# Classes × samples × candidates² that are worth one selection.
WORK = 4e10
# Numbers in the largest array of one group of classes.
GROUP = 2**22


def select_curvature(
    loss: Distillation,
    ks: Sequence[int],
    *,
    moments: Moments | None = None,
    temperature: float = TEMPERATURE,
    memory_limit: int = MEMORY_LIMIT,
) -> dict[int, Subspaces]:
    """Features of each class that keep the softmax nearest to the dense head's, to second order.

    Newton's approximation of the softmax loss at the dense head weighs sample i by p (1 − p) in
    the regression of class c, p its dense probability softened by the temperature: a network is so
    sure of its training images that its own probabilities would leave almost no samples.

    With n_classes × n_features up to 1,600 all classes are taken together, with the curvature
    between them (see `joint.py`). Otherwise class by class; each then considers all features up
    to 256, else the best 4 × k by moments and weights, and reads the samples that weigh most and an
    even part of the others. With n_samples × n_classes up to 20 million each class then makes good
    what the others miss (see `coupled.py`). One pass over the samples.

    Args:
        loss: the samples and the dense head.
        ks: features per class, each in [1, n_features].
        moments: of the same samples; spares a pass where candidates are needed.
        temperature: > 0.
        memory_limit: bytes that the sums of all classes may take.

    Returns:
        Subspaces by k; in each class the feature whose loss would cost most comes first.

    Raises:
        InputError: k or temperature out of range, moments of other sizes, too little memory.
    """
    ks = check_sizes(ks, loss.n_features)
    check_temperature(temperature)
    if is_small(loss):
        return select_joint(loss, ks, temperature)
    candidates = find_candidates(loss, ks[-1], moments, memory_limit)
    if is_affordable(*loss.sizes):
        return select_alternating(loss, ks, candidates, temperature)
    sums = _weighted_sums(loss, candidates, temperature)
    return _select(sums, candidates, ks, loss.n_features)


def select_by_need(
    loss: Distillation, ks: Sequence[int], moments: Moments, *, curvature: bool
) -> dict[int, Subspaces]:
    """Features for a mean of k per class, more for the classes that need them most.

    By moments see `budget.select_mean`. By curvature, where each class can be told what the
    others miss, see `coupled.select_mean_alternating`; otherwise the classes' sizes are
    those of the moments, and their features those that curvature selects at that size.
    """
    ks = check_sizes(ks, loss.n_features)
    if curvature and is_affordable(*loss.sizes):
        candidates = find_candidates(loss, ks[-1], moments)
        return select_mean_alternating(loss, ks, candidates, TEMPERATURE)
    found = {k: select_mean(moments, loss.weight, k) for k in ks}
    if not curvature:
        return found
    sizes = {k: subspaces.indptr.diff().tolist() for k, subspaces in found.items()}
    path = select_curvature(loss, sorted(set().union(*sizes.values())), moments=moments)
    return {
        k: Subspaces.of(
            [path[size][c].tolist() for c, size in enumerate(sizes[k])], loss.n_features
        )
        for k in ks
    }


def select_within(
    loss: Distillation, ks: Sequence[int], n_shared: int, moments: Moments, *, curvature: bool
) -> dict[int, Subspaces]:
    """Subspaces of each size, `n_shared` different features at most in all classes together.

    By moments see `budget.select_shared`. By curvature, where each class can be told what
    the others miss, see `coupled.select_shared_alternating`; otherwise the shared
    features are those of the moments, and each class selects among them by its curvature.
    """
    ks = check_sizes(ks, loss.n_features)
    check_shared(n_shared, ks, loss.n_features)
    if curvature and is_affordable(*loss.sizes):
        candidates = find_candidates(loss, ks[-1], moments)
        return {
            k: select_shared_alternating(loss, k, n_shared, candidates, TEMPERATURE) for k in ks
        }
    shared = select_shared(moments, loss.weight, n_shared, ks)
    if not curvature:
        return shared
    found: dict[int, Subspaces] = {}
    for k, subspaces in shared.items():
        allowed = torch.unique(subspaces.indices).to(loss.weight.device)
        candidates = choose_candidates(
            _scores(loss), allowed[:0].expand(loss.n_classes, 0), 4 * k, allowed
        )
        sums = _weighted_sums(loss, candidates, TEMPERATURE)
        found |= _select(sums, candidates, [k], loss.n_features)
    return found


def find_candidates(
    loss: Distillation,
    k: int,
    moments: Moments | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> Tensor:
    """Features that each class considers, (n_classes, m): the best by moments and by weights."""
    n_classes, device = loss.n_classes, loss.weight.device
    most = _most_candidates(n_classes, memory_limit)
    if most < k:
        needed = 8 * n_classes * (k + 2) ** 2
        raise InputError(
            f"curvature selection of k = {k} features for {n_classes} classes needs "
            f"{needed / 2**20:.0f} MiB, and the memory limit is {memory_limit / 2**20:.0f} MiB: "
            "raise it, or select by moments"
        )
    scores = _scores(loss)
    kept = torch.zeros(n_classes, 0, dtype=torch.int64, device=device)
    if min(ALL_FEATURES, most) < loss.n_features:
        moments = _moments(loss) if moments is None else moments
        best = select_moments(moments, loss.weight, [k])[k]
        kept = best.indices.reshape(n_classes, k).to(device)
    return choose_candidates(scores, kept, most)


def n_candidates(n_features: int, n_classes: int, k: int) -> int:
    """How many features each class considers for k of them, within the memory limit."""
    return min(n_considered(n_features, k), _most_candidates(n_classes, MEMORY_LIMIT))


def _most_candidates(n_classes: int, memory_limit: int) -> int:
    return int((memory_limit / (8 * n_classes)) ** 0.5) - 2


def _scores(loss: Distillation) -> Tensor:
    """Spread of what each feature gives to each class's centred logit, (n_classes, n_features)."""
    weight = loss.weight.double()
    return ((weight - weight.mean(0)).abs() * loss.std).masked_fill_(loss.constant, 0.0)


def _moments(loss: Distillation) -> Moments:
    moments = Moments.zeros(1, loss.n_features, loss.weight.device)
    for tile in loss.tiles():
        z = tile.features.T
        moments.update(z, torch.zeros(len(z), dtype=torch.int64, device=z.device))
    sums = moments.sums / loss.n_classes
    counts = torch.zeros(loss.n_classes, dtype=torch.int64, device=sums.device)
    counts[0] = loss.n_samples
    return Moments(counts, sums.repeat(loss.n_classes, 1), moments.products)


def _weighted_sums(loss: Distillation, candidates: Tensor, temperature: float) -> Tensor:
    """Σ weight · x xᵀ per class with x = (candidate features, target, 1), float64."""
    n_classes, m = candidates.shape
    device = candidates.device
    sums = torch.zeros(n_classes, m + 2, m + 2, dtype=torch.float64, device=device)
    part = min(1.0, max(WORK / (n_classes * m * m * loss.n_samples), 2048 / loss.n_samples))
    for tile in loss.tiles():
        z = loss.standardised(tile)
        logits = loss.dense_logits(tile.features)
        p = (logits / temperature).softmax(0)
        weights = p.mul_(1 - p)
        logits -= logits.mean(0)
        n = z.shape[1]
        n_taken = n if part > 0.5 else min(n, max(8, int(n * part)))
        group = max(1, GROUP // ((m + 2) * n_taken))
        for c in range(0, n_classes, group):
            g = slice(c, c + group)
            x = _Rows(z, logits[g], weights[g], candidates[g]).taken(n_taken)
            sums[g] += x
    return sums


@dataclass(frozen=True, eq=False)
class _Rows:
    """Samples of a tile as a group of classes sees them."""

    features: Tensor
    targets: Tensor
    weights: Tensor
    candidates: Tensor

    def taken(self, n_taken: int) -> Tensor:
        """Products of `n_taken` samples per class, (n_classes, m + 2, m + 2).

        Half are those with the largest weights. The other half are an even part of all samples,
        where not among the first; they stand for the rest, so their weights are raised.
        """
        n = self.features.shape[1]
        if n_taken == n:
            x = self.features[self.candidates]
            return _products(x, self.targets, self.weights)
        top = self.weights.topk(n_taken // 2, dim=1)
        stride = max(1, n // (n_taken - n_taken // 2))
        even = torch.arange(0, n, stride, device=top.indices.device)
        rest = self.weights[:, even] * stride
        rest = rest.masked_fill(self.weights[:, even] >= top.values[:, -1:], 0.0)
        at = torch.cat([top.indices, even.expand(len(rest), -1)], 1)
        x = self.features[self.candidates[:, :, None], at[:, None, :]]
        return _products(x, self.targets.gather(1, at), torch.cat([top.values, rest], 1))


def _products(x: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    ones = torch.ones_like(targets)
    x = torch.cat([x, targets[:, None], ones[:, None]], 1)
    return (x * weights[:, None]) @ x.transpose(1, 2)


def _select(
    sums: Tensor, candidates: Tensor, ks: Sequence[int], n_features: int
) -> dict[int, Subspaces]:
    m = candidates.shape[1]
    paths: dict[int, list[Tensor]] = {k: [] for k in ks}
    size = max(1, 2**20 // (ks[-1] * m))
    for start in range(0, len(sums), size):
        part, own = sums[start : start + size], candidates[start : start + size]
        total = part[:, -1:, -1:].clamp(min=1e-300)
        mean = part[:, :-1, -1:] / total
        spread = part[:, :-1, :-1] / total - mean * mean.transpose(1, 2)
        variance = spread[:, :m, :m].diagonal(dim1=1, dim2=2)
        known = variance > 1e-9
        scale = torch.where(known, variance, 1).rsqrt() * known
        covariance = spread[:, :m, :m] * scale[:, None] * scale[:, :, None]
        products = spread[:, :m, m] * scale
        for k, support in support_path(covariance, products, ks).items():
            paths[k].append(own.gather(1, support))
    return {k: as_subspaces(torch.cat(parts), n_features) for k, parts in paths.items()}
