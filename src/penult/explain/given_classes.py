"""GivenClasses: the yes-or-no decisions on a sample of multi-label data, and one by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.head import Head, two_classes

MOST_EXPLAINED = 5  # classes of a sample, where none was named
CLASSES_LISTED = 5


@dataclass(frozen=True, eq=False)
class GivenClasses:
    """All decisions on a sample whose classes are each decided by itself.

    Attributes:
        of: the class whose decision is explained.
        class_names: in the order of the logits.
        labels: classes that the data says the sample has; None where it does not say.
        logits, dense_logits: (n_classes,) of the explained head and of the network's own.
    """

    of: int
    class_names: Sequence[str]
    labels: tuple[int, ...] | None
    logits: Tensor = field(repr=False)
    dense_logits: Tensor = field(repr=False)

    def names(self, classes: Sequence[int]) -> str:
        """Classes as people read them."""
        return ", ".join(self.class_names[c] for c in classes) or "none of the classes"

    @property
    def given(self) -> list[int]:
        """Classes that the explained head gives, the surest first."""
        return _above(self.logits)

    @property
    def dense_given(self) -> list[int]:
        """Classes that the network gives, the surest first."""
        return _above(self.dense_logits)

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        likely = self.logits.double().sigmoid()
        top = self.logits.topk(min(CLASSES_LISTED, len(self.class_names))).indices.tolist()
        own = None if self.labels is None else [self.class_names[c] for c in self.labels]
        return {
            "labels": own,
            "given": [self.class_names[c] for c in self.given],
            "dense_given": [self.class_names[c] for c in self.dense_given],
            "classes": [
                {
                    "class": self.class_names[c],
                    "logit": float(self.logits[c]),
                    "probability": float(likely[c]),
                }
                for c in top
            ],
        }


def to_explain(logits: Tensor, labels: Sequence[int] | None) -> list[int]:
    """Which classes of a sample to explain: those given and those it has, largest logit first.

    The class nearest to being given where there is none.

    Args:
        logits: (n_classes,) of the explained head.
        labels: classes that the data says the sample has.
    """
    order = logits.argsort(descending=True, stable=True).tolist()
    own = set(labels or ())
    found = [c for c in order if float(logits[c]) > 0 or c in own]
    return (found or order[:1])[:MOST_EXPLAINED]


def one_class(head: Head | SparseHead, c: int) -> Head | SparseHead:
    """A head of two classes that decides one class by itself: without it (0) and with it (1).

    The first has the logit 0, the second that of the class: the softmax of both is its sigmoid.
    """
    if not isinstance(head, SparseHead):
        return Head("", *two_classes(head.weight[c : c + 1], head.bias[c : c + 1]))
    start, stop = int(head.indptr[c]), int(head.indptr[c + 1])
    kept = Subspaces(torch.tensor([0, 0, stop - start]), head.indices[start:stop], head.n_features)
    bias = torch.cat([head.bias.new_zeros(1), head.bias[c : c + 1]])
    return SparseHead(kept, head.values[start:stop], bias)


def _above(logits: Tensor) -> list[int]:
    order = logits.argsort(descending=True, stable=True).tolist()
    return [c for c in order if float(logits[c]) > 0]
