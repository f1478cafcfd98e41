"""Pooled tests: features that a head overuses for many classes, each with too few samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from penult.edit.edit import Edit
from penult.edit.logits import LogitTable
from penult.edit.overuse import Residuals
from penult.edit.registry import apply_edit
from penult.edit.setting import EditSetting
from penult.heads.comparison import PairedCounts
from penult.intervals import benjamini_hochberg, upper_tail

FEWEST_POOLED = 100  # samples of all these classes together: fewer tell nothing
LISTED, CLASSES_NAMED = 20, 3


def pooled_overuse(
    table: LogitTable, residuals: Residuals, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """Test of each feature over several classes together.

    Were what the feature adds to the logits of all these classes multiplied by one factor, which
    would suit the samples best? The test is the score test of a factor below 1. Every sample counts
    once, however few of a class there are, so that it holds for classes of a few samples as well.

    Args:
        table: the head and the samples.
        residuals: of the table.
        chosen: (n_classes,) bool, the classes.

    Returns:
        (n_features,) scores, standard normal without overuse, and one-sided p values that hold for
        both calibrations.
    """
    weight = (table.head.weight - table.head.weight.mean(0))[chosen]
    n_features = weight.shape[1]
    mean = sum((z.double().sum(0) for _, z in table.blocks()), torch.zeros(n_features))
    mean = (mean / table.n_samples).float()
    sums = torch.zeros(2, 2, n_features, dtype=torch.float64)
    for start, z in table.blocks():
        rows, moved = slice(start, start + len(z)), z - mean
        for i, residual in enumerate((residuals.by_one[rows], residuals.by_class[rows])):
            parts = (residual[:, chosen] @ weight * moved).double()
            sums[i, 0] += parts.sum(0)
            sums[i, 1] += parts.square().sum(0)
    size = sums[:, 1].sqrt() * residuals.inflation
    scores = torch.where(size > 0, sums[:, 0] / size.clamp_min(1e-300), 0.0)
    return scores[0], upper_tail(scores.amin(0))


def pooled_suspects(
    table: LogitTable,
    residuals: Residuals,
    chosen: Tensor,
    setting: EditSetting,
    rate: float,
) -> dict[str, Any]:
    """The features that are overused over all chosen classes, worst first, as JSON holds it."""
    scores, p = pooled_overuse(table, residuals, chosen)
    q = torch.from_numpy(benjamini_hochberg(p.numpy()))
    worst = scores.argsort(descending=True, stable=True)[:LISTED].tolist()
    return {
        "n_classes": int(chosen.sum()),
        "n_suspects": int((q <= rate).sum()),
        "n_features": len(p),
        "features": [
            {
                "feature": j,
                "overuse": {
                    "score": float(scores[j]),
                    "p": float(p[j]),
                    "q": float(q[j]),
                    "suspect": bool(q[j] <= rate),
                },
                "classes": _classes(table, residuals, chosen, j, setting.class_names),
                "off": _off(table, setting, j),
            }
            for j in worst
        ],
    }


def _classes(
    table: LogitTable, residuals: Residuals, chosen: Tensor, j: int, names: Any
) -> list[str]:
    """The classes for which a feature is overused most."""
    x = table.column(j)
    weight = table.head.weight[:, j] - table.head.weight[:, j].mean()
    parts = ((x - x.mean()) @ residuals.by_one) * weight
    parts[~chosen] = -torch.inf
    order = parts.argsort(descending=True)[:CLASSES_NAMED].tolist()
    return [names[c] for c in order if parts[c] > 0]


def _off(table: LogitTable, setting: EditSetting, j: int) -> dict[str, Any]:
    """The exact change of accuracy when the feature stands still at its mean for all classes."""
    after = apply_edit(table.head, Edit("off", feature=j), setting)
    return PairedCounts.of(table.labels, table.classes, table.classify(after)).document()
