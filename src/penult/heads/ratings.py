"""Ratings: how well a head tells the samples of each class from all others, class by class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.features.features import Features
from penult.heads.comparison import Classifier

# Numbers of the logits of one head up to which all are kept, to put the samples in their order.
MOST_LOGITS = 2**28


@dataclass(frozen=True)
class Ratings:
    """One class against the rest, for every class of multi-label data.

    Attributes:
        n_samples: that were judged.
        n_positive: samples of each class.
        n_right: right decisions for each class.
        balanced: mean of the accuracies on a class's samples and on all others; None where there
            are none of the one or the other.
        average_precision: area under the curve of precision over recall, in steps; the part of a
            class's samples at chance. None for a class without samples.
    """

    n_samples: int
    n_positive: tuple[int, ...]
    n_right: tuple[int, ...]
    balanced: tuple[float | None, ...]
    average_precision: tuple[float | None, ...]

    @classmethod
    def of(cls, labels: Tensor, logits: Tensor) -> Ratings:
        """From labels (n_samples, n_classes) bool and the logits of the same samples."""
        # scikit-learn takes a second to import.
        from sklearn.metrics import average_precision_score

        yes, right = logits > 0, (logits > 0) == labels
        n, n_yes = len(labels), labels.sum(0)
        found = (right & labels).sum(0) / n_yes, (right & ~labels).sum(0) / (n - n_yes)
        balanced = ((found[0].double() + found[1].double()) / 2).tolist()
        precision = [
            float(average_precision_score(labels[:, c].numpy(), logits[:, c].numpy()))
            if n_yes[c]
            else None
            for c in range(yes.shape[1])
        ]
        return cls(
            n,
            tuple(n_yes.tolist()),
            tuple(right.sum(0).tolist()),
            tuple(value if value == value else None for value in balanced),
            tuple(precision),
        )

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean over the classes that have samples and others."""
        return _mean(self.balanced)

    @property
    def mean_average_precision(self) -> float | None:
        """Mean over the classes that have samples."""
        return _mean(self.average_precision)

    def document(self) -> dict[str, Any]:
        """As JSON holds it: the means, then by class."""
        return {
            "balanced_accuracy": self.balanced_accuracy,
            "mean_average_precision": self.mean_average_precision,
            "n_positive": list(self.n_positive),
            "balanced": list(self.balanced),
            "average_precision": list(self.average_precision),
        }


class Scores:
    """Labels and logits of several heads, collected part by part; of multi-label data alone."""

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._logits: list[list[Tensor]] = []

    def add(self, heads: Sequence[Classifier], features: Features) -> None:
        """Some more samples, and what each head gives them."""
        if not features.multi_label or features.n_samples * features.n_classes > MOST_LOGITS:
            return
        with torch.no_grad():
            for block in features.blocks():
                self._labels.append(block.labels)
                self._logits.append([head(block.features).float() for head in heads])

    def ratings(self) -> list[Ratings] | None:
        """Of each head, over all that was added; None where nothing was."""
        if not self._labels:
            return None
        labels = torch.cat(self._labels)
        return [Ratings.of(labels, torch.cat(own)) for own in zip(*self._logits, strict=True)]


def rated(heads: Sequence[Classifier], features: Features) -> list[Ratings] | None:
    """Ratings of heads on multi-label features; None for others, and where they are too many."""
    scores = Scores()
    scores.add(heads, features)
    return scores.ratings()


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
