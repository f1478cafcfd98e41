"""Details: what the page of one class, or of one feature, shows."""

from __future__ import annotations

import math
from functools import cached_property
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
        entries = kept_of(found.shown, c)
        kept = found.shown.indices[entries.start : entries.stop]
        columns = {
            "feature": kept.tolist(),
            "influence": _finite_all(found.influence[c, kept]),
            "share": _finite_all(self._shares[c, kept]),
            "weight": found.network.weight[c, kept].tolist(),
            **self._kept(c, kept),
            "mean": means.means[c, kept].tolist() if has_own else [None] * len(kept),
            "elsewhere": means.elsewhere[c, kept].tolist() if has_others else [None] * len(kept),
            "own": [self._shots.of(("own", entry)) for entry in entries],
            "others": [self._shots.of(("others", entry)) for entry in entries],
        }
        features = [
            dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)
        ]
        bias = float(found.network.bias[c])
        logit = float(found.network.weight[c] @ means.means[c]) + bias if has_own else None
        return {
            "features": features,
            "bias": bias,
            "logit": logit,
            "confusions": self._confusions(c),
        }

    def _kept(self, c: int, kept: Tensor) -> dict[str, list[Any]]:
        """What the sparse head makes of some features for a class; None of those not read."""
        names = ("sparse_influence", "sparse_share", "sparse_weight")
        sparse = self._found.sparse
        if sparse is None:
            nothing: list[Any] = [None] * len(kept)
            return {"kept": [False] * len(kept), **dict.fromkeys(names, nothing)}
        assert self._sparse_influence is not None
        assert self._sparse_shares is not None
        read = sparse.read[c, kept].tolist()
        found = [
            _finite_all(self._sparse_influence[c, kept]),
            _finite_all(self._sparse_shares[c, kept]),
            sparse.weight[c, kept].tolist(),
        ]
        of_read = [
            [value if is_read else None for value, is_read in zip(values, read, strict=True)]
            for values in found
        ]
        return {"kept": read, **dict(zip(names, of_read, strict=True))}

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
        """Of every feature what `of_feature` says."""
        return [self.of_feature(j, found) for j in range(self._found.n_features)]

    def of_feature(self, j: int, found: Distributions) -> dict[str, Any]:
        """What a feature moves, who reads it, where it is largest, its distribution."""
        survey = self._found.survey
        return {
            "network": self._moved(j),
            "readers": self._readers[j],
            "shots": self._shots.of(("feature", j)),
            "correlation": finite(float(self._found.relations.correlations[j])),
            "range": [float(survey.low[j]), float(survey.high[j])],
            "distribution": self._distribution(j, found),
        }

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

    @cached_property
    def _readers(self) -> list[list[dict[str, Any]]]:
        """The classes of the sparse head that read each feature, the largest share first."""
        sparse = self._found.sparse
        readers: list[list[dict[str, Any]]] = [[] for _ in range(self._found.n_features)]
        if sparse is None:
            return readers
        assert self._sparse_shares is not None
        c, j = sparse.read.nonzero().unbind(1)
        columns = (c.tolist(), j.tolist(), sparse.weight[c, j].tolist())
        shares = _finite_all(self._sparse_shares[c, j])
        for of, feature, weight, share in zip(*columns, shares, strict=True):
            readers[feature].append({"class": of, "weight": weight, "share": share})
        for rows in readers:
            rows.sort(key=lambda row: -(row["share"] or 0.0))
        return readers


def _moves(found: list[tuple[int, float]]) -> list[dict[str, Any]]:
    return [{"feature": j, "moves": moves} for j, moves in found[:SEPARATING]]


def finite(value: float) -> float | None:
    """A number for JSON, None where it is NaN or infinite."""
    return value if math.isfinite(value) else None


def _finite_all(values: Tensor) -> list[float | None]:
    return [finite(value) for value in values.tolist()]
