"""Joint selection: the features of all classes together, in a quadratic of the softmax loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.heads.refit.distillation import Distillation, Support
from penult.heads.refit.hessian import Point, joint_hessian
from penult.heads.refit.weights import Objective
from penult.heads.select.tableau import Tableau
from penult.heads.subspaces import Subspaces

# n_classes × n_features up to which all classes are taken together.
JOINT_FEATURES = 1_600
# Samples × (n_classes × n_features)² that are worth one quadratic.
WORK = 5e9
RIDGE = 1e-6
LEAST_GAIN = 1e-7


@dataclass(frozen=True, eq=False)
class Quadratic:
    """Second-order model of a distillation loss by the weights of all classes on all features.

    One regression whose features are the (class, feature) pairs, class by class; the biases are
    always free and already eliminated. Unlike the curvature of single classes it knows that one
    class can make good what another lost.

    Attributes:
        covariance: (n_pairs, n_pairs) with a diagonal of 1.
        products: (n_pairs,).
        n_features: pairs of one class.
    """

    covariance: Tensor
    products: Tensor
    n_features: int

    @classmethod
    def of(cls, loss: Distillation, temperature: float) -> Quadratic:
        """Expand at the dense head; the temperature softens the probabilities of the samples."""
        weight, bias = loss.weight, loss.bias
        n_classes, n_features = weight.shape
        pairs = [range(n_features)] * n_classes
        support = Support(Subspaces.of(pairs, n_features), weight.device)
        point = Point(support, weight.double().flatten(), bias.double())
        work = max(WORK, 10.0 * weight.numel() ** 3)
        hessian = joint_hessian(loss, point, temperature, work, torch.float32)
        n = weight.numel()
        x = Objective(loss, support).pack(point.values, point.bias)
        free = hessian[n:, n:]
        free.diagonal().add_(1e-9 * free.diagonal().mean() + 1e-300)
        through = torch.linalg.solve(free, hessian[n:, :n])
        curvature = hessian[:n, :n] - hessian[:n, n:] @ through
        products = curvature @ x[:n]
        variance = curvature.diagonal().clamp(min=0)
        known = variance > 1e-12 * variance.max()
        scale = torch.where(known, variance, 1).rsqrt() * known
        covariance = curvature * scale * scale[:, None]
        covariance.diagonal().add_(RIDGE)
        return cls(covariance, products * scale, n_features)

    def tableau(self, support: Tensor) -> Tableau:
        """The regression on a support of pairs, (nnz,)."""
        return Tableau.of(self.covariance, self.products[None], support[None], 10 * RIDGE)

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return len(self.products) // self.n_features

    def class_of(self, pairs: Tensor) -> Tensor:
        """Class of each pair."""
        return pairs // self.n_features

    def counts(self, tableau: Tableau) -> Tensor:
        """Features that each class keeps, (n_classes,)."""
        return torch.bincount(self.class_of(tableau.support[0]), minlength=self.n_classes)

    def grow(self, tableau: Tableau, k: int) -> None:
        """Add pairs, the one that explains most first, until every class keeps k features."""
        counts = self.counts(tableau)
        while int(counts.min()) < k:
            gains = tableau.gains().reshape(self.n_classes, self.n_features)
            pair = gains.masked_fill((counts >= k)[:, None], -2.0).argmax()[None]
            tableau.add(pair)
            counts[self.class_of(pair)] += 1

    def shrink(self, tableau: Tableau, k: int) -> None:
        """Remove pairs, the one that costs least first, until every class keeps k features."""
        counts = self.counts(tableau)
        while int(counts.max()) > k:
            classes = self.class_of(tableau.support[0])
            losses = tableau.losses()[0].masked_fill((counts <= k)[classes], float("inf"))
            place = losses.argmin()[None]
            counts[classes[place]] -= 1
            tableau.remove(place)

    def improve(self, tableau: Tableau, limit: int = 1000) -> None:
        """Make swaps within classes, best first, until none helps; at most `limit`."""
        tableau.refresh()
        own = torch.arange(self.n_features, device=self.products.device)
        for _ in range(limit):
            pairs = tableau.support[0]
            columns = (self.class_of(pairs) * self.n_features)[:, None] + own
            coefficients = (tableau.inverse[0] @ self.covariance[pairs]).gather(1, columns)
            gains = tableau.swap_gains_of(coefficients[None], columns[None])[0]
            best = int(gains.argmax())
            if not float(gains.flatten()[best]) > LEAST_GAIN * float(tableau.explained[0]):
                return
            place, column = divmod(best, self.n_features)
            tableau.swap(torch.tensor([place], device=own.device), columns[place, column][None])

    def subspaces(self, tableau: Tableau) -> Subspaces:
        """Features per class, the one whose removal costs most first."""
        order = tableau.losses()[0].argsort(descending=True, stable=True)
        pairs = tableau.support[0][order].tolist()
        kept: list[list[int]] = [[] for _ in range(self.n_classes)]
        for pair in pairs:
            kept[pair // self.n_features].append(pair % self.n_features)
        return Subspaces.of(kept, self.n_features)


def is_small(loss: Distillation) -> bool:
    """Whether all classes can be taken together."""
    return loss.n_classes * loss.n_features <= JOINT_FEATURES


def select_joint(loss: Distillation, ks: Sequence[int], temperature: float) -> dict[int, Subspaces]:
    """Features of all classes that keep the softmax nearest to the dense head's, to second order.

    From k to k + 1 every class gains the feature that explains most, up to the largest k; then,
    on the way back, loses the one that costs least. At each k of `ks`, both ways, swaps within
    classes follow until none helps, and the better of the two is kept.
    """
    quadratic = Quadratic.of(loss, temperature)
    tableau = quadratic.tableau(torch.zeros(0, dtype=torch.int64, device=loss.weight.device))
    supports, explained = {}, {}
    largest = max(ks)
    for k in range(1, largest + 1):
        quadratic.grow(tableau, k)
        if k in ks:
            quadratic.improve(tableau)
            supports[k], explained[k] = tableau.support[0], float(tableau.explained[0])
    for k in range(largest - 1, 0, -1):
        quadratic.shrink(tableau, k)
        if k in ks:
            quadratic.improve(tableau)
            if float(tableau.explained[0]) > explained[k]:
                supports[k] = tableau.support[0]
            tableau = quadratic.tableau(supports[k])
    return {k: quadratic.subspaces(quadratic.tableau(supports[k])) for k in sorted(ks)}
