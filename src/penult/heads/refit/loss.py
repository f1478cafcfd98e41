"""The loss that a refit minimises: the divergence from the dense head, and a pull towards it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property, partial

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.heads.samples import Samples, Sums
from penult.heads.subspaces import Subspaces
from penult.network.link import SIGMOID

Gradient = Callable[[Tensor], Tensor]
# Times the squared standardised weights, per class: what fixes them where nothing else does.
RIDGE = 1e-7
# Parameters per sample of a class count so much towards the pull, which is 1 at most.
PULL, MOST_PULL = 0.1, 1.0
# Numbers of the second moments of all classes' supports up to which they are kept.
MOST_KEPT = 2**24


def usual_pull(samples: Samples, n_values: int) -> float:
    """How strongly a refit of so many values is drawn to the dense logits where nobody says it.

    Not at all to labels: who fits these means to leave the dense head.
    """
    k = n_values / samples.n_classes
    return 0.0 if samples.labels else pull_of(samples.n_samples, samples.n_rivals, k)


def pull_of(n_samples: int, n_rivals: int, k: float) -> float:
    """How strongly a refit of k features per class is drawn towards the dense head's logits.

    Args:
        n_samples: that are fitted to.
        n_rivals: classes that share out one probability, see `Samples`.
        k: features per class.
    """
    return min(MOST_PULL, PULL * (k + 1) * n_rivals / n_samples)


class Support:
    """Subspaces as the linear maps that one refit uses: logits and their gradient.

    Few features per class are summed row by row of zᵀ; many are cheaper as a dense product with
    zeros. Both give the same numbers.
    """

    # Multiplications that a dense product does in the time of one in a sum over few rows.
    DENSE_ADVANTAGE = 5

    def __init__(self, subspaces: Subspaces, device: torch.device) -> None:
        self.subspaces = subspaces
        self.device = device
        self.indptr = subspaces.indptr.to(device)
        self.indices = subspaces.indices.to(device)
        self.classes = subspaces.classes().to(device)
        self.shape = (subspaces.n_classes, subspaces.n_features)
        n_weights = self.shape[0] * self.shape[1]
        self.dense = n_weights <= self.DENSE_ADVANTAGE * subspaces.nnz

    def matrix(self, values: Tensor) -> Tensor:
        """The values as a dense (n_classes, n_features) weight."""
        weight = values.new_zeros(self.shape)
        weight[self.classes, self.indices] = values
        return weight

    def logits(self, features: Tensor, values: Tensor) -> Tensor:
        """Logits without bias (n_classes, n) of features (n_features, n)."""
        if self.dense:
            return self.matrix(values) @ features
        return F.embedding_bag(
            self.indices,
            features,
            self.indptr,
            mode="sum",
            per_sample_weights=values,
            include_last_offset=True,
        )

    def forward(self, features: Tensor, values: Tensor) -> tuple[Tensor, Gradient]:
        """Logits without bias, and how errors of them (n_classes, n) become errors of the values.

        The gradient of a kept pair is Σ over samples of error × feature.
        """
        if self.dense:
            weight = self.matrix(values)
            return weight @ features, lambda e: (e @ features.T)[self.classes, self.indices]

        def gradient(errors: Tensor) -> Tensor:
            # What autograd would call; to begin with autograd takes half a second of imports.
            operator = torch.ops.aten._embedding_bag_per_sample_weights_backward
            starts = self.indptr[:-1]
            found: Tensor = operator(errors, features, self.indices, starts, self.classes, mode=0)
            return found

        return self.logits(features, values), gradient

    @cached_property
    def slots(self) -> tuple[Tensor, Tensor]:
        """Features by class (n_classes, k), and which of them a class has (n_classes, k) bool."""
        sizes = self.indptr.diff()
        inside = torch.arange(int(sizes.max()), device=self.device) < sizes[:, None]
        features = torch.zeros(inside.shape, dtype=torch.int64, device=self.device)
        features[inside] = self.indices
        return features, inside


def divergence(
    samples: Samples,
    support: Support,
    values: Tensor,
    bias: Tensor,
    matched: tuple[Tensor, Tensor] | None = None,
) -> tuple[float, Tensor, Tensor]:
    """T² · mean KL(target ‖ sparse) and its gradients by values and bias, in float64.

    Probabilities of both heads are softened by the temperature T of the samples. With a sigmoid the
    divergences of all classes are added up: the logistic loss, less what no head can avoid.

    Args:
        samples: with their targets.
        support: of the head.
        values: (nnz,).
        bias: (n_classes,).
        matched: `match(samples, support)`, where targets are not kept: the part of the loss that
            they enter is linear. Otherwise every tile's targets are taken.
    """
    sums = samples.total(partial(_errors, support, values, bias, matched is None))
    loss, by_value, by_bias = float(sums[0]), sums[1], sums[2]
    temperature, n_samples = samples.temperature, samples.n_samples
    if matched is not None:
        by_value -= matched[0]
        by_bias -= matched[1]
        low, low_bias = values.float() / temperature, bias.float() / temperature
        loss -= float(low.double() @ matched[0] + low_bias.double() @ matched[1])
    scale = temperature / n_samples
    loss = temperature**2 * (loss / n_samples - samples.target_entropy)
    return loss, by_value * scale, by_bias * scale


def _errors(
    support: Support, values: Tensor, bias: Tensor, with_targets: bool, samples: Samples
) -> Sums:
    """Loss (), gradient by value (nnz,) and by bias (n_classes,), summed over samples, float64.

    Without targets the part in which they enter is left out.
    """
    loss = 0.0
    by_value = torch.zeros(len(values), dtype=torch.float64, device=values.device)
    by_bias = torch.zeros(len(bias), dtype=torch.float64, device=bias.device)
    low, low_bias = values.float() / samples.temperature, bias.float()[:, None]
    low_bias = low_bias / samples.temperature
    for tile in samples.tiles():
        logits, gradient = support.forward(tile.features, low)
        logits += low_bias
        if samples.link == SIGMOID:
            level = torch.zeros(())
        else:
            level = logits.amax(0)
            logits -= level
        if with_targets:
            targets = samples.targets(tile)
            loss -= float((logits * targets).sum(0).sum(dtype=torch.float64))
        else:
            loss += float(level.sum(dtype=torch.float64))
        if samples.link == SIGMOID:
            loss += float(F.softplus(logits).sum(0).sum(dtype=torch.float64))
            errors = logits.sigmoid_()
        else:
            errors = logits.exp_()
            total = errors.sum(0)
            loss += float(total.log().sum(dtype=torch.float64))
            errors /= total
        if with_targets:
            errors -= targets
        by_value += gradient(errors)
        by_bias += errors.sum(1)
    return torch.tensor(loss, dtype=torch.float64), by_value, by_bias


def match(samples: Samples, support: Support) -> tuple[Tensor, Tensor]:
    """Σ target × feature of every kept pair, and Σ target of every class, float64.

    Only where targets are not kept: the difference of two large sums has fewer exact digits than
    the sum of differences.
    """
    (by_value,) = samples.total(partial(_matches, support))
    return by_value, samples.class_mass * samples.n_samples


def _matches(support: Support, samples: Samples) -> Sums:
    """Σ target × feature of every kept pair, (nnz,) float64."""
    by_value = torch.zeros(support.subspaces.nnz, dtype=torch.float64, device=support.device)
    none = torch.zeros(support.subspaces.nnz, device=support.device)
    for tile in samples.tiles():
        by_value += support.forward(tile.features, none)[1](samples.targets(tile))
    return (by_value,)


class Pull:
    """How far a head's logits are from the dense ones: Σ_c mean (logit_c − dense logit_c)² / 2C.

    In standardised coordinates, over the few samples that a selection reads too. Logits are less
    their mean over classes; with a sigmoid they are not, and C is 2.
    """

    def __init__(self, samples: Samples, support: Support) -> None:
        at = samples.few.coordinates
        self._n_rivals = samples.n_rivals
        self._features, self._inside = support.slots
        last = torch.full_like(self._features[:, :1], samples.n_features)
        self._columns = torch.cat([self._features, last], 1)
        self._always = torch.cat([self._inside, torch.ones_like(last, dtype=torch.bool)], 1)
        self._second, self._weight = at.second_moments, at.weight

    @cached_property
    def _wide(self) -> Tensor:
        return self._second.float()

    @cached_property
    def _products(self) -> tuple[Tensor, float]:
        """The dense weights' products with the second moments, and with themselves."""
        products = self._weight @ self._second
        return products.gather(1, self._columns), float((products * self._weight).sum())

    @cached_property
    def blocks(self) -> Tensor:
        """Second moments of each class's features and the constant, (n_classes, k + 1, k + 1)."""
        blocks = self._second[self._columns[:, :, None], self._columns[:, None, :]]
        return blocks * self._always[:, :, None] * self._always[:, None, :]

    def __call__(self, weight: Tensor) -> tuple[float, Tensor]:
        """Value and gradient (n_classes, k + 1) at weights (n_classes, k + 1), 0 where unused."""
        n_classes, width = weight.shape
        if n_classes * width**2 <= MOST_KEPT:
            dense, level = self._products
            product = torch.bmm(self.blocks, weight[:, :, None])[:, :, 0]
            value = float((weight * (product - 2 * dense)).sum()) + level
            product -= dense
        else:
            off = (-self._weight).scatter_add_(1, self._columns, weight)
            moved = off.float() @ self._wide
            value, product = float((moved * off).sum()), moved.double().gather(1, self._columns)
        return value / (2 * self._n_rivals), product * self._always / self._n_rivals


