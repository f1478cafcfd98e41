"""Decisions: what the network decides of each class of multi-label samples, beside the labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from penult.features.shards import Block
from penult.heads.ratings import MOST_LOGITS, Ratings
from penult.intervals import accuracy_interval
from penult.network.head import Head
from penult.text import percent

FEWEST = 30  # samples below which nothing is concluded of how the labels fit the network
BARELY = 0.02  # of balanced accuracy above that of guessing


class Decisions:
    """Labels and the network's decisions of all samples of one pass; see `Calls`.

    Args:
        head: the dense head.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self._labels: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._logits: list[Tensor] = []
        self._n_logits = 0

    def add(self, block: Block) -> None:
        """Some more samples."""
        self._labels.append(block.labels)
        self._predicted.append(block.dense_classes(self.head))
        self._n_logits += block.labels.numel()
        if self._n_logits <= MOST_LOGITS:
            self._logits.append(self.head(block.features).float())

    def __add__(self, other: Decisions) -> Decisions:
        """Those of the other's samples after these."""
        both = Decisions(self.head)
        both._labels = self._labels + other._labels
        both._predicted = self._predicted + other._predicted
        both._n_logits = self._n_logits + other._n_logits
        if both._n_logits <= MOST_LOGITS:
            both._logits = self._logits + other._logits
        return both

    @property
    def accuracy(self) -> float:
        """Fraction of the decisions, one for each sample and class, that the network has right."""
        return float((torch.cat(self._labels) == torch.cat(self._predicted)).double().mean())

    @property
    def ratings(self) -> Ratings | None:
        """One class against the rest; None where there are too many samples to keep the logits."""
        if self._n_logits > MOST_LOGITS:
            return None
        return Ratings.of(torch.cat(self._labels), torch.cat(self._logits))

    def document(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Accuracy with its interval, that of the commonest answer for each class, class by class.

        The interval is made as if all decisions of a sample were right or wrong together.
        `n_samples` and `n_right` have a number for each class.
        """
        labels, right = torch.cat(self._labels), torch.cat(self._predicted)
        right = right == labels
        n, n_classes = labels.shape
        n_yes = labels.sum(0)
        commonest = int(torch.maximum(n_yes, n - n_yes).sum()) / labels.numel()
        ratings = self.ratings
        return {
            "accuracy": self.accuracy,
            "interval": list(accuracy_interval(int(right.sum()) / n_classes, n)),
            "commonest": {"class": None, "accuracy": commonest},
            "n_samples": [n] * n_classes,
            "n_right": right.sum(0).tolist(),
            **({} if ratings is None else ratings.document()),
        }

    def warnings(self, class_names: Sequence[str]) -> list[str]:
        """What is suspicious about the labels, or the network; mostly nothing."""
        ratings = self.ratings
        if ratings is None or ratings.n_samples < FEWEST:
            return []
        found = ratings.balanced_accuracy
        if found is None or found > 0.5 + BARELY:
            return []
        precision = ratings.mean_average_precision or 0.0
        chance = [n / ratings.n_samples for n in ratings.n_positive if n]
        if precision > 1.5 * sum(chance) / max(len(chance), 1):
            return []
        return [
            f"the network tells the classes no better than guessing (balanced accuracy "
            f"{percent(found)} %): probably its weights were not loaded, its images are prepared "
            "in another way (--mean, --std, --size), or the labels' classes are in another order"
        ]
