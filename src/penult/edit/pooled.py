"""Pooled tests: features that a head overuses for many classes, each with too few samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from penult.edit.edit import Edit
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast, background
from penult.edit.registry import apply_edit
from penult.edit.setting import EditSetting
from penult.heads.comparison import PairedCounts
from penult.intervals import benjamini_hochberg, upper_tail

FEWEST_POOLED = 100  # samples of all these classes together: fewer tell nothing
LISTED, CLASSES_NAMED = 20, 3


def pooled_suspects(
    contrast: Contrast, chosen: Tensor, setting: EditSetting, rate: float
) -> dict[str, Any]:
    """The features that are overused over all chosen classes, worst first, as JSON holds it.

    Args:
        contrast: the samples.
        chosen: (n_classes,) bool, the classes.
        setting: of the run.
        rate: false discovery rate over the features; as in `find_suspects` none counts as a suspect
            without samples of the training.
    """
    tested = contrast.factors(chosen)
    together = torch.zeros(len(tested.by_class), dtype=torch.int64)
    scores = tested.score / background(tested.by_class, together)
    p = upper_tail(scores)
    q = torch.from_numpy(benjamini_hochberg(p.numpy()))
    told = contrast.trained is not None
    worst = scores.argsort(descending=True, stable=True)[:LISTED].tolist()
    return {
        "n_classes": int(chosen.sum()),
        "n_suspects": int((q <= rate).sum()) if told else 0,
        "n_features": len(p),
        "features": [
            {
                "feature": j,
                "overuse": {
                    "score": float(scores[j]),
                    "p": float(p[j]),
                    "q": float(q[j]) if told else None,
                    "suspect": told and bool(q[j] <= rate),
                },
                "classes": classes,
                "off": _off(contrast.new.table, setting, j),
            }
            for j, classes in zip(
                worst, _classes(contrast, chosen, worst, setting.class_names), strict=True
            )
        ],
    }


def _classes(
    contrast: Contrast, chosen: Tensor, features: list[int], names: Sequence[str]
) -> list[list[str]]:
    """The classes for which each of some features is overused most."""
    weight = contrast.new.table.head.weight
    of_class = contrast.new.of_weights().gradient[0] * (weight - weight.mean(0))
    found = []
    for j in features:
        parts = torch.where(chosen, of_class[:, j], -torch.inf)
        order = parts.argsort(descending=True)[:CLASSES_NAMED].tolist()
        found.append([names[c] for c in order if parts[c] > 0])
    return found


def _off(table: LogitTable, setting: EditSetting, j: int) -> dict[str, Any]:
    """The exact change of accuracy when the feature stands still at its mean for all classes."""
    after = apply_edit(table.head, Edit("off", feature=j), setting)
    return PairedCounts.of(table.labels, table.classes, table.classify(after)).document()
