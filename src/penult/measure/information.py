"""Information: how much the classes share their influential features, and whether it confuses."""

from __future__ import annotations

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from torch import Tensor

from penult.features.features import Features
from penult.measure.uncertainty import percentiles
from penult.network.head import Head

MATRIX_CLASSES = 200
PAIRS = 20
PERMUTATIONS = 999
# Six classes have 720 orders: with fewer no correlation could be told from chance at 1 %.
FEWEST_CLASSES = 6


def members(sets: Tensor, n_features: int) -> Tensor:
    """Membership (..., n_features) bool of sets given by their features (..., k)."""
    shape = (*sets.shape[:-1], n_features)
    return torch.zeros(shape, dtype=torch.bool).scatter_(-1, sets, True)


def jaccard(member: Tensor) -> Tensor:
    """|A ∩ B| / |A ∪ B| of all pairs, (n_classes, n_classes), in [0, 1].

    Args:
        member: (n_classes, n_features) bool.
    """
    both = member.double() @ member.double().T
    size = both.diagonal()
    return both / (size[:, None] + size - both)


def set_information(member: Tensor) -> tuple[Tensor, Tensor]:
    """Mutual information of the classes' sets, in bits, and the entropy of each.

    A feature is drawn uniformly; X says whether class a counts it among its influential ones, Y
    whether b does. I(X; Y) is the entropy of the set where a = b, 0 where the sets are independent,
    and above 0 for disjoint ones too, since a feature of the one is never one of the other.

    Args:
        member: (n_classes, n_features) bool.

    Returns:
        (n_classes, n_classes) and (n_classes,) float64.
    """
    d = member.shape[1]
    inside = member.double()
    p = inside.mean(1)
    both = inside @ inside.T / d
    a_only, b_only = p[:, None] - both, p[None, :] - both
    neither = 1 - both - a_only - b_only
    bits = _entropy_term(p) + _entropy_term(1 - p)
    joint = sum(_entropy_term(part) for part in (both, a_only, b_only, neither))
    return (bits[:, None] + bits[None, :] - joint).clamp(min=0), bits


def class_information(distributions: Tensor) -> Tensor:
    """What an influential feature tells about which of two classes it came from, in bits.

    One of classes a and b is drawn by a fair coin, then one influential feature of one of its
    samples: I(class; feature), the Jensen-Shannon divergence of the two distributions. 0 for the
    same distribution, 1 for disjoint ones. Source: Lin 1991.

    Args:
        distributions: (n_classes, n_features), rows sum to 1.

    Returns:
        (n_classes, n_classes) float64 in [0, 1].
    """
    own = _entropy_term(distributions).sum(1)
    rows = []
    for distribution, entropy in zip(distributions, own, strict=True):
        mixed = _entropy_term((distribution + distributions) / 2).sum(1)
        rows.append(mixed - (entropy + own) / 2)
    return torch.stack(rows).clamp(0, 1)


def confusions(features: Features, n_classes: int, head: Head | None) -> Tensor | None:
    """Samples by label and by the dense network's class, (n_classes, n_classes) int64.

    None where the network's classes are neither recorded nor to be had from a head.
    """
    table = torch.zeros(n_classes * n_classes, dtype=torch.int64)
    for block in features.blocks():
        if head is None and block.predicted is None:
            return None
        given = block.predicted if head is None else block.dense_classes(head)
        assert given is not None
        table += torch.bincount(block.labels * n_classes + given, minlength=len(table))
    return table.view(n_classes, n_classes)


def confusion_rates(table: Tensor) -> Tensor:
    """Fraction of the samples of two classes that are taken for the other of the two."""
    n = table.sum(1).double()
    return (table + table.T).double() / (n[:, None] + n).clamp(min=1)


def mantel(first: Tensor, second: Tensor, seed: int, n_permutations: int = PERMUTATIONS) -> Any:
    """Rank correlation of two symmetric matrices over pairs of classes, and its significance.

    Pairs that share a class are not independent, so the classes of the one matrix are permuted
    (Mantel 1967): p is the fraction of permutations that correlate at least as much.

    Returns:
        {"rank_correlation", "p", "n_pairs"}; the numbers NaN where one matrix is constant, or of
        fewer than six classes.
    """
    from scipy.stats import rankdata  # slow to import

    n = len(first)
    i, j = torch.triu_indices(n, n, 1)
    ranks_a = torch.from_numpy(rankdata(first[i, j].numpy())).double()
    ranks_b = torch.from_numpy(rankdata(second[i, j].numpy())).double()
    a, b = ranks_a - ranks_a.mean(), ranks_b - ranks_b.mean()
    scale = float(a.norm() * b.norm()) if n >= FEWEST_CLASSES else 0.0
    if scale == 0:
        return {"rank_correlation": torch.nan, "p": torch.nan, "n_pairs": len(a)}
    found = float(a @ b) / scale
    square = torch.zeros(n, n, dtype=torch.float64)
    square[i, j] = square[j, i] = b
    generator = torch.Generator().manual_seed(seed)
    n_as_large = 0
    for _ in range(n_permutations):
        order = torch.randperm(n, generator=generator)
        n_as_large += float(a @ square[order[i], order[j]]) / scale >= found - 1e-12
    p = (n_as_large + 1) / (n_permutations + 1)
    return {"rank_correlation": found, "p": p, "n_pairs": len(a)}


