"""Softmax refit: weights on fixed subspaces whose probabilities are nearest to the dense head's."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

from penult.errors import InputError
from penult.heads.refit.curvature import preconditioner
from penult.heads.refit.lbfgs import minimise
from penult.heads.refit.loss import Objective, Support, usual_pull
from penult.heads.samples import MEMORY_LIMIT, Blocks, Samples
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.link import SOFTMAX

# Residual at which a fit stops where none is asked for, in statistical errors of one class's mean,
# which is 1 over the root of its samples: a tenth where samples are few, since to fit them more
# closely is to fit chance, or where a pass takes long; down to a hundredth elsewhere.
MOST_ERROR, LEAST_ERROR = 0.1, 0.01
LEAST_TOLERANCE = 2e-4
# Parameters per sample of a class, and samples times weights, at which a tenth is reached.
FEW, LONG = 0.1, 1e8
# Passes over all samples, after which a fit gives up.
MOST_PASSES = 500


@dataclass(frozen=True, eq=False)
class RefitResult:
    """A refitted head and how close it is to the optimum.

    Attributes:
        head: the sparse head.
        loss: mean divergence from the targets in nats, 0 for a head that gives the dense
            probabilities; without the pull.
        residual: at the optimum of the divergence, each kept feature has the same mean over the
            samples of a class whether samples are counted by the head's probability or by the
            target's. This is the root mean square difference of these means, in standard deviations
            of the feature, with the pull's part in it. A class with less than a tenth of an even
            share of the samples counts as one with a tenth.
        n_passes: full passes over the samples.
        tolerance: the residual at which the fit was to stop.
    """

    head: SparseHead
    loss: float
    residual: float
    n_passes: int
    tolerance: float

    @property
    def converged(self) -> bool:
        """Whether the residual is within the tolerance."""
        return self.residual <= self.tolerance


def tolerance_of(samples: Samples, n_weights: int) -> float:
    """Residual at which a fit of so many weights stops where none is asked for."""
    n_samples, n_classes = samples.n_samples, samples.n_classes
    part = MOST_ERROR * max(n_weights / n_samples / FEW, n_samples * n_weights / LONG)
    part = min(MOST_ERROR, max(LEAST_ERROR, part))
    return max(LEAST_TOLERANCE, part * math.sqrt(n_classes / n_samples))


def check_subspaces(subspaces: Subspaces, n_classes: int, n_features: int) -> None:
    """Refuse subspaces of other sizes than the dense head."""
    if (subspaces.n_classes, subspaces.n_features) != (n_classes, n_features):
        raise InputError(
            f"the subspaces have (n_classes, n_features) = ({subspaces.n_classes}, "
            f"{subspaces.n_features}) and the dense head has {(n_classes, n_features)}"
        )


def refit_softmax(
    subspaces: Subspaces,
    blocks: Blocks,
    weight: torch.Tensor,
    bias: torch.Tensor,
    *,
    start: SparseHead | None = None,
    labels: bool = False,
    temperature: float = 1.0,
    link: str = SOFTMAX,
    tolerance: float | None = None,
    pull: float | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> RefitResult:
    """Weights on fixed subspaces whose softmax is nearest to the dense head's over the samples.

    For many supports of the same samples make one `Samples` and call `fit` for each.

    Args:
        subspaces: which features each class keeps.
        blocks: iterable several times; gives features (n, n_features) and labels (n,) int64.
        weight: (n_classes, n_features) of the dense head.
        bias: (n_classes,) of the dense head.
        start: a head to start from; its features may be others.
        labels: fit the labels instead of the dense head's probabilities.
        temperature: softens the probabilities of both heads.
        link: what the logits mean; "sigmoid" fits each class by itself, by the logistic loss.
        tolerance: root mean square residual at which to stop, see `RefitResult`; where None, a
            hundredth to a tenth of 1 / sqrt(n_samples / n_classes), and 2e-4 at least.
        pull: see `fit`.
        memory_limit: bytes that features and targets may take to stay in memory.

    Raises:
        InputError: sizes that do not fit, NaN, no samples, a temperature or tolerance not above 0.
    """
    samples = Samples(
        blocks,
        weight,
        bias,
        temperature=temperature,
        labels=labels,
        link=link,
        memory_limit=memory_limit,
    )
    return fit(samples, subspaces, start=start, tolerance=tolerance, pull=pull)


def fit(
    samples: Samples,
    subspaces: Subspaces,
    *,
    start: SparseHead | None = None,
    tolerance: float | None = None,
    pull: float | None = None,
    tick: Callable[[], None] = lambda: None,
) -> RefitResult:
    """Minimise the divergence from the dense head on fixed subspaces, see `refit_softmax`.

    Convex: preconditioned limited-memory BFGS, on some of the samples first where there are many,
    then on all.

    Args:
        samples: what is fitted to.
        subspaces: which features each class keeps.
        start: a head to start from; the dense weights where None.
        tolerance: residual at which to stop.
        pull: strength, 0 or more, of the pull towards the dense head's logits; where None, a tenth
            of the parameters per sample of a class and 1 at most: with many samples next to none;
            0 where labels are fitted.
        tick: called after each pass.
    """
    check_subspaces(subspaces, samples.n_classes, samples.n_features)
    n_classes = samples.n_classes
    if tolerance is None:
        tolerance = tolerance_of(samples, subspaces.nnz + n_classes)
    if not tolerance > 0:
        raise InputError(f"the tolerance must be above 0, found {tolerance}")
    if pull is None:
        pull = usual_pull(samples, subspaces.nnz)
    if not 0 <= pull < float("inf"):
        raise InputError(f"the prior must be a number, 0 or more, found {pull}")
    if start is None:
        start = SparseHead.from_dense(samples.weight, samples.bias, subspaces)
    if samples.few is not samples:
        start = solve(samples.few, subspaces, start, tolerance, pull, tick).head
    return solve(samples, subspaces, start, tolerance, pull, tick)


def solve(
    samples: Samples,
    subspaces: Subspaces,
    start: SparseHead,
    tolerance: float,
    pull: float,
    tick: Callable[[], None],
) -> RefitResult:
    """Minimise over all samples from a head on, which is near already; see `fit`."""
    support = Support(subspaces, samples.weight.device)
    objective = Objective(samples, support, pull)

    def function(x: torch.Tensor) -> tuple[float, torch.Tensor]:
        tick()
        return objective(x)

    def done(gradient: torch.Tensor) -> bool:
        return objective.residual(gradient) <= tolerance

    dense = start.dense_weight().detach().to(support.device)
    values = dense[support.classes, support.indices]
    x = objective.pack(values, start.bias.detach().to(support.device))
    value, x, gradient = minimise(
        function, x, lambda x: preconditioner(objective, *objective.unpack(x)), done, MOST_PASSES
    )
    values, bias = objective.unpack(x)
    head = SparseHead(subspaces, values.float().cpu(), bias.float().cpu(), start.layer)
    loss = value - objective.penalty(x)[0]
    return RefitResult(head, loss, objective.residual(gradient), objective.n_passes, tolerance)
