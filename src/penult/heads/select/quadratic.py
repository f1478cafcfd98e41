"""Quadratic: the second-order model of what a head loses, on which features are chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.heads.select.tableau import Tableau
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces

# Part of a feature's second moment below which its variance is none.
ROUNDING = 1e-10
# A dense product does so many multiplications in the time of one in a sum over few rows.
SPARSE_ADVANTAGE = 6


class Coupling(Protocol):
    """What every class still lacks, as the others see it."""

    def pull(self, classes: Tensor) -> Tensor:
        """How what the others lack moves the normal equations, (n, n_features + 1)."""

    def put(self, classes: Tensor, weight: Tensor) -> None:
        """Take over the weights (n, n_features + 1) of some classes."""


class SampleCoupling:
    """The coupling as sums over samples: e, by how much each logit is off, and its mean under p.

    Args:
        x: (n_features + 1, n_samples).
        p: (n_classes, n_samples), probabilities at which the loss is expanded.
        logits: (n_classes, n_samples), where it is expanded.
    """

    def __init__(self, x: Tensor, p: Tensor, logits: Tensor) -> None:
        self._x, self._p, self._logits = x, p, logits
        self._off = torch.zeros_like(p)
        self._mean_off = torch.zeros_like(p[0])

    def pull(self, classes: Tensor) -> Tensor:
        """See `Coupling`."""
        p = self._p[classes]
        target = p * (self._mean_off - p * self._off[classes])
        return (target @ self._x.T).double() / self._x.shape[1]

    def put(self, classes: Tensor, weight: Tensor) -> None:
        """See `Coupling`."""
        off = self._products(weight.float()) - self._logits[classes]
        self._mean_off += (self._p[classes] * (off - self._off[classes])).sum(0)
        self._off[classes] = off

    def _products(self, weight: Tensor) -> Tensor:
        """Logits (n, n_samples) of weights; where few are not 0, of these alone."""
        most = max(1, int((weight != 0).sum(1).max()))
        if SPARSE_ADVANTAGE * most > weight.shape[1]:
            return weight @ self._x
        columns = weight.abs().topk(most, dim=1).indices
        values = weight.gather(1, columns)
        return F.embedding_bag(columns, self._x, per_sample_weights=values, mode="sum")


class JointCoupling:
    """The coupling as the whole Hessian of few weights.

    Args:
        hessian: (n_classes, n_features + 1, n_classes, n_features + 1) float64.
        weight: (n_classes, n_features + 1) float64, where the loss is least.
    """

    def __init__(self, hessian: Tensor, weight: Tensor) -> None:
        self.hessian, self.weight = hessian, weight
        self._hessian = hessian.reshape(*weight.shape, -1)
        classes = torch.arange(len(weight), device=weight.device)
        self._own = hessian[classes, :, classes]
        self._off = torch.zeros_like(weight)

    def pull(self, classes: Tensor) -> Tensor:
        """See `Coupling`."""
        own = (self._own[classes] @ self._off[classes][:, :, None])[:, :, 0]
        return own - self._hessian[classes] @ self._off.flatten()

    def put(self, classes: Tensor, weight: Tensor) -> None:
        """See `Coupling`."""
        self._off[classes] = weight - self.weight[classes]


@dataclass(frozen=True, eq=False)
class Units:
    """What turns weights of a quadratic's features into those of the network's.

    Attributes:
        mean: (n_features,) float64, subtracted from the features.
        std: (n_features,) float64, by which they are then divided.
    """

    mean: Tensor
    std: Tensor

    def head(self, support: Tensor, sizes: Tensor, weight: Tensor) -> SparseHead:
        """The head with the first `sizes` (n_classes,) features of each row of `support`.

        Args:
            support: (n_classes, k), features.
            sizes: (n_classes,).
            weight: (n_classes, n_features + 1), the constant's last.
        """
        inside = torch.arange(support.shape[1], device=sizes.device) < sizes[:, None]
        values = weight[:, :-1].gather(1, support) / self.std[support] * inside
        bias = weight[:, -1] - (values * self.mean[support]).sum(1)
        subspaces = Subspaces.where(inside, support, len(self.mean))
        return SparseHead(subspaces, values[inside].float().cpu(), bias.float().cpu())


class Quadratic:
    """Second-order model of a loss by the weights of a head: one regression for every class.

    The weights u of class c on a support are those that solve H u = R, the rows and columns of H
    restricted to the support and the constant. The constant, which is always free, is eliminated;
    features are scaled so that the diagonal of what is left is 1. Where classes are coupled, R
    moves with what the other classes' weights leave to be made good.

    Args:
        hessian: of the candidates and the constant, (n_classes, m + 1, m + 1), or (m + 1, m + 1)
            where it is the same for all classes; float64.
        target: R, (n_classes, n_features + 1) float64, over all features.
        candidates: (n_classes, m), the features that each class may read, in rising order.
        units: of the features.
        coupling: of the classes, or None where each is by itself.
        least_variance: part of a feature's variance below which it counts as a combination of the
            kept ones: what rounding leaves of it.

    Attributes:
        covariance: (n_classes, m, m) or (m, m).
    """

    def __init__(
        self,
        hessian: Tensor,
        target: Tensor,
        candidates: Tensor,
        units: Units,
        coupling: Coupling | None = None,
        least_variance: float = 1e-5,
    ) -> None:
        self.least_variance = least_variance
        self.candidates, self.units, self.coupling = candidates, units, coupling
        self.covariance, scale, edge, total = correlations(hessian)
        self._scale = scale.expand(candidates.shape)
        self._edge = edge.expand(candidates.shape)
        self._total = total.expand(len(candidates))
        self._target = target

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.candidates)

    def regressions(
        self, classes: Tensor, products: Tensor, places: Tensor | None = None
    ) -> Tableau:
        """The regressions of some classes, on kept features or on none.

        Args:
            classes: (n,).
            products: (n, m), see `products`.
            places: (n, k) in the candidates.
        """
        owners = None if self.covariance.ndim == 2 else classes
        given = self.covariance, products
        if places is None:
            return Tableau.empty(*given, self.least_variance, owners)
        return Tableau.of(*given, places, self.least_variance, owners)

    def products(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """What each candidate shares with the target of its class (n, m), and the constant (n,)."""
        target = self._target[classes]
        if self.coupling is not None:
            target = target + self.coupling.pull(classes)
        level = target[:, -1]
        found = target.gather(1, self.candidates[classes])
        found = found - self._edge[classes] * (level / self._total[classes])[:, None]
        return found * self._scale[classes], level

    def weight(self, classes: Tensor, places: Tensor, values: Tensor, level: Tensor) -> Tensor:
        """Weights of all features and the constant (n, n_features + 1) from scaled ones.

        Args:
            classes: (n,).
            places: (n, k) in the candidates.
            values: (n, k).
            level: (n,), as `products` gave it.
        """
        values = values * self._scale[classes].gather(1, places)
        shift = (self._edge[classes].gather(1, places) * values).sum(1)
        weight = values.new_zeros(len(classes), self._target.shape[1])
        weight.scatter_(1, self.candidates[classes].gather(1, places), values)
        weight[:, -1] = (level - shift) / self._total[classes]
        return weight


@dataclass(frozen=True, eq=False)
class FoundSize:
    """What was found for one k.

    Attributes:
        support: (n_classes, most features of a class).
        sizes: (n_classes,).
        weight: (n_classes, n_features + 1).
        costs: (n_classes, most), second-order loss of losing each.
    """

    support: Tensor
    sizes: Tensor
    weight: Tensor
    costs: Tensor

    @classmethod
    def joined(cls, parts: list[FoundSize]) -> FoundSize:
        """What was found for groups of classes, as one."""
        most = max(part.support.shape[1] for part in parts)
        pad = torch.nn.functional.pad
        return cls(
            torch.cat([pad(part.support, (0, most - part.support.shape[1])) for part in parts]),
            torch.cat([part.sizes for part in parts]),
            torch.cat([part.weight for part in parts]),
            torch.cat([pad(part.costs, (0, most - part.costs.shape[1])) for part in parts]),
        )

    def head(self, model: Quadratic) -> SparseHead:
        """The head of these weights."""
        return model.units.head(self.support, self.sizes, self.weight)


def correlations(sums: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Eliminate the constant from second moments, and scale what is left to a diagonal of 1.

    Args:
        sums: (..., m + 1, m + 1), second moments of m features and a constant, which comes last.

    Returns:
        (..., m, m) correlations, 0 for a constant feature; (..., m) what each feature is multiplied
        by, 0 for a constant one; (..., m) its moment with the constant; (...) that of the constant
        with itself.
    """
    total = sums[..., -1, -1].clamp(min=1e-300)
    edge = sums[..., :-1, -1]
    inner = sums[..., :-1, :-1] - edge[..., :, None] * (edge / total[..., None])[..., None, :]
    variance = inner.diagonal(dim1=-2, dim2=-1)
    second = sums.diagonal(dim1=-2, dim2=-1)[..., :-1]
    known = (variance > ROUNDING * second) & (variance > 0)
    scale = torch.where(known, variance, 1).rsqrt() * known
    inner *= scale[..., :, None]
    inner *= scale[..., None, :]
    return inner, scale, edge, total
