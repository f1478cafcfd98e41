"""Refit: the best weights on fixed subspaces, by least squares or by softmax distillation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.refit.distillation import (
    MEMORY_LIMIT,
    Blocks,
    Distillation,
    Support,
    check_dense_head,
)
from penult.heads.refit.hessian import Point, preconditioner
from penult.heads.refit.lbfgs import minimise
from penult.heads.select.greedy import check_weight, standardised
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces

# Residual at which a fit stops where none is asked for: a hundredth of the statistical error of one
# class's mean, which is 1 over the root of its samples; this at least.
LEAST_TOLERANCE, STATISTICAL = 2e-4, 0.01
# Times the squared standardised weights, per class: what fixes them where nothing else does.
RIDGE = 1e-7
# Least squares adds this part of a feature's variance, so that duplicates share their weight.
LEAST_SQUARES_RIDGE = 1e-9
# Numbers in the largest array of one group of classes.
GROUP = 2**22
# After so many passes the curvature is taken again, where the fit then stands; later more rarely.
FIRST_PASSES = 12
# A part of the samples is fitted first where it has this many samples per weight.
SAMPLES_PER_WEIGHT = 10


@dataclass(frozen=True, eq=False)
class RefitResult:
    """A refitted head and how close it is to the optimum.

    Attributes:
        head: the sparse head.
        loss: mean distillation loss in nats, 0 for a head that gives the dense probabilities.
        residual: at the optimum, each kept feature has the same mean over the samples of a class
            whether samples are counted by the head's probability or by the target's. This is the
            root mean square difference of these means, in standard deviations of the feature. A
            class with less than a tenth of an even share of the samples counts as one with a tenth.
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