class Objective:
    """The refit's objective in standardised coordinates: values × deviation, biases at the mean.

    In these the curvature of all variables is alike. To the divergence comes the pull towards the
    dense logits, and a ridge that makes the optimum unique where features are collinear; the latter
    is far below what one sample more would change.

    Args:
        samples: what is fitted to.
        support: which features the head reads.
        pull: strength of the pull, in [0, 1].
    """

    def __init__(self, samples: Samples, support: Support, pull: float) -> None:
        self.samples, self.support, self.pull = samples, support, pull
        self.std = samples.std[support.indices]
        self.mean = samples.mean[support.indices]
        mass = samples.class_mass.clamp(min=0.1 / samples.n_classes)
        self.mass = torch.cat([mass[support.classes], mass])
        self.ridge = RIDGE / samples.n_classes
        self.n_passes = 0

    @cached_property
    def _matched(self) -> tuple[Tensor, Tensor] | None:
        return None if self.samples.keeps_targets else match(self.samples, self.support)

    @cached_property
    def towards_dense(self) -> Pull:
        """The pull, at a strength of 1."""
        return Pull(self.samples, self.support)

    def pack(self, values: Tensor, bias: Tensor) -> Tensor:
        """Coordinates (nnz + n_classes,) of values and bias."""
        shift = torch.zeros_like(bias, dtype=torch.float64)
        shift.index_add_(0, self.support.classes, values.double() * self.mean)
        scaled = values.double() * self.std
        scaled[self.samples.constant[self.support.indices]] = 0
        return torch.cat([scaled, bias.double() + shift])

    def unpack(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values and bias of coordinates."""
        n = len(self.support.indices)
        values = x[:n] / self.std
        shift = torch.zeros_like(x[n:])
        shift.index_add_(0, self.support.classes, values * self.mean)
        return values, x[n:] - shift

    def __call__(self, x: Tensor) -> tuple[float, Tensor]:
        """The objective and its gradient at x."""
        loss, by_value, by_bias = divergence(
            self.samples, self.support, *self.unpack(x), self._matched
        )
        self.n_passes += 1
        by_value = (by_value - self.mean * by_bias[self.support.classes]) / self.std
        by_value[self.samples.constant[self.support.indices]] = 0
        more, gradient = self.penalty(x)
        return loss + more, torch.cat([by_value, by_bias]) + gradient

    def penalty(self, x: Tensor) -> tuple[float, Tensor]:
        """The ridge and the pull, and their gradient at x."""
        value, gradient = self.ridge * float(x @ x) / 2, self.ridge * x
        if self.pull:
            inside = self.support.slots[1]
            n = len(self.support.indices)
            wide = x.new_zeros(inside.shape[0], inside.shape[1] + 1)
            wide[:, :-1][inside] = x[:n]
            wide[:, -1] = x[n:]
            more, slope = self.towards_dense(wide)
            value += self.pull * more
            gradient = gradient + self.pull * torch.cat([slope[:, :-1][inside], slope[:, -1]])
        return value, gradient

    def residual(self, gradient: Tensor) -> float:
        """How far a gradient is from 0, as `RefitResult` states it."""
        return float((gradient / self.mass).square().mean().sqrt()) / self.samples.temperature
