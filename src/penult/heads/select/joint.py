"""Joint swaps: swaps of features where the weights of all classes are found anew for each."""

from __future__ import annotations

import torch
from torch import Tensor

from penult.heads.select.tableau import Tableau

# Part of a pair's curvature that rounding leaves of it.
LEAST_VARIANCE = 1e-5
# A swap must explain this part more, or rounding would go on swapping for ever.
LEAST_GAIN = 1e-6
MOST_SWAPS = 1000


class JointSwaps:
    """One regression whose features are the (class, feature) pairs; biases are always free.

    Unlike classes that take turns, it sees what each swap is worth when all other weights follow.

    Args:
        hessian: (n_classes, n_features + 1, n_classes, n_features + 1) float64.
        weight: (n_classes, n_features + 1) float64, where the loss is least.
    """

    def __init__(self, hessian: Tensor, weight: Tensor) -> None:
        self._n_classes, width = weight.shape
        self._n_features = width - 1
        by_bias = hessian[:, -1].reshape(self._n_classes, self._n_classes, width)
        free, edge = by_bias[:, :, -1], by_bias[:, :, :-1].flatten(1)
        n = self._n_classes * self._n_features
        self._through = torch.linalg.solve(free, edge)
        inner = hessian[:, :-1, :, :-1].reshape(n, n) - edge.T @ self._through
        variance = inner.diagonal()
        known = variance > LEAST_VARIANCE * float(variance.mean()) * 1e-3
        self._scale = torch.where(known, variance, 1).rsqrt() * known
        self._products = (inner @ weight[:, :-1].flatten()) * self._scale
        self._covariance = inner * self._scale * self._scale[:, None]
        self._weight = weight

    def improve(self, support: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Swap within classes, the best swap first, until none helps.

        Args:
            support: (n_classes, k), features.
            sizes: (n_classes,), how many of each row count.

        Returns:
            Support, of each class the feature that would cost most first; weights (n_classes,
            n_features + 1); and what losing each feature would cost, (n_classes, k).
        """
        n_features, device = self._n_features, support.device
        inside = torch.arange(support.shape[1], device=device) < sizes[:, None]
        classes = torch.arange(self._n_classes, device=device)[:, None]
        pairs = (support + n_features * classes)[inside]
        tableau = Tableau.of(
            self._covariance, self._products[None], pairs[None], least_variance=LEAST_VARIANCE
        )
        own = torch.arange(n_features, device=device)
        for _ in range(MOST_SWAPS):
            pairs = tableau.support[0]
            columns = (pairs // n_features * n_features)[:, None] + own
            coefficients = (tableau.inverse[0] @ self._covariance[pairs]).gather(1, columns)
            gains = tableau.swap_gains_of(coefficients[None], columns[None])[0]
            best = int(gains.argmax())
            if not float(gains.flatten()[best]) > LEAST_GAIN * float(tableau.explained[0]):
                break
            place, column = divmod(best, n_features)
            tableau.swap(pairs.new_tensor([place]), columns[place, column][None])
            tableau.refresh()
        return self._found(tableau, inside)

    def _found(self, tableau: Tableau, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        pairs, losses = tableau.support[0], tableau.losses()[0]
        order = losses.argsort(descending=True, stable=True)
        order = order[(pairs[order] // self._n_features).argsort(stable=True)]
        support = torch.zeros(inside.shape, dtype=torch.int64, device=inside.device)
        support[inside] = pairs[order] % self._n_features
        costs = torch.zeros(inside.shape, dtype=torch.float64, device=inside.device)
        costs[inside] = losses[order]
        values = self._weight.new_zeros(len(self._scale))
        values[pairs] = tableau.weights[0] * self._scale[pairs]
        off = values - self._weight[:, :-1].flatten()
        bias = self._weight[:, -1] - self._through @ off
        weight = torch.cat([values.reshape(self._n_classes, -1), bias[:, None]], 1)
        return support, weight, costs
