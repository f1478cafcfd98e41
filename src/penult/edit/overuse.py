"""Overuse: whether a head gives a feature more weight for a class than samples bear out."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from penult.edit.logits import LogitTable
from penult.features.draw import stratified
from penult.intervals import upper_tail
from penult.progress import Progress

ROWS = 4096
# Numbers in the logits that temperatures are fitted to; more samples than that are left out evenly.
FITTED = 2**23
STEPS = 100
CONVERGED = 0.01  # of what the gradient is by chance
TINY = (
    1e-12  # smaller probabilities are 0: squares of numbers near 0 make products ten times slower
)
SHRUNK = 1e-4  # penalty on what calibration changes, in nats


@dataclass(frozen=True, eq=False)
class Overuse:
    """Score tests of the weights of a head.

    At the weights that suit some samples best, the gradient of their cross-entropy is zero: what a
    class is called too often and too seldom balances out along every feature. The standardised
    gradient of each weight, signed so that positive means "the weight is too large", is normal
    where the samples are like those that the head was trained on. A shortcut breaks the balance on
    both sides: the class is called too often where the feature is high, and missed where it is low.

    So that a head that is too sure, of everything or of some class, is no finding, its logits are
    calibrated first, once by one temperature and once by one for each class. The score ranks by
    the first; a p value must hold for both.

    Attributes:
        score: (n_classes, n_features) float64, standard normal without overuse.
        p: (n_classes, n_features) float64, one-sided.
    """

    score: Tensor
    p: Tensor


@dataclass(frozen=True, eq=False)
class Residuals:
    """Class probabilities less what is true, by both calibrations.

    Attributes:
        by_one, by_class: (n_samples, n_classes) float32.
        inflation: how much wider scores spread because the head itself was fitted to a sample.
    """

    by_one: Tensor
    by_class: Tensor
    inflation: float

    @classmethod
    def of(
        cls, table: LogitTable, n_fitted: int | None, progress: Progress | None = None
    ) -> Residuals:
        """Residuals of a head's logits.

        Args:
            table: logits on samples that the head was not fitted to.
            n_fitted: how many samples it was fitted to; None where these are the samples of the
                table themselves. Its weights are off by what these had by chance.
            progress: called with (samples done, samples in all).
        """
        labels, n = table.labels, table.n_samples
        step = max(1, -(-n * table.n_classes // FITTED))
        # Drawn, since samples that take turns by class would be in step with even ones.
        rows = stratified(labels, 1 / step, 0).nonzero()[:, 0]
        found = []
        for i, by_class in enumerate((False, True)):
            scale, shift = calibration(table.logits[rows], labels[rows], by_class)
            residual = torch.empty(n, table.n_classes, dtype=torch.float32)
            for part in torch.split(torch.arange(n), ROWS):
                first, last = int(part[0]), int(part[-1]) + 1
                logits = centred(table.logits[first:last]) * scale + shift
                p = logits.softmax(1)
                residual[first:last] = torch.where(p < TINY, 0.0, p)
                if progress is not None:
                    progress((i * n + last) // 2, n)
            residual[torch.arange(n), labels] -= 1
            found.append(residual)
        inflation = 1.0 if n_fitted is None else (1 + n / n_fitted) ** 0.5
        return cls(found[0], found[1], inflation)

    def tested(self, x: Tensor, c: int, sign: float) -> tuple[float, float]:
        """Score and p value of one quantity x (n_samples,) in the logit of class c."""
        moved = x.double() - x.double().mean()
        scores = []
        for residual in (self.by_one[:, c].double(), self.by_class[:, c].double()):
            size = float((residual.square() @ moved.square()).sqrt())
            value = sign * float(residual @ moved) / size if size > 0 else 0.0
            scores.append(value / self.inflation)
        return scores[0], float(upper_tail(torch.tensor(min(scores), dtype=torch.float64)))


def overuse(table: LogitTable, residuals: Residuals, progress: Progress | None = None) -> Overuse:
    """Test every weight of a head.

    Args:
        table: the head and the samples.
        residuals: of the table.
        progress: called with (samples done, samples in all).
    """
    weight = table.head.weight.double()
    sign = torch.sign(weight - weight.mean(0))
    mean = sum((z.double().sum(0) for _, z in table.blocks()), torch.zeros(weight.shape[1]))
    mean = (mean / table.n_samples).float()
    sums = [torch.zeros_like(weight) for _ in range(4)]
    for start, z in table.blocks():
        rows = slice(start, start + len(z))
        moved = z - mean
        square = moved.square()
        for i, residual in enumerate((residuals.by_one[rows], residuals.by_class[rows])):
            sums[2 * i] += residual.T @ moved
            sums[2 * i + 1] += residual.square().T @ square
        if progress is not None:
            progress(start + len(z), table.n_samples)
    scores = []
    for gradient, variance in (sums[:2], sums[2:]):
        size = variance.sqrt() * residuals.inflation
        scores.append(torch.where(size > 0, sign * gradient / size.clamp_min(1e-300), 0.0))
    worst = torch.minimum(*scores)
    return Overuse(scores[0], upper_tail(worst))


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
