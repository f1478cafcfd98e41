"""Gaps: accuracy in a class where a feature is high less where it is low."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.stats import norm
from torch import Tensor

from penult.edit.logits import LogitTable
from penult.intervals import Z95, benjamini_hochberg

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
        high, low = _wilson(self.right_high, self.n_high), _wilson(self.right_low, self.n_low)
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
        return sum(q <= rate for q in benjamini_hochberg(list(2 * norm.sf(z.abs().numpy()))))

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
    table: LogitTable, pairs: Sequence[tuple[int, int]], order: Tensor | None = None
) -> Gaps:
    """Gaps of many classes and features.

    Args:
        table: the samples.
        pairs: (class, feature), those of one class together.
        order: (n_samples,) whose values stand in whose place: a control, see `within_classes`.
    """
    right = (table.classes == table.labels).double()
    if order is not None:
        right = right[order]
    found: list[Tensor] = []
    classes = torch.tensor([c for c, _ in pairs], dtype=torch.int64)
    features = torch.tensor([j for _, j in pairs], dtype=torch.int64)
    for c in torch.unique_consecutive(classes).tolist():
        rows = (table.labels == c).nonzero()[:, 0]
        own = features[classes == c]
        z = table.rows(rows)
        parts = torch.split(own, max(1, COLUMNS // max(1, len(rows))))
        found += [_counted(z[:, part], right[rows]) for part in parts]
    counts = torch.cat([*found, torch.zeros(0, 4, dtype=torch.int64)])
    return Gaps(*counts.unbind(1))


def one_gap(table: LogitTable, x: Tensor, c: int) -> dict[str, Any] | None:
    """The gap of one quantity x (n_samples,) in a class; None where it does not vary."""
    own = table.labels == c
    right = (table.classes == table.labels)[own].double()
    return Gaps(*_counted(x[own][:, None], right).unbind(1)).document(0)


def within_classes(labels: Tensor, seed: int) -> Tensor:
    """An order in which every sample's place is taken by another of its class."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.arange(len(labels))
    for c in torch.unique(labels).tolist():
        rows = (labels == c).nonzero()[:, 0]
        order[rows] = rows[torch.randperm(len(rows), generator=generator)]
    return order


def _counted(values: Tensor, right: Tensor) -> Tensor:
    """Samples and right ones, high and low, (n_columns, 4) int64, of values (n, n_columns)."""
    n = len(values)
    ordered = values.sort(dim=0).values
    quarter = max(0, -(-n // 4) - 1)
    low_end, high_end = ordered[quarter], ordered[n - 1 - quarter]
    low, high = values <= low_end, values >= high_end
    flat = low_end == high_end
    if bool(flat.any()):
        high[:, flat] = values[:, flat] > high_end[flat]
    counts = [high.sum(0), right @ high.double(), low.sum(0), right @ low.double()]
    return torch.stack([count.long() for count in counts], 1)


def _wilson(k: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """Wilson's interval, as `penult.intervals.accuracy_interval`, of many proportions."""
    m = n.double()
    p, whole = k / m, 1 + Z95 * Z95 / m
    middle = (p + Z95 * Z95 / (2 * m)) / whole
    half = Z95 / whole * (p * (1 - p) / m + Z95 * Z95 / (4 * m * m)).sqrt()
    return (middle - half).clamp_min(0), (middle + half).clamp_max(1)
