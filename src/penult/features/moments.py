"""Moments: mergeable one-pass sums, enough to select and fit heads without the samples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from penult.errors import InputError
from penult.storage import read_tensors, write_tensors

FORMAT = "penult-moments/2"
_TENSORS = ("counts", "sums", "products", "low", "high")
# Of multi-label samples, which belong to several classes or to none.
_WHOLE = "whole"


@dataclass(eq=False)
class Moments:
    """Counts, per-class sums and the product sum of features, in float64; merging is addition.

    Attributes:
        counts: (n_classes,) int64, samples per class.
        sums: (n_classes, n_features) float64, Σ z over the samples of each class.
        products: (n_features, n_features) float64, Σ z zᵀ over all samples.
        low, high: (n_features,) float64, least and largest value of each feature; ∞ and −∞ without
            samples, and where only the sums are known.
        whole: (n_features + 1,) float64, Σ z over all samples and their number; empty where each
            sample has one class, so that the classes' sums and counts add up to it.
    """

    counts: Tensor
    sums: Tensor
    products: Tensor
    low: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float32))
    high: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float32))
    whole: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.float32))

    def __post_init__(self) -> None:
        if not len(self.low):
            self.low = self.sums.new_full((self.n_features,), torch.inf)
            self.high = -self.low

    @classmethod
    def zeros(
        cls, n_classes: int, n_features: int, device: torch.device | str | None = None
    ) -> Moments:
        """Moments of no samples at all, on `device`."""
        return cls(
            torch.zeros(n_classes, dtype=torch.int64, device=device),
            torch.zeros(n_classes, n_features, dtype=torch.float64, device=device),
            torch.zeros(n_features, n_features, dtype=torch.float64, device=device),
        )

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, n_classes: int) -> Moments:
        """Moments of features (n_samples, n_features) with their labels in one call."""
        moments = cls.zeros(n_classes, features.shape[1], features.device)
        moments.update(features, labels)
        return moments

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add samples: features (n_samples, n_features), labels (n_samples,) int64.

        Labels can be (n_samples, n_classes) bool, but then for all samples.
        """
        if features.ndim != 2 or features.shape[1] != self.n_features:
            raise InputError(
                f"expected features of shape (n_samples, {self.n_features}), "
                f"found {tuple(features.shape)}"
            )
        z = features.to(self.sums.device, torch.float64)
        labels = labels.to(self.sums.device)
        if labels.ndim == 2:
            self._update_whole(z)
            self.counts += labels.sum(0)
            self.sums.addmm_(labels.double().T, z)
        else:
            self.counts += torch.bincount(labels, minlength=self.n_classes)
            self.sums.index_add_(0, labels, z)
        self.products.addmm_(z.T, z)
        if len(z):
            torch.minimum(self.low, z.amin(0), out=self.low)
            torch.maximum(self.high, z.amax(0), out=self.high)

    def _update_whole(self, z: Tensor) -> None:
        if not len(self.whole):
            self.whole = self.sums.new_zeros(self.n_features + 1)
        self.whole[:-1] += z.sum(0)
        self.whole[-1] += len(z)

    @property
    def total(self) -> Tensor:
        """Σ z over all samples, (n_features,)."""
        return self.whole[:-1] if len(self.whole) else self.sums.sum(0)

    def __add__(self, other: Moments) -> Moments:
        """Moments of both sets of samples together."""
        if other.n_samples and self.n_samples and len(self.whole) != len(other.whole):
            raise InputError("moments of multi-label samples and of others cannot be merged")
        if self.sums.shape != other.sums.shape:
            raise InputError(
                "moments of different sizes cannot be merged: (n_classes, n_features) is "
                f"{tuple(self.sums.shape)} in one and {tuple(other.sums.shape)} in the other"
            )
        return Moments(
            self.counts + other.counts,
            self.sums + other.sums,
            self.products + other.products,
            torch.minimum(self.low, other.low),
            torch.maximum(self.high, other.high),
            self.whole + other.whole
            if len(self.whole) == len(other.whole)
            else max(self.whole, other.whole, key=len),
        )

    def without(self, part: Moments) -> Moments:
        """Counts and sums of all samples but those of a part, which were added before."""
        return Moments(
            self.counts - part.counts,
            self.sums - part.sums,
            self.products - part.products,
            whole=self.whole - part.whole if len(part.whole) else self.whole,
        )

    @property
    def overlapping(self) -> bool:
        """Whether samples may have several classes or none: whether the data are multi-label."""
        return bool(len(self.whole))

    @property
    def n_classes(self) -> int:
        """Number of classes, samples or not."""
        return self.sums.shape[0]

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.sums.shape[1]

    @property
    def n_samples(self) -> int:
        """Number of samples summed so far."""
        return int(self.whole[-1] if len(self.whole) else self.counts.sum())

    def class_means(self) -> Tensor:
        """Mean features per class, (n_classes, n_features); zeros for a class without samples."""
        return self.sums / self.counts.clamp(min=1)[:, None]

    def mean(self) -> Tensor:
        """Mean features over all samples, (n_features,)."""
        return self.total / max(self.n_samples, 1)

    def root_mean_square(self) -> Tensor:
        """Root mean square of each feature over all samples, (n_features,)."""
        return (self.products.diagonal() / max(self.n_samples, 1)).sqrt()

    def covariance(self) -> Tensor:
        """Covariance of the features (divided by n_samples), (n_features, n_features)."""
        mean = self.mean()
        second = self.products / max(self.n_samples, 1)
        return (second + second.T) / 2 - torch.outer(mean, mean)

    def to(self, device: torch.device | str) -> Moments:
        """The same moments on another device."""
        parts = (self.counts, self.sums, self.products, self.low, self.high, self.whole)
        return Moments(*(part.to(device) for part in parts))

    def save(self, path: Path) -> None:
        """Write a moments file (safetensors, format `penult-moments/2`)."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        if len(self.whole):
            tensors[_WHOLE] = self.whole
        write_tensors(path, tensors, {"format": FORMAT})

    @classmethod
    def load(cls, path: Path) -> Moments:
        """Read a moments file."""
        tensors, _ = read_tensors(path, FORMAT, _TENSORS)
        whole = [tensors[_WHOLE]] if _WHOLE in tensors else []
        return cls(*(tensors[name] for name in _TENSORS), *whole)
