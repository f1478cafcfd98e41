"""Compare: all that changed between two sides, as one document."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.diff.alignment import Alignment
from penult.diff.evidence import evidence, shares_of
from penult.diff.exports import exports
from penult.diff.flips import SideReading, flips
from penult.diff.shared import Shared
from penult.diff.side import Side
from penult.diff.suspects import suspects
from penult.edit.verdicts import latest
from penult.features.groups import FEWEST_RANKED, Groups
from penult.heads.comparison import Comparison, PairedCounts
from penult.intervals import Z95_ONE_SIDED, holm, score_interval
from penult.network.link import divergences
from penult.progress import Progress
from penult.runs.groups import evaluated_part, groups_of
from penult.text import called, number_of, percent

FORMAT = "penult-diff/1"
SURE = 0.05  # of a p value, corrected for the number of looks
BINS = 15  # of confidence, for the calibration error


def compare_sides(
    old: Side, new: Side, progress: Callable[[str], Progress] | None = None
) -> dict[str, Any]:
    """What changed from one side to the other, on the samples that both were judged on.

    Args:
        old: before.
        new: now.
        progress: called with the name of a phase; gives what hears of (samples done, in all).

    Returns:
        The document `penult-diff/1`: a verdict in a sentence; accuracy overall, by class and by
        group with paired 95 % intervals and p values corrected for the number of looks (Holm);
        negative and positive flips with the features that moved them; the classes whose evidence
        changed; suspects that are new or gone; calibration, agreement; how features were matched,
        and the sizes of both heads.

    Raises:
        InputError: no sample or class in common; multi-label data.
    """
    return TwoSides.of(old, new, progress).document


@dataclass(frozen=True, eq=False)
class TwoSides:
    """Two sides compared, with what the document was made from.

    Attributes:
        old, new: the sides.
        shared: their samples.
        matched: which feature is which.
        before, after: what the sides read.
        document: see `compare_sides`.
    """

    old: Side
    new: Side
    shared: Shared
    matched: Alignment
    before: SideReading
    after: SideReading
    document: dict[str, Any]

    @classmethod
    def of(
        cls, old: Side, new: Side, progress: Callable[[str], Progress] | None = None
    ) -> TwoSides:
        """Compare two sides, see `compare_sides`."""
        shared = Shared.of(old, new, progress("samples by content") if progress else None)
        heard = progress("features") if progress else lambda done, total: None
        matched = Alignment.of(old, new, shared)
        names = shared.class_names
        before = SideReading.of(old, shared.old_rows, shared.old_places, len(names))
        after = SideReading.of(new, shared.new_rows, shared.new_places, len(names))
        compared = Comparison(shared.labels, shared.old, shared.new, len(names))
        shares = shares_of(before, shared), shares_of(after, shared)
        said = shared.under_new_names(latest(old.run)), latest(new.run)
        heard(1, 1)
        heard = progress("probabilities") if progress else lambda done, total: None
        found: dict[str, Any] = {
            "format": FORMAT,
            "old": _described(old),
            "new": _described(new),
            "samples": shared.document(old, new),
            "overall": _told(compared.overall),
            "classes": _classes(compared, names),
            "groups": _groups(compared, _groups_of(old, new, shared)),
            "flips": flips(before, after, shared, matched),
            "evidence": evidence(shares, shared, matched, said),
            "suspects": suspects((old, new), matched, said, shared.rewritten),
            "probabilities": _probabilities(old, new, shared, heard),
            "exports": exports(old, new),
            "matched": matched.document(),
        }
        found = {"verdict": " ".join(sentences(found)), **found}
        return cls(old, new, shared, matched, before, after, found)


def sentences(found: Mapping[str, Any]) -> list[str]:
    """The comparison in a few sentences, the verdict first."""
    overall, flipped = found["overall"], found["flips"]
    n = overall["n_samples"]
    said = []
    if not flipped["n_changed"]:
        which = "the only sample" if n == 1 else f"all {n:,} samples"
        said.append(f"Nothing changed: both give the same class to {which}.")
    else:
        said.append(_accuracy_said(overall))
        for sign, word in ((1, "worse"), (-1, "better")):
            rows = [row for row in found["classes"] if row["sure"] and sign * row["loss"] > 0]
            if rows:
                named = _first([row["class"] for row in rows])
                said.append(f"With 95 % confidence {word}: {named}.")
        broken, mended = flipped["negative"]["n_samples"], flipped["positive"]["n_samples"]
        said.append(
            f"{number_of(broken, 'samples')} that {'was' if broken == 1 else 'were'} right "
            f"{'is' if broken == 1 else 'are'} wrong now, {mended:,} that "
            f"{'was' if mended == 1 else 'were'} wrong {'is' if mended == 1 else 'are'} right."
        )
    if found["evidence"]["returned"]:
        rows = found["evidence"]["returned"]
        named = _first([f"{row['feature']} of {called(row['class'])}" for row in rows])
        said.append(f"Features judged shortcuts are back: {named}.")
    if found["suspects"]["new"]:
        rows = found["suspects"]["new"]
        named = _first([f"{row['new']} of {_whose(row['class'])}" for row in rows])
        said.append(f"Features are suspected of a shortcut that were not before: {named}.")
    return said


def _accuracy_said(overall: Mapping[str, Any]) -> str:
    low, high = overall["interval"]
    points = f"{percent(overall['before'])} → {percent(overall['after'])} % right"
    ends = f"a change of {-100 * high:+z.2f} to {-100 * low:+z.2f} points with 95 % confidence"
    if low > 0:
        return f"Worse: {points}, {ends}."
    if high < 0:
        return f"Better: {points}, {ends}."
    return f"The accuracy may be the same: {points}, {ends}."


def _first(names: Sequence[str], n: int = 3) -> str:
    more = f" and {len(names) - n} more" if len(names) > n else ""
    return f"{', '.join(called(name, 80) for name in names[:n])}{more}"


def _whose(name: str | None) -> str:
    return "several classes" if name is None else called(name)


def _described(side: Side) -> dict[str, Any]:
    head = side.head
    used = (head.weight != 0).any(0)
    return {
        "name": side.name,
        "run": str(side.run.folder),
        "n_classes": head.n_classes,
        "n_features": head.n_features,
        "n_features_used": int(used.sum()),
        "nnz": int((head.weight != 0).sum()),
    }


def _classes(compared: Comparison, names: Sequence[str]) -> list[dict[str, Any]]:
    counted = [
        (name, counts)
        for name, counts in zip(names, compared.by_class(), strict=True)
        if counts.n_samples
    ]
    return _tested([{"class": name} for name, _ in counted], [counts for _, counts in counted])


def _groups_of(old: Side, new: Side, shared: Shared) -> Groups:
    """Groups of the shared samples: by attribute those of the new side, else of the old one."""
    attributes = {}
    for side, rows in ((old, shared.old_rows), (new, shared.new_rows)):
        found = groups_of(side.run, evaluated_part(side.run))
        for name, one in ({} if found is None else found.attributes).items():
            attributes[name] = type(one)(name, one.values, one.codes[rows])
    return Groups(attributes, shared.n_samples)


def _groups(compared: Comparison, groups: Groups) -> dict[str, list[dict[str, Any]]]:
    """By attribute, accuracy of the samples with each value."""
    found = {}
    for name, attribute in groups.attributes.items():
        rows, counted = [], []
        for value, text in enumerate(attribute.values):
            chosen = attribute.codes == value
            if not bool(chosen.any()):
                continue
            counts = PairedCounts.of(
                compared.labels[chosen], compared.before[chosen], compared.after[chosen]
            )
            rows.append({"value": text, "ranked": counts.n_samples >= FEWEST_RANKED})
            counted.append(counts)
        found[name] = _tested(rows, counted)
    return found


def _told(counts: PairedCounts) -> dict[str, Any]:
    """Counts of two sides, with intervals that hold for classes of few samples, too."""
    ends = counts.lost, counts.won, counts.n_samples
    return {
        **counts.document(),
        "interval": list(score_interval(*ends)),
        "at_most": score_interval(*ends, Z95_ONE_SIDED)[1],
    }


def _tested(rows: list[dict[str, Any]], counted: list[PairedCounts]) -> list[dict[str, Any]]:
    """Rows with their counts, p values corrected for all of them, the largest losses first."""
    adjusted = holm([counts.p for counts in counted])
    found = [
        {**row, **_told(counts), "p_adjusted": p, "sure": p <= SURE}
        for row, counts, p in zip(rows, counted, adjusted, strict=True)
    ]
    return sorted(found, key=lambda row: (not row["sure"], -row["loss"]))


def _probabilities(old: Side, new: Side, shared: Shared, heard: Progress) -> dict[str, Any]:
    """Calibration of both sides, and how far their probabilities are apart."""
    n = shared.n_samples
    sides = (
        _Calibration(shared.old_places, len(shared.class_names)),
        _Calibration(shared.new_places, len(shared.class_names)),
    )
    apart = 0.0
    steps = zip(old.logits(shared.old_rows), new.logits(shared.new_rows), strict=True)
    for (step, first), (_, second) in steps:
        labels = shared.labels[step]
        for side, logits in zip(sides, (first, second), strict=True):
            side.add(logits, labels)
        if shared.same_classes:
            order = shared.old_places.argsort()
            apart += float(divergences(first[:, order], second, "softmax").sum())
        heard(min(n, step.stop), n)
    told = shared.same_classes and math.isfinite(apart)
    return {
        "old": sides[0].document(),
        "new": sides[1].document(),
        "kl": apart / n if told else None,
    }


class _Calibration:
    """How far a side's confidence is from how often it is right."""

    def __init__(self, places: Tensor, n_classes: int) -> None:
        self._places = places
        self._own = torch.full((n_classes,), -1, dtype=torch.int64)
        self._own[places] = torch.arange(len(places))
        self._n = torch.zeros(BINS, dtype=torch.float64)
        self._right = torch.zeros(BINS, dtype=torch.float64)
        self._confidence = torch.zeros(BINS, dtype=torch.float64)
        self._nll = 0.0

    def add(self, logits: Tensor, labels: Tensor) -> None:
        """Some more samples: logits (n, n_classes of the side), labels (n,)."""
        log_p = logits.double().log_softmax(1)
        top, classes = log_p.max(1)
        confidence = top.exp()
        right = (self._places[classes] == labels).double()
        bins = (confidence.nan_to_num() * BINS).long().clamp(0, BINS - 1)
        for total, values in (
            (self._n, torch.ones_like(right)),
            (self._right, right),
            (self._confidence, confidence),
        ):
            total.index_add_(0, bins, values)
        self._nll -= float(log_p.gather(1, self._own[labels][:, None]).sum())

    def document(self) -> dict[str, float | None]:
        """Expected calibration error (Naeini et al. 2015), mean confidence, and mean log loss.

        All None where a logit is too large for its number, so that it stands for no probability.
        """
        n = float(self._n.sum())
        if not math.isfinite(self._nll):
            return dict.fromkeys(("calibration_error", "confidence", "log_loss"))
        return {
            "calibration_error": float((self._right - self._confidence).abs().sum()) / n,
            "confidence": float(self._confidence.sum()) / n,
            "log_loss": self._nll / n,
        }
