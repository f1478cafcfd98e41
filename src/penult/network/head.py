"""Head: the last linear map of a network."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.errors import InputError
from penult.network.linear_maps import wide
from penult.network.link import SIGMOID, SOFTMAX, check_link


class NotFiniteError(InputError):
    """The network's logits are NaN or infinite on the example."""


class HeadNotFound(InputError):  # noqa: N818
    """A network has no such head; the message says what was found and how to name the layer.

    Attributes:
        squashed: the layer whose outputs are the logits, and what makes the network's outputs of
            them without changing which class is meant, such as "softmax"; else None.
    """

    def __init__(self, message: str, squashed: tuple[str, str] | None = None) -> None:
        super().__init__(message)
        self.squashed = squashed


@dataclass(frozen=True, eq=False)
class Head:
    """The last linear map of a network: `logits = features @ weight.T + bias`.

    Args:
        name: dotted name of the layer; "" for a head given as arrays.
        weight: (n_classes, n_features) float32, on the CPU, a copy of the layer's.
        bias: (n_classes,), zeros where the layer has none.
        reduce: how the positions of the layer's input become one vector per sample: "none" (there
            is one), "mean", or "position:<i>".
        verified: whether it was checked on an example that this gives the network's logits.
        kept: which of the layer's classes these are; None for all of them.
        n_outputs: how many classes the layer itself has, where only some are kept.
        link: what the logits mean: "softmax", one class per sample, or "sigmoid", each class by
            itself (multi-label).

    Raises:
        InputError: shapes that do not fit together, an unknown `reduce` or `link`.
    """

    name: str
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    reduce: str = "none"
    verified: bool = False
    kept: tuple[int, ...] | None = field(default=None, kw_only=True)
    n_outputs: int | None = field(default=None, kw_only=True)
    link: str = field(default=SOFTMAX, kw_only=True)

    def __post_init__(self) -> None:
        check_link(self.link)
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise InputError(
                "expected a weight of shape (n_classes, n_features) and a bias of shape "
                f"(n_classes,), found {tuple(self.weight.shape)} and {tuple(self.bias.shape)}"
            )
        kind, _, position = self.reduce.partition(":")
        if self.reduce not in ("none", "mean") and not (
            kind == "position" and position.isdecimal()
        ):
            raise InputError(
                f"expected reduce to be none, mean or position:<i>, found {self.reduce!r}"
            )

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.weight.shape[0]

    @property
    def multi_label(self) -> bool:
        """Whether each class is decided by itself."""
        return self.link == SIGMOID

    @property
    def layer_classes(self) -> int:
        """Number of classes of the layer, of which this head may keep some."""
        return self.n_outputs or self.n_classes

    @property
    def n_features(self) -> int:
        """Number of features that every class reads."""
        return self.weight.shape[1]

    def restricted(self, classes: Sequence[int]) -> Head:
        """The head of some classes alone, which are told from each other and from no others.

        Args:
            classes: numbers in [0, n_classes), rising.
        """
        rows = list(classes)
        if self.kept is None and len(rows) == self.n_classes:
            return self
        kept = tuple(rows if self.kept is None else (self.kept[i] for i in rows))
        weight, bias = self.weight[rows].clone(), self.bias[rows].clone()
        return replace(self, weight=weight, bias=bias, kept=kept, n_outputs=self.layer_classes)

    def own(self, logits: Tensor) -> Tensor:
        """The logits (n_samples, n_classes) of the kept classes among those of the layer."""
        if self.kept is None or logits.shape[1] == self.n_classes:
            return logits
        return logits[:, list(self.kept)]

    def is_equal(self, other: Head) -> bool:
        """Whether weight and bias are the same numbers."""
        return torch.equal(self.weight, other.weight) and torch.equal(self.bias, other.bias)

    def fingerprint(self) -> str:
        """Name, and a hash of weight and bias."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in (self.weight, self.bias):
            digest.update(tensor.contiguous().numpy().tobytes())
        link = f" {self.link}" if self.multi_label else ""
        return f"{self.name or 'given'} {digest.hexdigest()}{link}"

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features), at least float32."""
        z = wide(features)
        return F.linear(z, self.weight.to(z), self.bias.to(z))


def two_classes(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (2, n_features) and bias (2,) of one logit: its class is the second.

    The first has the logit 0; the softmax of both is the sigmoid of the one.

    Args:
        weight: (1, n_features).
        bias: (1,).
    """
    return torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])


def head_of(weight: Any, bias: Any = None, link: str = SOFTMAX) -> Head:
    """Head from arrays: weight (n_classes, n_features), bias (n_classes,) or None for zeros.

    One logit, as scikit-learn has it for two classes, becomes two: the first with the logit 0.

    Raises:
        InputError: shapes that do not fit, NaN or infinite values.
    """
    w = torch.as_tensor(weight).detach().to("cpu", torch.float32)
    if w.ndim != 2:
        raise InputError(
            f"expected a weight of shape (n_classes, n_features), found {tuple(w.shape)}"
        )
    b = torch.zeros(len(w)) if bias is None else torch.as_tensor(bias).detach()
    b = b.to("cpu", torch.float32)
    if b.shape != (len(w),):
        raise InputError(f"expected a bias of shape ({len(w)},), found {tuple(b.shape)}")
    if not (bool(w.isfinite().all()) and bool(b.isfinite().all())):
        raise InputError("the head's weight or bias holds NaN or infinite values")
    two = len(w) == 1 and link == SOFTMAX
    return Head("", *(two_classes(w, b) if two else (w, b)), link=link)