def overlap(
    frequency: Tensor,
    sets: Tensor,
    replicates: Tensor,
    counts: Tensor,
    table: Tensor | None,
    names: Sequence[str],
    seed: int,
) -> dict[str, Any]:
    """How much the classes share their influential features.

    Args:
        frequency: (n_classes, n_features), how often a feature is among a sample's top k.
        sets: (n_classes, k) features of each class.
        replicates: (n_classes, n_replicates, k) the same of bootstrap samples.
        counts: (n_classes,) samples; classes without samples have no sets and are null.
        table: confusions, or None.
        names: of the classes.
        seed: of the permutations.
    """
    d = frequency.shape[1]
    there = counts > 0
    member = members(sets, d)
    shared = _where(jaccard(member), there)
    bits, entropy = set_information(member)
    totals = frequency.sum(1, keepdim=True)
    separation = class_information(frequency / torch.where(totals > 0, totals, 1))
    drawn_shared, drawn_bits = [], []
    for drawn in replicates[there].unbind(1):
        again = members(drawn, d)
        drawn_shared.append(_off_diagonal_mean(jaccard(again)))
        drawn_bits.append(_off_diagonal_mean(set_information(again)[0]))
    found: dict[str, Any] = {
        "k": sets.shape[1],
        "sets": sets,
        "jaccard": _pairs(shared, drawn_shared),
        "mutual_information": {
            **_pairs(_where(bits, there), drawn_bits),
            "entropy": entropy,
            "normalised": _matrix(_where(bits / entropy, there)),
        },
        "distributions": {
            "separation": _matrix(_where(separation, there)),
            "overlap": _matrix(_where(1 - separation, there)),
            "mean_overlap": _off_diagonal_mean(_where(1 - separation, there)),
        },
        "shared": _most_shared(shared, member, names),
        "confusion": None,
    }
    if table is not None:
        known = there & (table.sum(1) > 0)
        rates = confusion_rates(table)[known][:, known]
        found["confusion"] = {
            "table": _matrix(table),
            "jaccard": mantel(shared[known][:, known], rates, seed),
            "distributions": mantel(1 - separation[known][:, known], rates, seed),
        }
    return found


def _entropy_term(p: Tensor) -> Tensor:
    p = p.clamp(min=0)
    return -torch.xlogy(p, p) / log(2)


def _where(matrix: Tensor, there: Tensor) -> Tensor:
    return torch.where(there[:, None] & there, matrix, torch.nan)


def _matrix(matrix: Tensor) -> Tensor | None:
    """A matrix of so many classes is no longer read, and its document no longer opened."""
    return matrix if len(matrix) <= MATRIX_CLASSES else None


def _off_diagonal_mean(matrix: Tensor) -> float:
    off = matrix[~torch.eye(len(matrix), dtype=torch.bool)]
    return float(off.nanmean())


def _pairs(matrix: Tensor, replicates: list[float]) -> dict[str, Any]:
    return {
        "mean": _off_diagonal_mean(matrix),
        "interval": percentiles(torch.tensor(replicates, dtype=torch.float64)),
        "matrix": _matrix(matrix),
    }


def _most_shared(shared: Tensor, member: Tensor, names: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs of classes that share most, with the features they share."""
    n = len(shared)
    i, j = torch.triu_indices(n, n, 1)
    value = shared[i, j].nan_to_num(0)
    order = value.argsort(descending=True, stable=True)[:PAIRS]
    found = []
    for a, b in zip(i[order].tolist(), j[order].tolist(), strict=True):
        common = (member[a] & member[b]).nonzero()[:, 0]
        if len(common) and float(shared[a, b]) > 0:
            pair = [names[a], names[b]]
            found.append({"classes": pair, "jaccard": float(shared[a, b]), "features": common})
    return found
