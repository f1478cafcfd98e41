"""Evidence: what each class rests on before and now, and which features came or went."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from penult.diff.alignment import Alignment
from penult.diff.flips import SideReading
from penult.diff.shared import Shared
from penult.edit.verdicts import Verdict

SHARE = 0.05  # of a class's evidence, from which a change of one feature is told
CLASSES_LISTED = 50
FEATURES_LISTED = 6


def evidence(
    old: SideReading,
    new: SideReading,
    shared: Shared,
    matched: Alignment,
    verdicts: Mapping[tuple[int, str | None], Verdict],
) -> dict[str, Any]:
    """The classes whose evidence changed most, and what a person called a shortcut that is back.

    A class's evidence is what features add to its logit on its own samples, on average, beyond
    what they add on the samples of all classes; each feature has a share of the sum of the absolute
    values. What changed is half the sum of the shares' differences: 0 where the class rests on the
    same features in the same way, 1 where on none of them.

    Args:
        old, new: what the sides read.
        shared: their samples.
        matched: which feature is which.
        verdicts: by feature of the old side and class, see `penult.edit.verdicts.latest`.

    Returns:
        Under "classes" those that changed, the most first; under "returned" features that were
        called shortcuts of a class, that the old side did not use for it and the new side does.
    """
    shares = [_shares(side, shared) for side in (old, new)]
    back = matched.in_old(shares[1].shape[1])
    aligned = torch.zeros_like(shares[0])
    there = (back >= 0).nonzero()[:, 0]
    aligned[:, back[there]] = shares[1][:, there]
    alone = shares[1].clone()
    alone[:, there] = 0
    changed = ((shares[0] - aligned).abs().sum(1) + alone.abs().sum(1)) / 2
    names = shared.class_names
    rows = []
    seen = shared.counts > 0
    for c in changed.argsort(descending=True, stable=True).tolist():
        if not bool(seen[c]) or float(changed[c]) < SHARE:
            continue
        features = _features(shares[0][c], aligned[c], alone[c], matched)
        for row in features:
            row["verdict"] = _called(verdicts, row["old"], names[c])
        rows.append({"class": names[c], "changed": float(changed[c]), "features": features})
    return {
        "mean_changed": float(changed[seen].mean()),
        "n_classes": len(rows),
        "classes": rows[:CLASSES_LISTED],
        "returned": _returned(shares[0], aligned, matched, shared, verdicts),
    }


def _shares(reading: SideReading, shared: Shared) -> Tensor:
    """Share of each feature in the evidence of each class, (n_classes, n_features), signed."""
    found = reading.totals(shared)
    whole = found.abs().sum(1, keepdim=True)
    return torch.where(whole > 0, found / whole, 0.0)


def _features(
    before: Tensor, after: Tensor, alone: Tensor, matched: Alignment
) -> list[dict[str, Any]]:
    """Features of one class whose share changed by 0.05 or more, the most first."""
    rows: list[dict[str, Any]] = []
    for j in ((after - before).abs() >= SHARE).nonzero()[:, 0].tolist():
        was, now = float(before[j]), float(after[j])
        partner = int(matched.partner[j])
        rows.append(
            {
                "old": j,
                "new": None if partner < 0 else partner,
                "before": was,
                "after": now,
                "what": _what(was, now),
            }
        )
    rows += [
        {"old": None, "new": j, "before": 0.0, "after": float(alone[j]), "what": "came"}
        for j in (alone.abs() >= SHARE).nonzero()[:, 0].tolist()
    ]
    rows.sort(key=lambda row: -abs(row["after"] - row["before"]))
    return rows[:FEATURES_LISTED]


def _what(was: float, now: float) -> str:
    if abs(was) < SHARE / 5:
        return "came"
    if abs(now) < SHARE / 5:
        return "went"
    if was * now < 0:
        return "turned its sign"
    return "counts more" if abs(now) > abs(was) else "counts less"


def _returned(
    before: Tensor,
    after: Tensor,
    matched: Alignment,
    shared: Shared,
    verdicts: Mapping[tuple[int, str | None], Verdict],
) -> list[dict[str, Any]]:
    """Shortcuts by verdict that the old side did not use for their class and the new one does."""
    found = []
    names = shared.class_names
    for (feature, of), verdict in verdicts.items():
        if verdict.kind != "shortcut" or feature >= before.shape[1]:
            continue
        classes = range(len(names)) if of is None else [names.index(of)] if of in names else []
        for c in classes:
            was, now = float(before[c, feature]), float(after[c, feature])
            if abs(was) < SHARE / 5 and abs(now) >= SHARE:
                found.append(
                    {
                        "feature": feature,
                        "new": int(matched.partner[feature]),
                        "class": names[c],
                        "before": was,
                        "after": now,
                        "note": verdict.note,
                    }
                )
    return found


def _called(
    verdicts: Mapping[tuple[int, str | None], Verdict], feature: int | None, name: str
) -> str | None:
    """What a person called a feature of a class, None for nothing."""
    if feature is None:
        return None
    verdict = verdicts.get((feature, name)) or verdicts.get((feature, None))
    return None if verdict is None else verdict.kind
