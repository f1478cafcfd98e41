"""Details: what the page of one class, or of one feature, shows."""

from __future__ import annotations

import math
from typing import Any

import torch

from penult.explain.survey import Distributions, kept_of
from penult.report.album import Shots
from penult.report.findings import Findings

CONFUSIONS = 4
SEPARATING = 5
DENSE_WEIGHTS = 6


def class_details(findings: Findings, c: int, shots: Shots) -> dict[str, Any]:
    """Features by influence with their images, and the classes it is confused with."""
    relations, head = findings.relations, findings.head
    influence, shares = findings.influences[c], findings.shares(c)
    start = int(head.indptr[c])
    has_own = bool(relations.counts[c] > 0)
    has_others = bool(relations.counts[c] < relations.counts.sum())
    features: list[dict[str, Any]] = []
    for kept in findings.order(c):
        j = int(head.indices[kept])
        features.append(
            {
                "feature": j,
                "influence": finite(float(influence[kept - start])),
                "weight": float(findings.values[kept]),
                "dense_weight": float(findings.dense.weight[c, j]),
                "share": finite(float(shares[kept - start])),
                "mean": float(relations.means[c, j]) if has_own else None,
                "elsewhere": float(relations.elsewhere[c, j]) if has_others else None,
                "own": shots.of(("own", kept)),
                "others": shots.of(("others", kept)),
            }
        )
    bias = float(findings.bias[c])
    evidence = sum(row["weight"] * row["mean"] for row in features) + bias if has_own else None
    return {
        "features": features,
        "bias": bias,
        "evidence": evidence,
        "confusions": _confusions(findings, c),
    }


def _confusions(findings: Findings, c: int) -> list[dict[str, Any]]:
    found = findings.confusions.get(c, {})
    often = sorted(found, key=lambda d: (-sum(found[d][0]) - sum(found[d][1]), d))
    return [
        {
            "class": d,
            "to": found[d][0],
            "from": found[d][1],
            "features": [
                {"feature": j, "moves": moves}
                for j, moves in findings.relations.separation(findings.head, c, d)[:SEPARATING]
            ],
            "misled": _misled(findings, c, d),
        }
        for d in often[:CONFUSIONS]
    ]


def _misled(findings: Findings, c: int, d: int) -> list[dict[str, Any]]:
    """What moved the samples of c that the sparse head takes for d there."""
    taken = findings.verdicts.taken.get((c, d))
    if taken is None:
        return []
    found = findings.relations.misleading(findings.head, c, d, taken)
    return [{"feature": j, "moves": moves} for j, moves in found[:SEPARATING]]


def feature_details(findings: Findings, shots: Shots, found: Distributions) -> list[dict[str, Any]]:
    """Of every feature: who reads it, where it is largest, and how it is distributed."""
    readers = _readers(findings)
    counts = findings.relations.counts
    details = []
    for j in range(findings.head.n_features):
        weights = findings.dense.weight[:, j]
        shown = found.classes[j].tolist()
        rows: list[dict[str, Any]] = [
            {
                "class": c,
                "n": int(counts[c]),
                "mean": float(findings.relations.means[c, j]),
                "counts": found.counts[j, i].tolist(),
            }
            for i, c in enumerate(shown)
            if counts[c]
        ]
        n_others = int(found.counts[j, -1].sum())
        if n_others:
            others = torch.ones(len(counts), dtype=torch.bool)
            others[found.classes[j]] = False
            sums = (findings.relations.means[others, j] * counts[others]).sum()
            mean = float(sums / n_others)
            tally = found.counts[j, -1].tolist()
            rows.append({"class": None, "n": n_others, "mean": mean, "counts": tally})
        details.append(
            {
                "readers": readers[j],
                "dense": _strongest(weights),
                "shots": shots.of(("feature", j)),
                "correlation": finite(float(findings.relations.correlations[j])),
                "range": [float(findings.survey.low[j]), float(findings.survey.high[j])],
                "distribution": rows,
            }
        )
    return details


def _readers(findings: Findings) -> list[list[dict[str, Any]]]:
    readers: list[list[dict[str, Any]]] = [[] for _ in range(findings.head.n_features)]
    for c in range(findings.head.n_classes):
        for kept, share in zip(
            kept_of(findings.subspaces, c), findings.shares(c).tolist(), strict=True
        ):
            row = {"class": c, "weight": float(findings.values[kept]), "share": finite(share)}
            readers[int(findings.head.indices[kept])].append(row)
    for rows in readers:
        rows.sort(key=lambda row: -(row["share"] or 0.0))
    return readers


def _strongest(weights: torch.Tensor) -> list[list[float]]:
    """The largest positive and negative dense weights of a feature, [class, weight]."""
    n = min(DENSE_WEIGHTS, len(weights))
    order = weights.sort(descending=True, stable=True).indices.tolist()
    up = [c for c in order[:n] if weights[c] > 0]
    down = [c for c in order[-n:] if weights[c] < 0 and c not in up]
    return [[c, float(weights[c])] for c in (*up, *down)]


def finite(value: float) -> float | None:
    """A number for JSON, None where it is NaN or infinite."""
    return value if math.isfinite(value) else None
