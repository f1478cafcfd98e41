"""Head: the last linear map of a network."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from penult.errors import InputError
from penult.network.linear_maps import wide


class NotFiniteError(InputError):
    """The network's logits are NaN or infinite on the example."""


class HeadNotFound(InputError):  # noqa: N818
    """A network has no such head; the message says what was found and how to name the layer."""


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

    Raises:
        InputError: shapes that do not fit together, an unknown `reduce`.
    """

    name: str
    weight: Tensor = field(repr=False)
    bias: Tensor = field(repr=False)
    reduce: str = "none"
    verified: bool = False

    def __post_init__(self) -> None:
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
    def n_features(self) -> int:
        """Number of features that every class reads."""
        return self.weight.shape[1]

    def fingerprint(self) -> str:
        """Name, and a hash of weight and bias."""
        digest = hashlib.blake2b(digest_size=8)
        for tensor in (self.weight, self.bias):
            digest.update(tensor.contiguous().numpy().tobytes())
        return f"{self.name or 'given'} {digest.hexdigest()}"

    def __call__(self, features: Tensor) -> Tensor:
        """Logits (n_samples, n_classes) of features (n_samples, n_features), at least float32."""
        z = wide(features)
        return F.linear(z, self.weight.to(z), self.bias.to(z))
