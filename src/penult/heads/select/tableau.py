"""Tableau: many least-squares problems at once, whose supports gain and lose features cheaply."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from penult.errors import InputError

# Part of a feature's variance below which it counts as a combination of the kept ones.
LEAST_VARIANCE = 1e-8
# Part of the least variance that is added to the variances of kept features, so that duplicates
# among them can be told apart.
RIDGE = 0.1


@dataclass(eq=False)
class Tableau:
    """Regressions of `n` targets on features, each on its own support of k features.

    Everything follows from a covariance G and its product g with the target: the part of the target
    that a support S explains is g_S' G_SS⁻¹ g_S. Features are in units of their standard deviation,
    so that the diagonal of G is 1 (0 for a constant feature). All in float64.

    Attributes:
        covariance: (n_matrices, n_features, n_features), one after the other in memory.
        owners: (n,) int64, which of the matrices is each target's.
        products: (n, n_features), g.
        support: (n, k) int64.
        inverse: (n, k, k), G_SS⁻¹.
        weights: (n, k), G_SS⁻¹ g_S.
        residuals: (n, n_features), what each feature still shares with the target.
        variances: (n, n_features), what of each feature the kept ones leave open.
        least_variance: a feature with less than this left open adds nothing: it is collinear.
    """

    covariance: Tensor
    owners: Tensor
    products: Tensor
    support: Tensor
    inverse: Tensor
    weights: Tensor
    residuals: Tensor
    variances: Tensor
    least_variance: float = LEAST_VARIANCE

    @classmethod
    def empty(
        cls,
        covariance: Tensor,
        products: Tensor,
        least_variance: float = LEAST_VARIANCE,
        owners: Tensor | None = None,
    ) -> Tableau:
        """Regressions on no feature yet.

        Args:
            covariance: one matrix for all targets, or several.
            products: (n, n_features).
            least_variance: see there.
            owners: which of several matrices is each target's; where None each has its own.
        """
        n = len(products)
        if covariance.ndim == 2:
            covariance, owners = covariance[None], torch.zeros(n, dtype=torch.int64)
        elif owners is None:
            owners = torch.arange(n)
        owners = owners.to(products.device)
        return cls(
            covariance.contiguous(),
            owners,
            products,
            torch.zeros(n, 0, dtype=torch.int64, device=products.device),
            products.new_zeros(n, 0, 0),
            products.new_zeros(n, 0),
            products.clone(),
            covariance.diagonal(dim1=1, dim2=2)[owners],
            least_variance,
        )

    @classmethod
    def of(
        cls,
        covariance: Tensor,
        products: Tensor,
        support: Tensor,
        least_variance: float = LEAST_VARIANCE,
        owners: Tensor | None = None,
    ) -> Tableau:
        """Regressions on a support (n, k), factorised from scratch; see `empty`."""
        made = cls.empty(covariance, products, least_variance, owners)
        made.support = support
        made.refresh()
        rows = made.whole_rows()
        made.variances = made.variances - ((made.inverse @ rows) * rows).sum(1)
        return made

    def refresh(self) -> None:
        """Recompute the inverse, the weights and the residuals, without the rounding of updates."""
        inside = self.rows(self.support)
        ridge = RIDGE * self.least_variance
        inside.diagonal(dim1=1, dim2=2).add_(ridge)
        self.inverse = torch.cholesky_inverse(_factor(inside, ridge))
        kept = self.products.gather(1, self.support)
        self.weights = (self.inverse @ kept[:, :, None])[:, :, 0]
        self.residuals = self.products - self.combine(self.weights)

    def rows(self, columns: Tensor) -> Tensor:
        """Covariances of the kept features with others (n, m), (n, k, m)."""
        at = self._places()[:, :, None] * self.products.shape[1] + columns[:, None, :]
        return self.covariance.flatten().index_select(0, at.flatten()).reshape(at.shape)

    def whole_rows(self) -> Tensor:
        """Covariances of the kept features with all, (n, k, n_features)."""
        at = self._places()
        rows = self.covariance.flatten(0, 1).index_select(0, at.flatten())
        return rows.reshape(*at.shape, self.products.shape[1])

    def _places(self) -> Tensor:
        """Where the kept features' rows lie, all matrices below each other, (n, k)."""
        return self.owners[:, None] * self.products.shape[1] + self.support

    def combine(self, shares: Tensor) -> Tensor:
        """Covariances of all features with Σ share × kept feature, (n, n_features)."""
        if self.support.shape[1] == 0:
            return torch.zeros_like(self.products)
        rows = self.covariance.flatten(0, 1)
        return F.embedding_bag(self._places(), rows, per_sample_weights=shares, mode="sum")

    @property
    def explained(self) -> Tensor:
        """Part of the target's variance that the support explains, (n,)."""
        return (self.products.gather(1, self.support) * self.weights).sum(1)

    def gains(self) -> Tensor:
        """What adding each feature would explain more, (n, n_features); -1 for those kept."""
        usable = self.variances > self.least_variance
        gains = torch.where(usable, self.residuals**2 / self.variances.clamp(min=1e-300), 0)
        return gains.scatter(1, self.support, -1.0)

    def losses(self) -> Tensor:
        """What removing each kept feature would lose, (n, k)."""
        return self.weights**2 / self.inverse.diagonal(dim1=1, dim2=2)

    def swap_bounds(self) -> Tensor:
        """No swap that brings a feature in explains more than this, (n, n_features).

        Removing s adds at most 1 − D_j to the variance D_j of feature j and, in proportion, to what
        it shares with the target. The bound is the largest swap gain over all that this allows, for
        the s whose loss is least.
        """
        least = self.losses().min(1, keepdim=True).values
        size, open_ = self.residuals.abs(), self.variances.clamp(min=self.least_variance)
        reach = (1 - open_).clamp(min=0).sqrt()
        root = least.sqrt()
        at_reach = size**2 + 2 * size * root * reach - least * open_
        bounds = torch.where(root * open_ <= size * reach, size**2 / open_, at_reach)
        return bounds.scatter(1, self.support, -1.0)

    def swap_gains(self, columns: Tensor) -> Tensor:
        """What each swap would explain more: out a kept feature, in one of `columns` (n, m).

        Returns:
            (n, k, m); -1 where the column is kept already.
        """
        coefficients = self.inverse @ self.rows(columns)
        return self.swap_gains_of(coefficients, columns[:, None, :])

    def swap_gains_of(self, coefficients: Tensor, columns: Tensor) -> Tensor:
        """Swap gains where G_SS⁻¹ G_Sj is known, (n, k, m), for columns (n, 1 or k, m)."""
        k = self.support.shape[1]
        columns = columns.expand(-1, k, -1)
        own = self.inverse.diagonal(dim1=1, dim2=2)[:, :, None]
        pull = self.weights[:, :, None] / own
        wide = (-1, k, -1)
        variances = self.variances[:, None].expand(wide).gather(2, columns)
        residuals = self.residuals[:, None].expand(wide).gather(2, columns)
        variances = variances + coefficients**2 / own
        gains = (residuals + coefficients * pull) ** 2 / variances.clamp(min=1e-300)
        gains = gains.masked_fill(variances <= self.least_variance, 0.0)
        gains -= self.weights[:, :, None] * pull
        kept = torch.zeros_like(self.variances, dtype=torch.bool).scatter_(1, self.support, True)
        return gains.masked_fill(kept[:, None].expand(wide).gather(2, columns), -1.0)

    def add(self, feature: Tensor) -> None:
        """Add one feature per target, (n,)."""
        at = feature[:, None]
        shared = self.rows(at)
        inside = self.inverse @ shared
        own = self.owners * self.products.shape[1] + feature
        row = self.covariance.flatten(0, 1).index_select(0, own)
        row -= self.combine(inside[:, :, 0])
        variance = self.variances.gather(1, at).clamp(min=RIDGE * self.least_variance)
        weight = self.residuals.gather(1, at) / variance
        self.residuals = self.residuals - row * weight
        self.variances = self.variances - row**2 / variance
        self.weights = torch.cat([self.weights - inside[:, :, 0] * weight, weight], 1)
        corner = self.inverse + inside @ inside.transpose(1, 2) / variance[:, :, None]
        edge = -inside / variance[:, :, None]
        last = torch.cat([edge.transpose(1, 2), 1 / variance[:, :, None]], 2)
        self.inverse = torch.cat([torch.cat([corner, edge], 2), last], 1)
        self.support = torch.cat([self.support, at], 1)

    def remove(self, place: Tensor) -> None:
        """Remove the kept feature at one place in [0, k) per target, (n,)."""
        n, k = self.support.shape
        edge = self.inverse.gather(2, place[:, None, None].expand(-1, k, 1))
        own = edge.gather(1, place[:, None, None])[:, 0]
        weight = self.weights.gather(1, place[:, None])
        row = self.combine(edge[:, :, 0])
        self.residuals = self.residuals + row * (weight / own)
        self.variances = self.variances + row**2 / own
        others = torch.ones_like(self.support, dtype=torch.bool).scatter_(1, place[:, None], False)
        keep = others.nonzero()[:, 1].reshape(n, k - 1)
        self.weights = (self.weights - edge[:, :, 0] * (weight / own)).gather(1, keep)
        inverse = self.inverse - edge @ (edge / own[:, :, None]).transpose(1, 2)
        inverse = inverse.gather(1, keep[:, :, None].expand(-1, -1, k))
        self.inverse = inverse.gather(2, keep[:, None, :].expand(-1, k - 1, -1))
        self.support = self.support.gather(1, keep)

    def swap(self, place: Tensor, feature: Tensor) -> None:
        """Remove the kept feature at `place` (n,), then add `feature` (n,)."""
        self.remove(place)
        self.add(feature)

    def only(self, targets: Tensor) -> Tableau:
        """The problems of some of the targets, (m,) indices; later changes do not reach back."""
        return Tableau(
            self.covariance,
            self.owners[targets],
            self.products[targets],
            self.support[targets],
            self.inverse[targets],
            self.weights[targets],
            self.residuals[targets],
            self.variances[targets],
            self.least_variance,
        )

    def put(self, targets: Tensor, part: Tableau) -> None:
        """Write the problems of some of the targets back, all of the same k."""
        self.support[targets] = part.support
        self.inverse[targets] = part.inverse
        self.weights[targets] = part.weights
        self.residuals[targets] = part.residuals
        self.variances[targets] = part.variances


def explained_by(inside: Tensor, products: Tensor, least_variance: float = LEAST_VARIANCE) -> float:
    """What features explain of one target, as a tableau of them has it, and nothing else.

    Args:
        inside: (k, k), their covariances; changed in place.
        products: (k,), what each shares with the target.
        least_variance: see `Tableau`.
    """
    ridge = RIDGE * least_variance
    inside.diagonal().add_(ridge)
    factor = _factor(inside[None], ridge)[0]
    half = torch.linalg.solve_triangular(factor, products[:, None], upper=False)
    return float(half.square().sum())


def _factor(inside: Tensor, ridge: float) -> Tensor:
    """Cholesky factors (n, k, k); where rounding hides that one exists, with a larger ridge."""
    factors: Tensor
    factors, failed = torch.linalg.cholesky_ex(inside)
    while bool(failed.any()):
        ridge *= 10
        if ridge > 1:
            raise InputError(
                "the features' sums hold NaN or overflow: expected features and weights whose "
                "products are ordinary numbers"
            )
        inside.diagonal(dim1=1, dim2=2).add_(ridge * (failed > 0)[:, None])
        factors, failed = torch.linalg.cholesky_ex(inside)
    return factors
