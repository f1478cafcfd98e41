"""Rows: what each class adds for each feature, as the report explains a head."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penult.heads.sparse_head import SparseHead
from penult.network.head import Head


@dataclass(frozen=True, eq=False)
class HeadRows:
    """A head's weights, class by class; of two classes each one's less the other's.

    The softmax of two logits depends on their difference alone: a feature that one class reads
    speaks as much against the other.

    Attributes:
        weight: (n_classes, n_features) float64.
        read: (n_classes, n_features) bool, which features a class reads.
        bias: (n_classes,) float64.
        multi_label: whether each class is decided by itself, so that weights are not compared.
    """

    weight: Tensor
    read: Tensor
    bias: Tensor
    multi_label: bool = False

    @classmethod
    def of(cls, head: Head | SparseHead, multi_label: bool = False) -> HeadRows:
        """The rows of a head, dense or sparse."""
        if isinstance(head, SparseHead):
            weight = head.dense_weight().detach().double()
            read = torch.zeros_like(weight, dtype=torch.bool)
            read[head.subspaces.classes(), head.indices] = True
        else:
            weight = head.weight.detach().double()
            read = torch.ones_like(weight, dtype=torch.bool)
        bias = head.bias.detach().double()
        if len(weight) == 2 and not multi_label:
            weight, bias, read = weight - weight.flip(0), bias - bias.flip(0), read | read.flip(0)
        return cls(weight, read, bias, multi_label)

    def with_opposites(self) -> HeadRows:
        """Rows of the classes, then of as many that are not to give them, whose logits are 0."""
        weight, read, bias = (
            torch.cat([part, torch.zeros_like(part)])
            for part in (self.weight, self.read, self.bias)
        )
        return HeadRows(weight, read, bias, True)

    @property
    def differences(self) -> bool:
        """Whether each row is the difference of two classes."""
        return len(self.weight) == 2 and not self.multi_label

    def relative(self) -> Tensor:
        """(n_classes, n_features) weights less the mean of all classes': what tells a class apart.

        A weight that all classes have adds the same to all logits, which changes no probability,
        but where each class is decided by itself.
        """
        alone = self.differences or self.multi_label
        return self.weight if alone else self.weight - self.weight.mean(0)

    def between(self, c: int, d: int, change: Tensor) -> list[tuple[int, float]]:
        """What a change (n_features,) of the features adds to logit c − logit d, by feature.

        Returns:
            (feature, what it adds) of all features that c or d reads, the largest first.
        """
        weight = self.weight[c] if self.differences else self.weight[c] - self.weight[d]
        read = (self.read[c] | self.read[d]).nonzero()[:, 0]
        moves = weight[read] * change[read]
        order = moves.abs().sort(descending=True, stable=True).indices
        return list(zip(read[order].tolist(), moves[order].tolist(), strict=True))
