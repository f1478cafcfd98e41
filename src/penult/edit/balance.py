"""Balance: whether a class is called too often or too seldom along a feature, on some samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from penult.edit.logits import LogitTable
from penult.features.draw import stratified
from penult.progress import Progress

# Numbers in the logits that temperatures are fitted to; more samples than that are left out evenly.
FITTED = 2**23
STEPS = 100
CONVERGED = 0.01  # of what the gradient is by chance
TINY = (
    1e-12  # smaller probabilities are 0: squares of numbers near 0 make products ten times slower
)
SHRUNK = 1e-4  # penalty on what calibration changes, in nats


@dataclass(frozen=True, eq=False)
class Direction:
    """A direction in the features that speaks for a class, such as one of its principal ones.

    Attributes:
        of: the class.
        number: from 1.
        vector: (n_features,) what it gives to the class's logit is `vector · z`.
    """

    of: int
    number: int
    vector: Tensor


@dataclass(frozen=True, eq=False)
class Balance:
    """How far calls and labels are from balancing out, along many quantities of some samples.

    Where a weight suits the samples best, the class is called as often too much as too little along
    its feature: the gradient of the cross-entropy is zero.

    Attributes:
        n_samples: of the sums.
        gradient, square: (2, …) float64, sums over the samples of the gradient and of its square,
            calibrated by one temperature and by one for each class.
    """

    n_samples: int
    gradient: Tensor
    square: Tensor


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A head on some samples, calibrated to them.

    So that a head that is too sure, of everything or of some class, is no finding, its logits are
    scaled and shifted until the probabilities suit the labels.

    Attributes:
        table: the logits.
        scales, shifts: of the logits, once by one temperature and once by one for each class.
    """

    table: LogitTable
    scales: tuple[Tensor, Tensor]
    shifts: tuple[Tensor, Tensor]
    _weights: list[Balance] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, table: LogitTable, progress: Progress | None = None) -> Calibrated:
        """Calibrate a head.

        Args:
            table: its logits.
            progress: called with (calibrations done, 2).
        """
        step = max(1, -(-table.n_samples * table.n_classes // FITTED))
        # Drawn, since samples that take turns by class would be in step with even ones.
        rows = stratified(table.labels, 1 / step, 0).nonzero()[:, 0]
        logits, labels, found = table.logits[rows], table.labels[rows], []
        for i, by_class in enumerate((False, True)):
            found.append(calibration(logits, labels, by_class))
            if progress is not None:
                progress(i + 1, 2)
        (scale, shift), (class_scale, class_shift) = found
        return cls(table, (scale, class_scale), (shift, class_shift))

    def blocks(self) -> Iterator[tuple[Tensor, list[Tensor]]]:
        """Features of some samples at a time, less their mean over all samples.

        With them, by both calibrations, class probabilities less what is true, (n, n_classes).
        """
        for start, z in self.table.blocks():
            logits = centred(self.table.logits[start : start + len(z)])
            labels = self.table.labels[start : start + len(z)]
            found = []
            for scale, shift in zip(self.scales, self.shifts, strict=True):
                p = (logits * scale + shift).softmax(1)
                p = torch.where(p < TINY, 0.0, p)
                p[torch.arange(len(z)), labels] -= 1
                found.append(p)
            yield z - self._mean, found

    @cached_property
    def _mean(self) -> Tensor:
        width = self.table.head.n_features
        sums = sum((z.double().sum(0) for _, z in self.table.blocks()), torch.zeros(width))
        return (sums / self.table.n_samples).float()

    def of_weights(self, progress: Progress | None = None) -> Balance:
        """Along every feature for every class, (2, n_classes, n_features); summed once.

        Args:
            progress: called with (samples done, samples in all).
        """
        if self._weights:
            return self._weights[0]
        shape = (2, self.table.n_classes, self.table.head.n_features)
        gradient, square = (torch.zeros(shape, dtype=torch.float64) for _ in range(2))
        done, n = 0, self.table.n_samples
        for z, residuals in self.blocks():
            squares = z.square()
            for i, residual in enumerate(residuals):
                gradient[i] += residual.T @ z
                square[i] += residual.square().T @ squares
            done += len(z)
            if progress is not None:
                progress(done, n)
        self._weights.append(Balance(n, gradient, square))
        return self._weights[0]

    def of_directions(self, directions: Sequence[Direction]) -> Balance:
        """Along directions, each for its class, (2, n)."""
        vectors = torch.stack([one.vector.float() for one in directions], 1)
        of = torch.tensor([one.of for one in directions])
        return self._summed(lambda z, residual: residual[:, of] * (z @ vectors), len(directions))

    def of_factors(self, chosen: Tensor) -> Balance:
        """Along one factor of each feature's weights for all chosen classes, (2, n_features)."""
        weight = (self.table.head.weight - self.table.head.weight.mean(0))[chosen]
        return self._summed(
            lambda z, residual: residual[:, chosen] @ weight * z, self.table.head.n_features
        )

    def _summed(self, terms: Callable[[Tensor, Tensor], Tensor], width: int) -> Balance:
        gradient, square = (torch.zeros(2, width, dtype=torch.float64) for _ in range(2))
        for z, residuals in self.blocks():
            for i, residual in enumerate(residuals):
                parts = terms(z, residual).double()
                gradient[i] += parts.sum(0)
                square[i] += parts.square().sum(0)
        return Balance(self.table.n_samples, gradient, square)


def calibration(logits: Tensor, labels: Tensor, by_class: bool) -> tuple[Tensor, Tensor]:
    """Scale and shift of logits that give the best probabilities.

    Args:
        logits: (n_samples, n_classes).
        labels: (n_samples,) int64.
        by_class: one scale for each class, else one for all.

    Returns:
        (n_classes,) or (1,), and (n_classes,) float32.
    """
    n, n_classes = logits.shape
    values = centred(logits)
    size = n_classes if by_class else 1
    # Shifts, and scales of single classes, move a loss whose curvature is about 1 / n_classes:
    # in these units it is about 1 along each of them.
    unit = math.sqrt(n_classes)
    units = np.repeat([unit if by_class else 1.0, unit], [size, n_classes])
    rows = torch.arange(n)

    from scipy.optimize import minimize  # slow to import

    def loss(point: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        given = torch.from_numpy(point * units)
        log_scale, shift = given[:size], given[size:]
        scaled = values * log_scale.exp().float()
        logs = F.log_softmax(scaled + shift.float(), 1)
        value = -float(logs[rows, labels].double().mean())
        residual = logs.exp_()
        residual[rows, labels] -= 1
        by_scale = (residual * scaled).sum(0, dtype=torch.float64) / n
        by_shift = residual.sum(0, dtype=torch.float64) / n
        spread = log_scale - log_scale.mean()
        value += SHRUNK * float(shift.square().sum() + spread.square().sum())
        first = (by_scale if by_class else by_scale.sum()[None]) + 2 * SHRUNK * spread
        gradient = torch.cat([first, by_shift + 2 * SHRUNK * shift])
        return value, gradient.numpy() * units

    # A small part of what the gradient is by chance, in these units.
    enough = CONVERGED / math.sqrt(n)
    options = {"maxiter": STEPS, "gtol": enough, "ftol": 0.0}
    start = np.zeros(size + n_classes)
    found = torch.from_numpy(
        minimize(loss, start, jac=True, method="L-BFGS-B", options=options).x * units
    )
    return found[:size].exp().float(), found[size:].float()


def centred(logits: Tensor) -> Tensor:
    """Logits less their mean over the classes, which changes no probability."""
    return logits - logits.mean(1, keepdim=True)