class Objective:
    """The loss in standardised coordinates: values × deviation, and biases at the mean features.

    In these the curvature of all variables is alike. The ridge makes the optimum unique where
    features are collinear; it is far below what one sample more would change.
    """

    def __init__(self, loss: Distillation, support: Support) -> None:
        self.loss = loss
        self.support = support
        self.std = loss.std[support.indices]
        self.mean = loss.mean[support.indices]
        mass = loss.class_mass.clamp(min=0.1 / loss.n_classes)
        self.mass = torch.cat([mass[support.classes], mass])
        self.ridge = RIDGE / loss.n_classes
        self.n_passes = 0

    @cached_property
    def _matched(self) -> tuple[Tensor, Tensor] | None:
        return None if self.loss.keeps_targets else self.loss.matched(self.support)

    def pack(self, values: Tensor, bias: Tensor) -> Tensor:
        """Coordinates (nnz + n_classes,) of values and bias."""
        shift = torch.zeros_like(bias, dtype=torch.float64)
        shift.index_add_(0, self.support.classes, values.double() * self.mean)
        scaled = values.double() * self.std
        scaled[self.loss.constant[self.support.indices]] = 0
        return torch.cat([scaled, bias.double() + shift])

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and bias of coordinates."""
        n = len(self.support.indices)
        values = x[:n] / self.std
        shift = torch.zeros_like(x[n:])
        shift.index_add_(0, self.support.classes, values * self.mean)
        return values, x[n:] - shift

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        """Loss, with the ridge, and its gradient at x."""
        values, bias = self.unpack(x)
        loss, by_value, by_bias = self.loss.evaluate(self.support, values, bias, self._matched)
        self.n_passes += 1
        by_value = (by_value - self.mean * by_bias[self.support.classes]) / self.std
        by_value[self.loss.constant[self.support.indices]] = 0
        ridge = self.ridge * x
        return loss + float(x @ ridge) / 2, torch.cat([by_value, by_bias]) + ridge

    def residual(self, gradient: Tensor) -> float:
        """How far a gradient is from 0, as `RefitResult` states it."""
        return float((gradient / self.mass).square().mean().sqrt()) / self.loss.temperature


def refit_least_squares(
    subspaces: Subspaces, moments: Moments, weight: Tensor, bias: Tensor
) -> SparseHead:
    """Weights on fixed subspaces that come nearest to the dense logits, from moments alone.

    Softmax ignores what is common to all classes, so the target of a class is its dense logit less
    the mean over classes. Constant features get the weight 0; their share is in the bias.

    Args:
        subspaces: which features each class keeps.
        moments: of the features.
        weight: (n_classes, n_features) of the dense head.
        bias: (n_classes,) of the dense head.

    Raises:
        InputError: sizes that do not fit, NaN, fewer than two samples.
    """
    check_dense_head(weight, bias)
    check_weight(weight, moments)
    check_subspaces(subspaces, weight)
    covariance, std, constant = standardised(moments)
    device = covariance.device
    dense, offset = weight.to(device, torch.float64), bias.to(device, torch.float64)
    dense, offset = dense - dense.mean(0), offset - offset.mean()
    products = (dense * std) @ covariance
    sizes = subspaces.indptr.diff().to(device)
    slots = torch.arange(int(sizes.max()), device=device)
    inside = slots < sizes[:, None]
    features = torch.zeros(inside.shape, dtype=torch.int64, device=device)
    features[inside] = subspaces.indices.to(device)
    solved = torch.zeros(inside.shape, dtype=torch.float64, device=device)
    group = max(1, GROUP // max(1, len(slots) ** 2))
    for c in range(0, len(dense), group):
        part = slice(c, c + group)
        own, kept = features[part], inside[part]
        block = covariance[own[:, :, None], own[:, None, :]]
        block = block * kept[:, :, None] * kept[:, None, :]
        free = ~kept | constant[own]
        block.diagonal(dim1=1, dim2=2).add_(free.double() + LEAST_SQUARES_RIDGE)
        wanted = products[part].gather(1, own) * kept
        factor = torch.linalg.cholesky(block)
        solved[part] = torch.cholesky_solve(wanted[:, :, None], factor)[:, :, 0]
    values = solved / torch.where(constant, 1.0, std)[features] * inside
    mean = moments.mean()
    offset = offset + dense @ mean - (values * mean[features]).sum(1)
    return SparseHead(subspaces, values[inside].float().cpu(), offset.float().cpu())


def check_subspaces(subspaces: Subspaces, weight: Tensor) -> None:
    """Refuse subspaces of other sizes than the dense weight (n_classes, n_features)."""
    if (subspaces.n_classes, subspaces.n_features) != tuple(weight.shape):
        raise InputError(
            f"the subspaces have (n_classes, n_features) = ({subspaces.n_classes}, "
            f"{subspaces.n_features}) and the dense head has {tuple(weight.shape)}"
        )


def refit_softmax(
    subspaces: Subspaces,
    blocks: Blocks,
    weight: Tensor,
    bias: Tensor,
    *,
    start: SparseHead | None = None,
    labels: bool = False,
    temperature: float = 1.0,
    tolerance: float | None = None,
    memory_limit: int = MEMORY_LIMIT,
) -> RefitResult:
    """Weights on fixed subspaces whose softmax is nearest to the dense head's over the samples.

    For many supports of the same samples make one `Distillation` and call `fit` for each.

    Args:
        subspaces: which features each class keeps.
        blocks: iterable several times; gives features (n, n_features) and labels (n,) int64.
        weight: (n_classes, n_features) of the dense head.
        bias: (n_classes,) of the dense head.
        start: a head to start from; its features may be others.
        labels: fit the labels instead of the dense head's probabilities.
        temperature: softens the probabilities of both heads.
        tolerance: root mean square residual at which to stop, see `RefitResult`; where None, a
            hundredth of 1 / sqrt(n_samples / n_classes), and 2e-4 at least.
        memory_limit: bytes that features and targets may take to stay in memory.

    Raises:
        InputError: sizes that do not fit, NaN, no samples, a temperature or tolerance not above 0.
    """
    loss = Distillation(
        blocks, weight, bias, temperature=temperature, labels=labels, memory_limit=memory_limit
    )
    return fit(loss, subspaces, start=start, tolerance=tolerance)


def fit(
    loss: Distillation,
    subspaces: Subspaces,
    *,
    start: SparseHead | None = None,
    tolerance: float | None = None,
    max_passes: int = 500,
) -> RefitResult:
    """Minimise a distillation loss on fixed subspaces, see `refit_softmax`.

    Convex: preconditioned limited-memory BFGS, all samples in every step; where they are many, a
    sixteenth of them first.
    """
    check_subspaces(subspaces, loss.weight)
    if tolerance is None:
        error = (loss.n_classes / loss.n_samples) ** 0.5
        tolerance = max(LEAST_TOLERANCE, STATISTICAL * error)
    if not tolerance > 0:
        raise InputError(f"the tolerance must be above 0, found {tolerance}")
    support = Support(subspaces, loss.weight.device)
    dense = loss.weight if start is None else start.dense_weight().detach().to(loss.weight.device)
    bias = loss.bias if start is None else start.bias.detach().to(loss.weight.device)
    point = Point(support, dense[support.classes, support.indices].double(), bias.double())
    n_weights = subspaces.nnz + subspaces.n_classes
    if loss.n_samples >= 8 * max(SAMPLES_PER_WEIGHT * n_weights, 1000):
        point, _ = _solve(loss.sample, point, tolerance, max_passes)
    point, result = _solve(loss, point, tolerance, max_passes)
    head = SparseHead(subspaces, point.values.float().cpu(), point.bias.float().cpu())
    return RefitResult(head, *result, tolerance)


def _solve(
    loss: Distillation, point: Point, tolerance: float, max_passes: int
) -> tuple[Point, tuple[float, float, int]]:
    """Minimise from a point; the optimum, and the loss, the residual and the passes it took."""
    objective = Objective(loss, point.support)

    def done(gradient: Tensor) -> bool:
        return objective.residual(gradient) <= tolerance

    passes = FIRST_PASSES
    while True:
        x = objective.pack(point.values, point.bias)
        point = Point(point.support, *objective.unpack(x))
        inverse = preconditioner(loss, point, objective.ridge)
        passes = min(passes, max_passes - objective.n_passes)
        value, x, gradient = minimise(objective, x, inverse, done, passes)
        passes *= 3
        point = Point(point.support, *objective.unpack(x))
        if done(gradient) or objective.n_passes >= max_passes:
            loss_alone = value - objective.ridge * float(x @ x) / 2
            return point, (loss_alone, objective.residual(gradient), objective.n_passes)
