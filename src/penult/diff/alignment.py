"""Alignment: which feature of one network is which of another, by their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.diff.shared import Shared
from penult.diff.side import Side

MOST_SAMPLES = 10_000  # of which correlations are computed
ALIKE = 0.5  # correlation from which two features count as the same
SPLITS_LISTED = 20


@dataclass(frozen=True, eq=False)
class Alignment:
    """A one-to-one match of the features of two sides, and how good it is.

    Attributes:
        how: "number" where feature j is feature j in both, as in a fine-tune, else "assignment".
        partner: (n_features of the old side,) int64, the feature of the new side that is this one;
            -1 where none is alike.
        correlation: (n_features of the old side,) with its partner, or with the best that was left.
        cka: linear CKA of the two sets of features, from 0 to 1: how alike all of them are together
            (Kornblith et al. 2019).
        splits: old features with several new ones that are alike, and those.
        n_samples: of which the correlations are.
    """

    how: str
    partner: Tensor
    correlation: Tensor
    cka: float
    splits: dict[int, list[int]]
    n_samples: int

    @classmethod
    def of(cls, old: Side, new: Side, shared: Shared) -> Alignment:
        """Match the features of two sides by their correlation on the samples that both have.

        By number where that is nearly as good as any other match, as it is for two heads of one
        network and for its fine-tunes; else by the one-to-one assignment with the largest sum of
        correlations (Li et al. 2016; SciPy's `linear_sum_assignment`). A pair counts from a
        correlation of 0.5.
        """
        n = shared.n_samples
        chosen = torch.linspace(0, n - 1, min(n, MOST_SAMPLES), dtype=torch.float64).round().long()
        if old.run.folder.resolve() == new.run.folder.resolve():
            d = old.head.n_features
            return cls("number", torch.arange(d), torch.ones(d), 1.0, {}, len(chosen))
        first = _standardised(old.rows(shared.old_rows[chosen]))
        second = _standardised(new.rows(shared.new_rows[chosen]))
        found = first[0].T @ second[0]
        cka = _linear_cka(first, second, found)
        how, partner = _assigned(found)
        correlation = found[torch.arange(len(partner)), partner.clamp_min(0)]
        correlation = torch.where(partner >= 0, correlation, found.amax(1))
        partner = torch.where(correlation >= ALIKE, partner, -1)
        alike = found >= ALIKE
        several = (alike.sum(1) > 1).nonzero()[:, 0].tolist()
        splits = {j: alike[j].nonzero()[:, 0].tolist() for j in several}
        return cls(how, partner, correlation, cka, splits, len(chosen))

    @property
    def n_matched(self) -> int:
        """Features of the old side that have a partner."""
        return int((self.partner >= 0).sum())

    def in_old(self, n_new: int) -> Tensor:
        """The old feature of each new one, (n_new,) int64, -1 for none."""
        found = torch.full((n_new,), -1, dtype=torch.int64)
        there = (self.partner >= 0).nonzero()[:, 0]
        found[self.partner[there]] = there
        return found

    def document(self) -> dict[str, Any]:
        """How features were matched, and how well."""
        splits = list(self.splits.items())[:SPLITS_LISTED]
        return {
            "how": self.how,
            "n_matched": self.n_matched,
            "n_features": len(self.partner),
            "mean_correlation": float(self.correlation.mean()),
            "cka": self.cka,
            "n_samples": self.n_samples,
            "partner": self.partner.tolist(),
            "correlation": [round(value, 4) for value in self.correlation.tolist()],
            "splits": [{"feature": j, "alike": others} for j, others in splits],
        }


def _standardised(z: Tensor) -> tuple[Tensor, Tensor]:
    """Features less their means with length 1 in each column; and those lengths. Constant: 0."""
    centred = z.double() - z.double().mean(0)
    length = centred.norm(dim=0)
    dead = length <= 1e-6 * (z.double().norm(dim=0) + 1e-300)
    length = torch.where(dead, 0.0, length)
    unit = torch.where(dead, 0.0, centred / length.clamp_min(1e-300))
    return unit.float(), length.float()


def _linear_cka(
    first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor], correlation: Tensor
) -> float:
    """‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features X and Y, Frobenius norms; 0 for constant ones."""
    (a, la), (b, lb) = first, second
    # The scale of the features is of no account, and its fourth power may be no number any more.
    la, lb = la / la.max().clamp_min(1e-30), lb / lb.max().clamp_min(1e-30)
    cross = (correlation * la[:, None] * lb).double().square().sum()
    norms = [
        float(((unit.T @ unit) * length[:, None] * length).double().square().sum().sqrt())
        for unit, length in ((a, la), (b, lb))
    ]
    return float(cross) / (norms[0] * norms[1]) if all(norms) else 0.0


def _assigned(correlation: Tensor) -> tuple[str, Tensor]:
    """How features are matched, and the partner of each, -1 for none."""
    from scipy.optimize import linear_sum_assignment  # slow to import

    n, n_new = correlation.shape
    rows, columns = linear_sum_assignment(correlation.numpy(), maximize=True)
    partner = torch.full((n,), -1, dtype=torch.int64)
    partner[torch.as_tensor(rows)] = torch.as_tensor(columns)
    if n == n_new:
        own = correlation.diagonal()
        best = correlation[torch.as_tensor(rows), torch.as_tensor(columns)]
        alike = float((own >= ALIKE).sum()), float((best >= ALIKE).sum())
        # In another network feature j is feature j by chance only, once among n.
        if alike[0] >= 0.9 * alike[1] and alike[0] > 0:
            return "number", torch.arange(n)
    return "assignment", partner
