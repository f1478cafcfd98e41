"""Calls: the classes that the network gives to samples, beside their labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from penult.features.shards import Block
from penult.intervals import accuracy_interval
from penult.network.head import Head
from penult.runs.decisions import Decisions
from penult.runs.labels import label_warnings

FEW = 5  # samples of a class below which its statistics are those of single samples


class Calls:
    """Labels and the network's classes of all samples of one pass.

    Args:
        head: the dense head, for samples whose class was not recorded.
    """

    def __init__(self, head: Head) -> None:
        self.head = head
        self._labels: list[Tensor] = []
        self._predicted: list[Tensor] = []

    def add(self, block: Block) -> None:
        """Some more samples."""
        self._labels.append(block.labels)
        self._predicted.append(block.dense_classes(self.head))

    def __add__(self, other: Calls) -> Calls:
        """Those of the other's samples after these."""
        both = Calls(self.head)
        both._labels = self._labels + other._labels
        both._predicted = self._predicted + other._predicted
        return both

    @property
    def labels(self) -> Tensor:
        """(n_samples,) int64."""
        return torch.cat(self._labels)

    @property
    def predicted(self) -> Tensor:
        """(n_samples,) int64."""
        return torch.cat(self._predicted)

    @property
    def accuracy(self) -> float:
        """Fraction that the network has right."""
        return float((self.labels == self.predicted).double().mean())

    def warnings(self, class_names: Sequence[str]) -> list[str]:
        """What is suspicious about the labels, or the network; mostly nothing."""
        return label_warnings(self.labels, self.predicted, class_names)

    def document(self, class_names: list[str]) -> dict[str, Any]:
        """Accuracy with its interval, that of always giving the commonest class, class by class.

        `n_samples` and `n_right` have a number for each class.
        """
        n_classes = self.head.n_classes
        counts = torch.bincount(self.labels, minlength=n_classes)
        right = torch.bincount(self.labels[self.labels == self.predicted], minlength=n_classes)
        most = int(counts.argmax())
        n = int(counts.sum())
        return {
            "accuracy": self.accuracy,
            "interval": list(accuracy_interval(int(right.sum()), n)),
            "commonest": {"class": class_names[most], "accuracy": int(counts[most]) / n},
            "n_samples": counts.tolist(),
            "n_right": right.tolist(),
        }


def calls_of(head: Head) -> Calls | Decisions:
    """What collects the network's answers, as its logits are meant."""
    return Decisions(head) if head.multi_label else Calls(head)


def few_samples(counts: Tensor) -> str | None:
    """What to say where classes have too few analysed samples; None where all have enough.

    Args:
        counts: (n_classes,) samples of each class; classes without any are left out.
    """
    there = counts[counts > 0]
    n_few, n_one = int((there < FEW).sum()), int((there == 1).sum())
    if not n_few:
        return None
    one = f" ({n_one:,} only one)" if n_one else ""
    return (
        f"{n_few:,} of {len(there):,} classes have fewer than {FEW} analysed samples{one}: what "
        "their features are chosen by is the look of single images, and accuracy on these same "
        "images would mean nothing; analyse more samples of each class"
    )
