"""Evidence: what each class rests on before and now, and which features came or went."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from penult.diff.alignment import Alignment
from penult.diff.flips import SideReading
from penult.diff.shared import Shared, Verdicts
from penult.edit.verdicts import verdict_on

SHARE = 0.05  # of a class's evidence, from which a change of one feature is told
UNUSED = SHARE / 5  # below which a class does not rest on a feature
FEWEST_MATCHED = 0.1  # of the features, below which they cannot be compared one by one
CLASSES_LISTED = 50
FEATURES_LISTED = 6
STRONGEST = 2  # features of each side, where hardly one changed by so much


def evidence(
    shares: tuple[Tensor, Tensor],
    shared: Shared,
    matched: Alignment,
    verdicts: tuple[Verdicts, Verdicts],
) -> dict[str, Any]:
    """The classes whose evidence changed most, and what a person called a shortcut that is back.

    A class's evidence is what features add to its logit on its own samples, on average, beyond
    what they add on the samples of all classes; each feature has a share of the sum of the absolute
    values. What changed is half the sum of the shares' differences: 0 where the class rests on the
    same features in the same way, 1 where on none of them.

    Args:
        shares: of the old and the new side, see `shares_of`.
        shared: their samples.
        matched: which feature is which.
        verdicts: of the old side's run and of the new one's, see `penult.edit.verdicts.latest`.

    Returns:
        Whether the features can be compared at all ("comparable"); under "classes" those that
        changed, the most first, and under "changed" how much each did; under "returned" features
        that were called shortcuts of a class, that the old side did not use for it and the new
        side does; under "judged" how many verdicts there are on the old side.
    """
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
            said = verdict_on(verdicts[0], row["old"], names[c])
            said = said or verdict_on(verdicts[1], row["new"], names[c])
            row["verdict"] = None if said is None else said.kind
        rows.append({"class": names[c], "changed": float(changed[c]), "features": features})
    returned, judged = _returned(shares[0], aligned, matched, shared, verdicts[0])
    return {
        "comparable": matched.n_matched >= FEWEST_MATCHED * len(matched.partner),
        "mean_changed": float(changed[seen].mean()),
        "n_classes": len(rows),
        "classes": rows[:CLASSES_LISTED],
        "changed": {name: float(changed[c]) for c, name in enumerate(names) if bool(seen[c])},
        "returned": returned,
        "judged": judged,
    }


def shares_of(reading: SideReading, shared: Shared) -> Tensor:
    """Share of each feature in the evidence of each class, (n_classes, n_features), signed."""
    found = reading.totals(shared)
    whole = found.abs().sum(1, keepdim=True)
    return torch.where(whole > 0, found / whole, 0.0)


def _features(
    before: Tensor, after: Tensor, alone: Tensor, matched: Alignment
) -> list[dict[str, Any]]:
    """Features of one class whose share changed by 0.05 or more, the most first.

    Where these are few, as of many features none of which counts much, also the strongest of each
    side.
    """
    old = ((after - before).abs() >= SHARE).nonzero()[:, 0].tolist()
    new = (alone.abs() >= SHARE).nonzero()[:, 0].tolist()
    if len(old) + len(new) < 2 * STRONGEST:
        old += [j for j in _strongest(before) if j not in old]
        new += [j for j in _strongest(alone) if j not in new]
    rows: list[dict[str, Any]] = []
    for j in old:
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
        for j in new
    ]
    rows = [row for row in rows if abs(row["after"] - row["before"]) >= UNUSED]
    rows.sort(key=lambda row: -abs(row["after"] - row["before"]))
    return rows[:FEATURES_LISTED]


def _strongest(shares: Tensor) -> list[int]:
    """The features with the largest shares in one class."""
    return shares.abs().topk(min(STRONGEST, len(shares))).indices.tolist()


def _what(was: float, now: float) -> str:
    if abs(was) < UNUSED:
        return "came"
    if abs(now) < UNUSED:
        return "went"
    if was * now < 0:
        return "turned its sign"
    return "counts more" if abs(now) > abs(was) else "counts less"


def _returned(
    before: Tensor,
    after: Tensor,
    matched: Alignment,
    shared: Shared,
    verdicts: Verdicts,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Shortcuts by verdict that the old side did not use for their class and the new one does.

    Returns:
        Those, and how many verdicts there are, how many of them of shortcuts, and how many of
        these cannot be followed: their feature is like none of the new side, or no sample is of
        their class.
    """
    found, lost = [], 0
    names, seen = shared.class_names, shared.counts > 0
    judged = [verdict for verdict in verdicts.values() if 0 <= verdict.feature < before.shape[1]]
    shortcuts = [verdict for verdict in judged if verdict.kind == "shortcut"]
    for verdict in shortcuts:
        j = verdict.feature
        # What was said of a class comes before what was said of all of them.
        classes = [
            c
            for c, name in enumerate(names)
            if bool(seen[c]) and verdict_on(verdicts, j, name) is verdict
        ]
        unused = [c for c in classes if abs(float(before[c, j])) < UNUSED]
        lost += not classes or (bool(unused) and int(matched.partner[j]) < 0)
        found += [
            {
                "feature": j,
                "new": int(matched.partner[j]),
                "class": names[c],
                "before": float(before[c, j]),
                "after": float(after[c, j]),
                "note": verdict.note,
            }
            for c in unused
            if abs(float(after[c, j])) >= SHARE
        ]
    return found, {"n_verdicts": len(judged), "n_shortcuts": len(shortcuts), "n_lost": lost}
