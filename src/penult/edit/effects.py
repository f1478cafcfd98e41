"""Effects: what an edited head does to every sample, before and after, exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.edit.logits import LogitTable
from penult.features.groups import FEWEST_RANKED, Groups
from penult.heads.bounded_head import BoundedHead, bounded
from penult.heads.comparison import Comparison, PairedCounts
from penult.heads.ratings import MOST_LOGITS, Ratings
from penult.measure.groups import accuracies_of, counts_by_group
from penult.network.head import Head

FLIPS_LISTED = 50
RESPONSIBLE = 3


@dataclass(frozen=True, eq=False)
class Effect:
    """A head before and after edits, on the same samples.

    Attributes:
        table: the samples, with the logits of a head: that before, where they are `of` one.
        before, after: the heads.
        compared: classes of all samples by both.
        middle: (n_features,) from where features are measured when a flip is put down to them.
    """

    table: LogitTable
    before: BoundedHead
    after: BoundedHead
    compared: Comparison
    middle: Tensor

    @classmethod
    def of(cls, table: LogitTable, after: Head, middle: Tensor | None = None) -> Effect:
        """The effect of putting another head in the place of that of a table."""
        zeros = torch.zeros(after.n_features, dtype=torch.float64)
        sides = (table.head, table.classes), (after, table.classify(after))
        return cls.between(table, *sides, zeros if middle is None else middle)

    @classmethod
    def between(
        cls,
        table: LogitTable,
        before: tuple[Head, Tensor],
        after: tuple[Head, Tensor],
        middle: Tensor,
    ) -> Effect:
        """The effect of one head in the place of another, with the classes that both give.

        Args:
            table: of the samples, by whatever head.
            before, after: head and classes of all samples, as `LogitTable.classes` holds them.
            middle: see `Effect`.
        """
        compared = Comparison(table.labels, before[1], after[1], table.n_classes)
        return cls(table, bounded(before[0]), bounded(after[0]), compared, middle)

    def document(
        self,
        class_names: Sequence[str],
        ids: Sequence[str],
        groups: Groups | None = None,
        training: dict[str, Tensor] | None = None,
    ) -> dict[str, Any]:
        """As JSON holds it: overall, by class, by group, and the samples whose class changes.

        Args:
            class_names: in the order of the logits.
            ids: name of each sample.
            groups: of the samples.
            training: by attribute, how often each group is among the training samples.
        """
        found = {
            "overall": self.compared.overall.document(),
            "classes": [
                {"class": name, **counts.document()}
                for name, counts in zip(class_names, self.compared.by_class(), strict=True)
                if counts.n_samples
            ],
            "groups": {},
            "flips": self.flips(class_names, ids),
        }
        if self.after.multi_label and self.table.logits.numel() <= MOST_LOGITS:
            ratings = [
                Ratings.of(self.table.labels, self.table.logits_by(head))
                for head in (self.before, self.after)
            ]
            found = with_ratings(found, *ratings)
        if groups is not None:
            found["groups"] = {
                name: self.by_group(groups, name, class_names, (training or {}).get(name))
                for name in groups.attributes
            }
        return found

    def by_group(
        self, groups: Groups, name: str, class_names: Sequence[str], training: Tensor | None = None
    ) -> dict[str, Any]:
        """Every group of an attribute before and after, worst before first."""
        attribute = groups.attribute(name)
        counted = counts_by_group(self.compared, attribute)
        rows = []
        for group, counts in counted.items():
            c, value = attribute.named(group, class_names)
            ranked = counts.n_samples >= FEWEST_RANKED
            rows.append({"class": c, "value": value, "ranked": ranked, **counts.document()})
        rows.sort(key=lambda row: (not row["ranked"], row["before"]))
        means = {}
        for side in ("before", "after"):
            right = {g: (_right(counts, side), counts.n_samples) for g, counts in counted.items()}
            found = accuracies_of(right, attribute, class_names, training)
            kept = ("worst", "mean", "mean_of_groups", "mean_by_training")
            means[side] = {key: found[key] for key in kept}
        return {**means, "groups": rows}

    def flips(self, class_names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        """The samples whose class changes, with the features that change it most.

        Of multi-label data the decisions that change, one for each class of a sample, from the
        name of the class to `not` and its name, or the other way round.
        """
        if self.after.multi_label:
            return self._flipped_decisions(class_names, ids)
        compared = self.compared
        rows = compared.changed()
        labels, before, after = (
            x[rows] for x in (compared.labels, compared.before, compared.after)
        )
        kinds = {
            "right_to_wrong": before == labels,
            "wrong_to_right": after == labels,
            "wrong_to_wrong": (before != labels) & (after != labels),
        }
        found: dict[str, Any] = {"commonest": self._commonest(class_names)}
        for kind, chosen in kinds.items():
            listed = rows[chosen][:FLIPS_LISTED]
            found[kind] = {
                "n_samples": int(chosen.sum()),
                "samples": self._samples(listed, class_names, ids),
            }
        return found

    def _flipped_decisions(self, class_names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        compared = self.compared
        rows, classes = (compared.before != compared.after).nonzero().unbind(1)
        gained = compared.after[rows, classes]
        right = gained == compared.labels[rows, classes]
        counts = sorted(
            (
                (-n, c, yes)
                for yes in (True, False)
                for c, n in enumerate(torch.bincount(classes[gained == yes]).tolist())
                if n
            ),
        )
        found: dict[str, Any] = {
            "commonest": [
                {"before": said(class_names[c], not yes), "after": said(class_names[c], yes)}
                | {"n_samples": -n}
                for n, c, yes in counts[:20]
            ]
        }
        for kind, chosen in (("right_to_wrong", ~right), ("wrong_to_right", right)):
            listed = chosen.nonzero()[:FLIPS_LISTED, 0]
            named = self._decisions(rows[listed], classes[listed], class_names, ids)
            found[kind] = {"n_samples": int(chosen.sum()), "samples": named}
        return found | {"wrong_to_wrong": {"n_samples": 0, "samples": []}}

    def _decisions(
        self, rows: Tensor, classes: Tensor, class_names: Sequence[str], ids: Sequence[str]
    ) -> list[dict[str, Any]]:
        """Changed decisions on classes (n,) of samples (n,), in rising order of the samples."""
        there, place = torch.unique(rows, return_inverse=True)
        z = self.table.rows(there).double()[place]
        parts = self._moved(z, classes)
        found = []
        for i, (row, c) in enumerate(zip(rows.tolist(), classes.tolist(), strict=True)):
            name, yes = class_names[c], bool(self.compared.after[row, c])
            found.append(
                {
                    "row": row,
                    "id": ids[row],
                    "class": name,
                    "label": said(name, bool(self.compared.labels[row, c])),
                    "before": said(name, not yes),
                    "after": said(name, yes),
                    "features": _responsible(parts[i], z[i]),
                }
            )
        return found

    def _commonest(self, class_names: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {"before": class_names[b], "after": class_names[a], "n_samples": n}
            for b, a, n in self.compared.flips()[:20]
        ]

    def _samples(
        self, rows: Tensor, class_names: Sequence[str], ids: Sequence[str]
    ) -> list[dict[str, Any]]:
        z = self.table.rows(rows).double()
        parts = self._moved(z, self.compared.after[rows])
        parts -= self._moved(z, self.compared.before[rows])
        found = []
        for i, row in enumerate(rows.tolist()):
            was, becomes = int(self.compared.before[row]), int(self.compared.after[row])
            found.append(
                {
                    "row": row,
                    "id": ids[row],
                    "label": class_names[int(self.compared.labels[row])],
                    "before": class_names[was],
                    "after": class_names[becomes],
                    "features": _responsible(parts[i], z[i]),
                }
            )
        return found

    def _moved(self, z: Tensor, classes: Tensor) -> Tensor:
        """What features change of one logit of each sample, (n_samples, n_features) float64.

        The changes of a sample's features add up to that of its logit. They are measured from
        the point nearest to `middle` at which the logit is what it was: for one feature that is
        where the edit lets it stand, or 0 if its weight was set.

        Args:
            z: (n_samples, n_features) float64.
            classes: (n_samples,) whose logits.
        """
        before, after = self.before, self.after
        weights = after.weight[classes].double() - before.weight[classes].double()
        biases = after.bias[classes].double() - before.bias[classes].double()
        squares = weights.square()
        alike = (biases + weights @ self.middle) / squares.sum(1).clamp_min(1e-300)
        moved = weights * (z - self.middle) + alike[:, None] * squares
        return moved - taken_by_bounds(after, z, classes) + taken_by_bounds(before, z, classes)


def taken_by_bounds(head: BoundedHead, z: Tensor, classes: Tensor) -> Tensor:
    """What bounds take from one logit of each sample, (n_samples, n_features) float64.

    It is shared among a bound's features by what they give to its direction.
    """
    found, scales = torch.zeros_like(z), head.scales[classes].double()
    for p in range(head.n_bounds):
        along = z * head.directions[p].double()
        total = along.sum(1)
        excess = (total - head.bounds[p].double()).clamp_min(0)
        part = torch.where(total.abs() > 0, excess / total, 0.0) * scales[:, p]
        found += part[:, None] * along
    return found


def said(name: str, yes: bool) -> str:
    """A decision on a class by itself: the class, or that it is not."""
    return name if yes else f"not {name}"


def with_ratings(found: dict[str, Any], before: Ratings, after: Ratings) -> dict[str, Any]:
    """An effect's document with how well each class is told from the rest, before and after."""
    rows = []
    for c, row in enumerate(found["classes"]):
        rated = {
            "n_positive": before.n_positive[c],
            "always_no": 1 - before.n_positive[c] / max(1, before.n_samples),
            "balanced": [side.balanced[c] for side in (before, after)],
            "average_precision": [side.average_precision[c] for side in (before, after)],
        }
        rows.append(row | rated)
    sides = (before, after)
    overall = {
        "balanced_accuracy": [side.balanced_accuracy for side in sides],
        "mean_average_precision": [side.mean_average_precision for side in sides],
    }
    return {**found, "overall": {**found["overall"], **overall}, "classes": rows}


def _responsible(parts: Tensor, z: Tensor) -> list[dict[str, Any]]:
    """The features that change a decision most, of (n_features,) changes and values."""
    order = parts.abs().argsort(descending=True)[:RESPONSIBLE].tolist()
    return [
        {"feature": j, "value": float(z[j]), "change": float(parts[j])}
        for j in order
        if float(parts[j]) != 0
    ]


def _right(counts: PairedCounts, side: str) -> int:
    return counts.n_before if side == "before" else counts.n_after
