"""Suspects of both sides: which features that look like shortcuts are new, and which are gone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from penult.diff.alignment import Alignment
from penult.diff.shared import Verdicts
from penult.diff.side import Side
from penult.edit.shortcuts import shortcuts_document
from penult.edit.verdicts import verdict_on
from penult.errors import InputError
from penult.runs.groups import evaluated_part

LISTED = 50

Suspects = dict[tuple[str | None, int], float]
"""By class (None for all classes with few samples together) and feature, how far it is overused."""


def suspects(
    sides: tuple[Side, Side],
    matched: Alignment,
    verdicts: tuple[Verdicts, Verdicts],
    rewritten: Mapping[str, str],
) -> dict[str, Any]:
    """Suspects of the new side that the old one had not, and those that are gone.

    They are those that `penult shortcuts` found among the weights of each run's network and kept.
    Of a sparse or an edited head of the same run a suspect is gone where its class does not read
    the feature any more.

    Args:
        sides: the old one and the new one.
        matched: which feature is which.
        verdicts: of each side's run, under the new side's names of classes.
        rewritten: these by the old side's, where they are others.

    Returns:
        Under "new" and "gone" the pairs of a class and a feature, the most overused first; how
        many stayed; None for all three, with a note, where nobody has looked on one of the sides.
    """
    found, notes = [], []
    for side in sides:
        one, note = _of(side)
        found.append(one)
        notes += [note] if note and note not in notes else []
    first, second = found
    if first is None or second is None:
        return {"new": None, "gone": None, "n_stayed": None, "notes": notes}
    first = {(rewritten.get(c, c) if c else c, j): score for (c, j), score in first.items()}
    back = matched.in_old(sides[1].head.n_features).tolist()
    partner = [None if j < 0 else j for j in matched.partner.tolist()]
    known = {(c, back[j]) for c, j in second if back[j] >= 0}

    def row(c: str | None, j: int | None, j_new: int | None, score: float) -> dict[str, Any]:
        said = verdict_on(verdicts[0], j, c) or verdict_on(verdicts[1], j_new, c)
        kind = None if said is None else said.kind
        return {"class": c, "old": j, "new": j_new, "score": score, "verdict": kind}

    came = [
        row(c, None if back[j] < 0 else back[j], j, score)
        for (c, j), score in second.items()
        if (c, back[j]) not in first
    ]
    gone = [row(c, j, partner[j], score) for (c, j), score in first.items() if (c, j) not in known]
    for rows in (came, gone):
        rows.sort(key=lambda row: -row["score"])
    return {
        "new": came[:LISTED],
        "n_new": len(came),
        "gone": gone[:LISTED],
        "n_gone": len(gone),
        "n_stayed": len(first) - len(gone),
        "notes": notes,
    }


def _of(side: Side) -> tuple[Suspects | None, str]:
    """The suspects of a side, and what is to be said of them; None where nobody has looked."""
    try:
        document = shortcuts_document(side.run)
    except InputError as error:
        return None, f"suspects are left out: {error}"
    look = f"penult shortcuts {side.run.folder}"
    if document is None:
        return None, f"nobody has looked for suspects in {side.name} yet: {look}"
    dense = side.run.train().require_head()
    same = document["part"] == evaluated_part(side.run)
    same &= document["n_samples"] == side.features.n_samples
    if not same or document["head"].split()[-1] != dense.fingerprint().split()[-1]:
        return (
            None,
            f"the suspects of {side.run.folder} are of another head or of other samples: {look}",
        )
    found: Suspects = {
        (row["class"], row["feature"]): row["overuse"]["score"]
        for row in document["pairs"]
        if row["overuse"]["suspect"] and row["feature"] is not None
    }
    if document["pooled"] is not None:
        for row in document["pooled"]["features"]:
            if row["overuse"]["suspect"]:
                found[None, row["feature"]] = row["overuse"]["score"]
    note = ""
    if document["n_compared"] is None:
        note = (
            f"without evaluation samples of its own no feature of {side.run.folder} is called a "
            "suspect"
        )
    elif document["n_suspects"] > len(document["pairs"]):
        note = f"only the first {len(document['pairs']):,} pairs of {side.run.folder} are compared"
    if not side.dense:
        read, names = side.head.weight != 0, side.class_names
        found = {
            (c, j): score
            for (c, j), score in found.items()
            if bool(read[:, j].any() if c is None else read[names.index(c), j])
        }
    return found, note
