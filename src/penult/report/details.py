"""Details: what the page of one class, or of one feature, shows."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from penult.explain.survey import Distributions, kept_of
from penult.report.album import PageImages
from penult.report.findings import Findings, shares_of_read

CONFUSIONS = 4
SEPARATING = 5
CLASSES_LISTED = 6


class Details:
    """Makes the details of classes and features.

    Args:
        findings: what they say.
        shots: the images that they show.
    """

    def __init__(self, findings: Findings, shots: PageImages) -> None:
        self._found = findings
        self._shots = shots
        self._shares = findings.shares()
        self._sparse_influence = findings.sparse_influence()
        self._sparse_shares: Tensor | None = None
        if findings.sparse is not None and self._sparse_influence is not None:
            self._sparse_shares = shares_of_read(self._sparse_influence, findings.sparse)

    def of_class(self, c: int) -> dict[str, Any]:
        """Features by the network's influence with their images, and the classes it is taken for.

        `kept` says which features the sparse head reads; what it makes of them is null elsewhere.
        """
        found, means = self._found, self._found.means
        has_own = bool(means.counts[c] > 0)
        has_others = bool(means.counts[c] < means.n_samples)
        features = [
            {
                "feature": (j := int(found.shown.indices[entry])),
                "influence": finite(float(found.influence[c, j])),
                "share": finite(float(self._shares[c, j])),
                "weight": float(found.network.weight[c, j]),
                **self._kept(c, j),
                "mean": float(means.means[c, j]) if has_own else None,
                "elsewhere": float(means.elsewhere[c, j]) if has_others else None,
                "own": self._shots.of(("own", entry)),
                "others": self._shots.of(("others", entry)),
            }
            for entry in kept_of(found.shown, c)
        ]
        bias = float(found.network.bias[c])
        logit = float(found.network.weight[c] @ means.means[c]) + bias if has_own else None
        return {
            "features": features,
            "bias": bias,
            "logit": logit,
            "confusions": self._confusions(c),
        }

    def _kept(self, c: int, j: int) -> dict[str, Any]:
        """What the sparse head makes of a feature for a class."""
        sparse = self._found.sparse
        if sparse is None or not sparse.read[c, j]:
            return {"kept": False, "sparse_influence": None, "sparse_share": None,
                    "sparse_weight": None}  # fmt: skip
        assert self._sparse_influence is not None
        assert self._sparse_shares is not None
        return {
            "kept": True,
            "sparse_influence": finite(float(self._sparse_influence[c, j])),
            "sparse_share": finite(float(self._sparse_shares[c, j])),
            "sparse_weight": float(sparse.weight[c, j]),
        }

    def _confusions(self, c: int) -> list[dict[str, Any]]:
        found = self._found.confusions.get(c, {})
        often = sorted(found, key=lambda d: (-sum(found[d][0]) - sum(found[d][1]), d))
        network, means = self._found.told_apart
        rows = []
        for d in often[:CONFUSIONS]:
            taken = self._found.verdicts.taken.get((c, d))
            misled = [] if taken is None else means.misleading(network, c, d, taken)
            rows.append(
                {
                    "class": d,
                    "to": found[d][0],
                    "from": found[d][1],
                    "features": _moves(means.separation(network, c, d)),
                    "misled": _moves(misled),
                }
            )
        return rows

    def of_features(self, found: Distributions) -> list[dict[str, Any]]:
        """Of every feature: what it moves, who reads it, where it is largest, its distribution."""
        findings, relations = self._found, self._found.relations
        readers = self._readers()
        return [
            {
                "network": self._moved(j),
                "readers": readers[j],
                "shots": self._shots.of(("feature", j)),
                "correlation": finite(float(relations.correlations[j])),
                "range": [float(findings.survey.low[j]), float(findings.survey.high[j])],
                "distribution": self._distribution(j, found),
            }
            for j in range(findings.n_features)
        ]

    def _moved(self, j: int) -> list[dict[str, Any]]:
        """The classes that a feature moves most in the network; by weight where none is known."""
        found = self._found
        size = found.influence[:, j].abs().nan_to_num(-1.0)
        if bool((size < 0).all()):
            size = found.network.relative()[:, j].abs()
        order = size.sort(descending=True, stable=True).indices[:CLASSES_LISTED]
        return [
            {
                "class": c,
                "weight": float(found.network.weight[c, j]),
                "influence": finite(float(found.influence[c, j])),
                "share": finite(float(self._shares[c, j])),
            }
            for c in order.tolist()
            if size[c] > 0
        ]

    def _distribution(self, j: int, found: Distributions) -> list[dict[str, Any]]:
        means = self._found.means
        counts = means.counts
        rows: list[dict[str, Any]] = [
            {
                "class": c,
                "n": int(counts[c]),
                "mean": float(means.means[c, j]),
                "counts": found.counts[j, i].tolist(),
            }
            for i, c in enumerate(found.classes[j].tolist())
            if counts[c]
        ]
        n_others = int(found.counts[j, -1].sum())
        if n_others:
            others = torch.ones(len(counts), dtype=torch.bool)
            others[found.classes[j]] = False
            sums = (means.means[others, j] * counts[others]).sum()
            mean = float(sums / n_others)
            tally = found.counts[j, -1].tolist()
            rows.append({"class": None, "n": n_others, "mean": mean, "counts": tally})
        return rows

    def _readers(self) -> list[list[dict[str, Any]]]:
        """The classes of the sparse head that read each feature, the largest share first."""
        sparse = self._found.sparse
        readers: list[list[dict[str, Any]]] = [[] for _ in range(self._found.n_features)]
        if sparse is None:
            return readers
        assert self._sparse_shares is not None
        for c, j in sparse.read.nonzero().tolist():
            share = finite(float(self._sparse_shares[c, j]))
            readers[j].append({"class": c, "weight": float(sparse.weight[c, j]), "share": share})
        for rows in readers:
            rows.sort(key=lambda row: -(row["share"] or 0.0))
        return readers


def _moves(found: list[tuple[int, float]]) -> list[dict[str, Any]]:
    return [{"feature": j, "moves": moves} for j, moves in found[:SEPARATING]]


def finite(value: float) -> float | None:
    """A number for JSON, None where it is NaN or infinite."""
    return value if math.isfinite(value) else None
