"""Flips: samples that are right on one side only, and the features that moved the decision."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.diff.alignment import Alignment
from penult.diff.shared import Shared
from penult.diff.side import ROWS, Side
from penult.edit.effects import taken_by_bounds
from penult.heads.bounded_head import BoundedHead
from penult.intervals import exact_interval

LISTED = 50
RESPONSIBLE = 3


@dataclass(frozen=True, eq=False)
class SideReading:
    """What one side reads: its weights under common class names, and its features' means.

    Attributes:
        side: the side.
        rows: (n_samples,) numbers of the shared samples on this side.
        weight: (n_classes of both sides, n_features) float64; 0 for classes that it does not know.
        own: (n_classes of both sides,) the side's own number of each class, -1 for none.
        mean: (n_features,) float64 of the shared samples.
    """

    side: Side
    rows: Tensor
    weight: Tensor
    own: Tensor
    mean: Tensor

    @classmethod
    def of(cls, side: Side, rows: Tensor, places: Tensor, n_classes: int) -> SideReading:
        """From a side's rows of the shared samples and the places of its classes."""
        weight = torch.zeros(n_classes, side.head.n_features, dtype=torch.float64)
        weight[places] = side.head.weight.double()
        own = torch.full((n_classes,), -1, dtype=torch.int64)
        own[places] = torch.arange(len(places))
        total = torch.zeros(side.head.n_features, dtype=torch.float64)
        for start in range(0, len(rows), ROWS):
            total += side.rows(rows[start : start + ROWS]).double().sum(0)
        return cls(side, rows, weight, own, total / max(1, len(rows)))

    def margins(self, samples: Tensor, of: Tensor, against: Tensor) -> Tensor:
        """What each feature adds to the lead of one class over another, (n, n_features).

        Measured from the features' means over the shared samples.

        Args:
            samples: (n,) numbers among the shared samples.
            of, against: (n,) classes.
        """
        z = self.side.rows(self.rows[samples]).double()
        found = (self.weight[of] - self.weight[against]) * (z - self.mean)
        head = self.side.head
        if isinstance(head, BoundedHead):
            for classes, sign in ((self.own[of], -1), (self.own[against], 1)):
                known = classes >= 0
                found[known] += sign * taken_by_bounds(head, z[known], classes[known])
        return found

    def totals(self, shared: Shared) -> Tensor:
        """What features add to each class's logit, summed over its samples, beyond their mean.

        Returns:
            (n_classes, n_features) float64.
        """
        n_classes, counts = len(shared.class_names), shared.counts
        totals = torch.zeros(n_classes, self.weight.shape[1], dtype=torch.float64)
        for start in range(0, shared.n_samples, ROWS):
            step = slice(start, start + ROWS)
            z = self.side.rows(self.rows[step]).double()
            totals.index_add_(0, shared.labels[step], z - self.mean)
        found = self.weight * totals
        head = self.side.head
        if isinstance(head, BoundedHead):
            for p in range(head.n_bounds):
                found -= self._taken(shared, p) * counts[:, None]
        return found

    def _taken(self, shared: Shared, p: int) -> Tensor:
        """What a bound takes on the mean sample of each class beyond the mean of all samples."""
        head = self.side.head
        assert isinstance(head, BoundedHead)
        one = BoundedHead(
            head.name,
            head.weight[:1],
            head.bias[:1],
            directions=head.directions[p : p + 1],
            bounds=head.bounds[p : p + 1],
            scales=torch.ones(1, 1),
        )
        taken = torch.zeros(len(shared.class_names), head.n_features, dtype=torch.float64)
        for start in range(0, shared.n_samples, ROWS):
            step = slice(start, start + ROWS)
            z = self.side.rows(self.rows[step]).double()
            part = taken_by_bounds(one, z, torch.zeros(len(z), dtype=torch.int64))
            taken.index_add_(0, shared.labels[step], part)
        beyond = taken / shared.counts.clamp_min(1)[:, None] - taken.sum(0) / shared.n_samples
        scales = torch.zeros(len(beyond), dtype=torch.float64)
        known = self.own >= 0
        scales[known] = head.scales[self.own[known], p].double()
        return beyond * scales[:, None]


def flips(old: SideReading, new: SideReading, shared: Shared, matched: Alignment) -> dict[str, Any]:
    """Negative flips (right before, wrong now) and positive ones, with the features behind them.

    A feature's part in a flip is what it adds to the lead of the right class over the wrong one on
    the new side less on the old side. Features without a partner count on their side alone.

    Returns:
        For each kind the number of samples, the rate with its 95 % interval (of all shared
        samples), and the first 50 samples.
    """
    before, after = shared.old == shared.labels, shared.new == shared.labels
    found: dict[str, Any] = {}
    for kind, chosen in (("negative", before & ~after), ("positive", ~before & after)):
        n = int(chosen.sum())
        rows = chosen.nonzero()[:LISTED, 0]
        found[kind] = {
            "n_samples": n,
            "rate": n / shared.n_samples,
            "interval": list(exact_interval(n, shared.n_samples)),
            "samples": _samples(rows, old, new, shared, matched),
        }
    changed = shared.old != shared.new
    found["n_changed"] = int(changed.sum())
    return found


def _samples(
    rows: Tensor, old: SideReading, new: SideReading, shared: Shared, matched: Alignment
) -> list[dict[str, Any]]:
    if not len(rows):
        return []
    labels, first, second = (x[rows] for x in (shared.labels, shared.old, shared.new))
    wrong = torch.where(first == labels, second, first)
    parts = [reading.margins(rows, labels, wrong) for reading in (old, new)]
    pairs = _pairs(matched, parts[1].shape[1])
    padded = [torch.cat([part, part.new_zeros(len(rows), 1)], 1) for part in parts]
    moved = padded[1][:, pairs[:, 1]] - padded[0][:, pairs[:, 0]]
    names = shared.class_names
    found = []
    for i, row in enumerate(rows.tolist()):
        order = moved[i].abs().argsort(descending=True)[:RESPONSIBLE].tolist()
        features = [
            {
                "old": None if pairs[p, 0] < 0 else int(pairs[p, 0]),
                "new": None if pairs[p, 1] < 0 else int(pairs[p, 1]),
                "before": float(padded[0][i, pairs[p, 0]]),
                "after": float(padded[1][i, pairs[p, 1]]),
            }
            for p in order
            if float(moved[i, p]) != 0
        ]
        found.append(
            {
                "id": shared.ids[row],
                "row_old": int(shared.old_rows[row]),
                "row_new": int(shared.new_rows[row]),
                "label": names[int(labels[i])],
                "before": names[int(first[i])],
                "after": names[int(second[i])],
                "features": features,
            }
        )
    return found


def _pairs(matched: Alignment, n_new: int) -> Tensor:
    """(n, 2) features that are one: old and new, -1 where a feature has no partner."""
    old = torch.arange(len(matched.partner))
    alone = (matched.in_old(n_new) < 0).nonzero()[:, 0]
    pairs = torch.stack([old, matched.partner], 1)
    return torch.cat([pairs, torch.stack([torch.full_like(alone, -1), alone], 1)])
