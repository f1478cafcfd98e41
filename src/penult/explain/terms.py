"""Terms: what each feature adds to a logit, or to the difference of two; they add up exactly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penult.errors import InputError
from penult.heads.sparse_head import SparseHead
from penult.network.head import Head


@dataclass(frozen=True)
class Term:
    """What one feature adds.

    Attributes:
        feature: its number.
        value: of the feature, on this sample.
        weight: of the class, or the difference of two classes' weights.
        contribution: their product.
    """

    feature: int
    value: float
    weight: float
    contribution: float


@dataclass(frozen=True)
class Terms:
    """A logit, or a difference of two, as a sum over features.

    Attributes:
        of: the class.
        against: the class whose logit is subtracted, or None.
        terms: of all features that the classes read, the largest |contribution| first.
        bias: the rest of the sum.
    """

    of: int
    against: int | None
    terms: tuple[Term, ...]
    bias: float

    @property
    def total(self) -> float:
        """The logit, or the difference of the two."""
        return sum(term.contribution for term in self.terms) + self.bias

    def rest(self, n: int) -> float:
        """What the terms after the first n add."""
        return sum(term.contribution for term in self.terms[n:])


def terms_of(
    head: Head | SparseHead, features: Tensor, of: int, against: int | None = None
) -> Terms:
    """Split a logit, or the difference of two, into what each feature adds.

    Products of float32 numbers are exact in float64, in which they are added: the terms and the
    bias add up to the logit but for the rounding of one float64 sum.

    Args:
        head: dense or sparse.
        features: (n_features,) of one sample.
        of: the class.
        against: another class, whose logit is subtracted.

    Raises:
        InputError: features of another size.
    """
    if features.ndim != 1 or len(features) != head.n_features:
        raise InputError(
            f"expected features of shape ({head.n_features},), found {tuple(features.shape)}"
        )
    weights, bias = _row(head, of)
    read = _read(head, of)
    if against is not None:
        other, other_bias = _row(head, against)
        weights, bias = weights - other, bias - other_bias
        read = read | _read(head, against)
    z = features.detach().cpu().double()
    products = weights * z
    kept = read.nonzero()[:, 0]
    order = kept[products[kept].abs().sort(descending=True, stable=True).indices].tolist()
    found = tuple(Term(j, float(z[j]), float(weights[j]), float(products[j])) for j in order)
    return Terms(of, against, found, bias)


def _row(head: Head | SparseHead, c: int) -> tuple[Tensor, float]:
    """Weights (n_features,) of one class and its bias, float64; the others are not touched."""
    bias = float(head.bias[c].detach())
    if isinstance(head, SparseHead):
        start, stop = int(head.indptr[c]), int(head.indptr[c + 1])
        weights = torch.zeros(head.n_features, dtype=torch.float64)
        kept = head.indices[start:stop].cpu()
        weights[kept] = head.values[start:stop].detach().cpu().double()
        return weights, bias
    return head.weight[c].cpu().double(), bias


def _read(head: Head | SparseHead, c: int) -> Tensor:
    """Which features a class reads, (n_features,) bool."""
    if not isinstance(head, SparseHead):
        return torch.ones(head.n_features, dtype=torch.bool)
    read = torch.zeros(head.n_features, dtype=torch.bool)
    start, stop = int(head.indptr[c]), int(head.indptr[c + 1])
    read[head.indices[start:stop].cpu()] = True
    return read
