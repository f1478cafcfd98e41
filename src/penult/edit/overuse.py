"""Overuse: whether a head gives a feature more weight for a class than samples bear out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor

from penult.edit.logits import LogitTable

ROWS = 4096
# Numbers in the logits that temperatures are fitted to; more samples than that are left out evenly.
FITTED = 2**23
STEPS = 40
SHRUNK = 1e-4  # penalty on what calibration changes, in nats

Progress = Callable[[int, int], None]


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
    def of(cls, table: LogitTable, n_fitted: int | None) -> Residuals:
        """Residuals of a head's logits.

        Args:
            table: logits on samples that the head was not fitted to.
            n_fitted: how many samples it was fitted to; None where these are the samples of the
                table themselves. Its weights are off by what these had by chance.
        """
        labels, n = table.labels, table.n_samples
        step = max(1, -(-n * table.n_classes // FITTED))
        rows = torch.arange(0, n, step)
        found = []
        for by_class in (False, True):
            scale, shift = calibration(table.logits[rows], labels[rows], by_class)
            residual = torch.empty(n, table.n_classes)
            for part in torch.split(torch.arange(n), ROWS):
                logits = centred(table.logits[part]) * scale + shift
                residual[part] = logits.softmax(1)
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
        return scores[0], max(float(norm.sf(score)) for score in scores)


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
    return Overuse(scores[0], torch.from_numpy(norm.sf(worst.numpy())))


def calibration(logits: Tensor, labels: Tensor, by_class: bool) -> tuple[Tensor, Tensor]:
    """Scale and shift of logits that give the best probabilities.

    Args:
        logits: (n_samples, n_classes).
        labels: (n_samples,) int64.
        by_class: one scale for each class, else one for all.

    Returns:
        (n_classes,) or (1,), and (n_classes,) float32.
    """
    n_classes = logits.shape[1]
    values = centred(logits)
    log_scale = torch.zeros(n_classes if by_class else 1, requires_grad=True)
    shift = torch.zeros(n_classes, requires_grad=True)
    solver = torch.optim.LBFGS(
        [log_scale, shift], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def closure() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(values * log_scale.exp() + shift, labels)
        spread = (log_scale - log_scale.mean()).square().sum()
        loss = loss + SHRUNK * (shift.square().sum() + spread)
        loss.backward()  # type: ignore[no-untyped-call]  # torch's is untyped
        return loss

    with torch.enable_grad():
        solver.step(closure)  # type: ignore[no-untyped-call]
    return log_scale.detach().exp(), shift.detach()


def centred(logits: Tensor) -> Tensor:
    """Logits less their mean over the classes, which changes no probability."""
    return logits - logits.mean(1, keepdim=True)
