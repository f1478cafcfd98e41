"""Gaps: accuracy in a class where a feature is high less where it is low."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.edit.logits import LogitTable
from penult.intervals import accuracy_intervals, benjamini_hochberg, upper_tail
from penult.progress import Progress

COLUMNS = 2**23  # numbers looked at in one step


@dataclass(frozen=True, eq=False)
class Gaps:
    """Spuriosity gaps of classes and features (Moayeri et al. 2023).

    High and low are the upper and the lower quarter of the class's samples; where both quarters
    begin at the same value, as they do for a rectified feature that is mostly zero, those above it
    and the others. The interval is Newcombe's (1998), made of Wilson's of both accuracies.

    Attributes:
        n_high, right_high, n_low, right_low: (n,) int64, samples, and those that are right.
    """

    n_high: Tensor
    right_high: Tensor
    n_low: Tensor
    right_low: Tensor

    @property
    def value(self) -> Tensor:
        """Accuracy where it is high less where it is low, (n,) float64; NaN without samples."""
        return self.right_high / self.n_high.double() - self.right_low / self.n_low.double()

    @property
    def interval(self) -> tuple[Tensor, Tensor]:
        """Ends of the 95 % interval, (n,) float64 each."""
        high = accuracy_intervals(self.right_high, self.n_high)
        low = accuracy_intervals(self.right_low, self.n_low)
        p = self.right_high / self.n_high.double()
        r = self.right_low / self.n_low.double()
        below = torch.hypot(p - high[0], low[1] - r)
        above = torch.hypot(high[1] - p, r - low[0])
        return p - r - below, p - r + above

    @property
    def nearest_to_zero(self) -> Tensor:
        """What the gap is at least: the interval's end nearer to zero, 0 where it holds zero."""
        low, high = self.interval
        at_least = torch.where(low > 0, low, torch.where(high < 0, high, 0.0))
        return at_least.nan_to_num(0.0)

    def n_found(self, rate: float) -> int:
        """How many differ from zero at a false discovery rate over all of them.

        The test is Wald's with one right and one wrong sample added to both: Agresti, Caffo 2000.
        """
        n, m = self.n_high.double() + 2, self.n_low.double() + 2
        p, r = (self.right_high + 1) / n, (self.right_low + 1) / m
        z = (p - r) / (p * (1 - p) / n + r * (1 - r) / m).sqrt()
        return int((benjamini_hochberg(2 * upper_tail(z.abs()).numpy()) <= rate).sum())

    def document(self, i: int) -> dict[str, Any] | None:
        """One of them as JSON holds it; None where the feature does not vary."""
        if not int(self.n_high[i]) or not int(self.n_low[i]):
            return None
        sides = (("high", self.right_high, self.n_high), ("low", self.right_low, self.n_low))
        return {
            "value": float(self.value[i]),
            "interval": [float(end[i]) for end in self.interval],
            **{
                name: {"accuracy": int(k[i]) / int(n[i]), "n_samples": int(n[i])}
                for name, k, n in sides
            },
        }


def all_gaps(
    table: LogitTable,
    classes: Tensor,
    features: Tensor,
    orders: Sequence[Tensor | None] = (None,),
    progress: Progress | None = None,
) -> list[Gaps]:
    """Gaps of many classes and features.

    Args:
        table: the samples.
        classes, features: (n,) int64, those of one class together.
        orders: whose values stand in whose place, (n_samples,) each: None for their own, or a
            control, see `within_classes`.
        progress: called with (pairs done, pairs in all).

    Returns:
        One for each order.
    """
    right = (table.classes == table.labels).float()
    sides = torch.stack([right if order is None else right[order] for order in orders])
    found: list[Tensor] = []
    start = 0
    for c, n in zip(*torch.unique_consecutive(classes, return_counts=True), strict=True):
        own, start = features[start : start + n], start + int(n)
        rows = (table.labels == c).nonzero()[:, 0]
        z = table.rows(rows)
        parts = torch.split(own, max(1, COLUMNS // max(1, len(rows))))
        found += [_counted(z[:, part], sides[:, rows]) for part in parts]
        if progress is not None:
            progress(start, len(features))
    counts = torch.cat([*found, torch.zeros(0, len(orders), 4, dtype=torch.int64)])
    return [Gaps(*counts[:, i].unbind(1)) for i in range(len(orders))]


def one_gap(table: LogitTable, x: Tensor, c: int) -> dict[str, Any] | None:
    """The gap of one quantity x (n_samples,) in a class; None where it does not vary."""
    own = table.labels == c
    right = (table.classes == table.labels)[own].float()
    return Gaps(*_counted(x[own][:, None], right[None])[:, 0].unbind(1)).document(0)


def within_classes(labels: Tensor, seed: int) -> Tensor:
    """An order in which every sample's place is taken by another of its class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(len(labels))
    for c in torch.unique(labels).tolist():
        rows = (labels == c).nonzero()[:, 0]
        order[rows] = rows[torch.randperm(len(rows), generator=generator)]
    return order


def _counted(values: Tensor, right: Tensor) -> Tensor:
    """Samples and right ones, high and low, (n_columns, n_orders, 4) int64.

    Args:
        values: (n, n_columns).
        right: (n_orders, n) float32, 1 where a sample is right.
    """
    n = len(values)
    columns = values.T.contiguous()
    quarter = max(0, -(-n // 4) - 1)
    ordered = columns.sort(dim=1).values
    low_end, high_end = ordered[:, quarter, None], ordered[:, n - 1 - quarter, None]
    low = columns <= low_end
    high = torch.where(low_end == high_end, columns > high_end, columns >= high_end)
    # Sums of fewer than 2^24 ones are exact in float32.
    sides = [
        x for side in (high.float(), low.float()) for x in (_sizes(side, right), side @ right.T)
    ]
    return torch.stack(sides, 2).long()


def _sizes(side: Tensor, right: Tensor) -> Tensor:
    return side.sum(1, keepdim=True).expand(-1, len(right))
