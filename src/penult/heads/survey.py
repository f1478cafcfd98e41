"""Survey: what the first reading of samples finds, in parts that add up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class SampleSurvey:
    """Sums over some samples; those of all parts of the samples add up to the whole's.

    Attributes:
        n_samples: number of samples.
        origin: (n_features,) float64, near the mean, so that few digits are lost.
        sums, squares: (n_features,) float64, Σ (z − origin) and Σ (z − origin)².
        mass: (n_classes,) float64, Σ of the target probabilities.
        entropy: Σ of the entropies of the targets, in nats.
    """

    n_samples: int
    origin: Tensor
    sums: Tensor
    squares: Tensor
    mass: Tensor
    entropy: float

    @classmethod
    def of(cls, tiles: Iterable[tuple[Tensor, Tensor, float]]) -> SampleSurvey | None:
        """Of samples tile by tile: features (n_features, n), targets (n_classes, n), entropy.

        None where there is none.
        """
        found: SampleSurvey | None = None
        for features, targets, entropy in tiles:
            z = features.double()
            origin = z.mean(1) if found is None else found.origin
            z -= origin[:, None]
            part = cls(
                z.shape[1],
                origin,
                z.sum(1),
                z.square().sum(1),
                targets.sum(1, dtype=torch.float64),
                entropy,
            )
            found = part if found is None else found + part
        return found

    def __add__(self, other: SampleSurvey) -> SampleSurvey:
        """Of both sets of samples, from this one's origin."""
        sums, squares = other.sums, other.squares
        if other.origin is not self.origin:
            shift = other.origin - self.origin
            squares = squares + 2 * shift * sums + other.n_samples * shift**2
            sums = sums + other.n_samples * shift
        return SampleSurvey(
            self.n_samples + other.n_samples,
            self.origin,
            self.sums + sums,
            self.squares + squares,
            self.mass + other.mass,
            self.entropy + other.entropy,
        )

    @property
    def mean(self) -> Tensor:
        """(n_features,) float64."""
        return self.origin + self.sums / self.n_samples

    @property
    def variance(self) -> Tensor:
        """(n_features,) float64; rounding may leave it a little below 0."""
        return self.squares / self.n_samples - (self.sums / self.n_samples) ** 2
