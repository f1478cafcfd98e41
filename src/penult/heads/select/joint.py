"""Joint: one path over k where the weights of all classes are one regression."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping

import torch
from torch import Tensor

from penult.heads.select.quadratic import FoundSize, JointCoupling
from penult.heads.select.tableau import Tableau, explained_by

# Part of a pair's curvature that rounding leaves of it.
LEAST_VARIANCE = 1e-5
# A swap must explain this part more, or rounding would go on swapping for ever.
LEAST_GAIN = 1e-6
MOST_SWAPS = 1000
# Above the largest k, each step leaves this part of the features.
STEP = 0.9
# Up to so many pairs a path from none upwards is a start too: it costs most, and with more pairs
# it hardly ever ends best.
MOST_GROWN = 100


class JointPath:
    """One regression whose features are the (class, feature) pairs; biases are always free.

    Unlike classes that take turns, it sees what each change is worth when all other weights follow.

    Args:
        coupling: of all classes, with the whole Hessian.
        hear: called pair by pair and swap by swap; raises an error to stop.
    """

    def __init__(self, coupling: JointCoupling, hear: Callable[[], None] = lambda: None) -> None:
        self._hear = hear
        hessian, weight = coupling.hessian, coupling.weight
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

    def down(
        self, sizes: Mapping[int, Tensor], wanted: Collection[int], tick: Callable[[], None]
    ) -> Iterator[tuple[int, FoundSize]]:
        """Heads of each size, the largest first.

        Where a head is wanted, pairs are swapped until none helps, from three starts, and the best
        end is taken: all pairs less those that cost least, one by one; the last head less what
        costs least, swapped at every size between; and, for few pairs, from none on those that
        explain most.

        Args:
            sizes: for every k that is passed, in falling order, how many features each class keeps.
            wanted: those of them whose heads are.
            tick: called after each step.
        """
        grown = self._grow(sizes, [k for k in wanted if int(sizes[k].sum()) <= MOST_GROWN])
        left = torch.arange(self._n_classes * self._n_features)
        swapped: Tensor | None = None
        for k, size in sizes.items():
            left = self._thin(left, size, tick)
            swapped = None if swapped is None else self._thin(swapped, size, tick)
            if k not in wanted:
                # The sizes that are asked for must not decide how good each of them is.
                if swapped is not None:
                    swapped = self._improve(swapped).support[0].sort().values
                continue
            starts = [left] if swapped is None else [left, swapped]
            starts += [grown[k]] if k in grown else []
            ends = [self._improve(pairs) for pairs in _distinct(starts)]
            best = max(ends, key=lambda end: float(end.explained[0]))
            swapped = best.support[0].sort().values
            yield k, self._found(best, size)
            tick()

    def _grow(self, sizes: Mapping[int, Tensor], wanted: Collection[int]) -> dict[int, Tensor]:
        """Pairs of each size that is wanted: from none on those that explain most, class by class.

        With each step every class gets one more, those first that explain most by it.
        """
        n_left = torch.zeros(self._n_classes, dtype=torch.int64)
        tableau = Tableau.empty(self._covariance, self._products[None], LEAST_VARIANCE)
        found = {}
        for k in sorted(wanted):
            while bool((n_left < sizes[k]).any()):
                open_ = n_left < sizes[k]
                for _ in range(int(open_.sum())):
                    gains = tableau.gains()[0].reshape(self._n_classes, -1)
                    best = gains.masked_fill(~open_[:, None], -2.0).flatten().argmax()
                    tableau.add(best[None])
                    self._hear()
                    open_[best // self._n_features] = False
                    n_left[best // self._n_features] += 1
            found[k] = tableau.support[0].sort().values
        return found

    def _tableau(self, pairs: Tensor) -> Tableau:
        return Tableau.of(
            self._covariance, self._products[None], pairs[None], least_variance=LEAST_VARIANCE
        )

    def _bare(self, pairs: Tensor) -> Tableau:
        """The same, but for what the pairs leave open of others: enough to remove some."""
        bare = Tableau.empty(self._covariance, self._products[None], LEAST_VARIANCE)
        bare.support = pairs[None]
        bare.refresh()
        return bare

    def _explained(self, pairs: Tensor) -> float:
        """What a set of pairs explains, as `_tableau` has it."""
        inside = self._covariance[pairs[:, None], pairs]
        return explained_by(inside, self._products[pairs], LEAST_VARIANCE)

    def _thin(self, pairs: Tensor, sizes: Tensor, tick: Callable[[], None]) -> Tensor:
        """The pairs (n,), in rising order, without those that cost least: `sizes` per class."""
        classes = pairs // self._n_features
        n_left = torch.bincount(classes, minlength=self._n_classes)
        while bool((n_left > sizes).any()):
            tableau = self._bare(pairs)
            coarse = torch.maximum(sizes, (STEP * n_left).long())
            if int((n_left - coarse).max()) > 1:
                order = tableau.losses()[0].argsort(descending=True, stable=True)
                order = order[classes[order].argsort(stable=True)]
                starts = n_left.cumsum(0) - n_left
                place = torch.arange(len(pairs)) - starts[classes[order]]
                pairs = pairs[order[place < coarse[classes[order]]].sort().values]
                n_left = torch.minimum(n_left, coarse)
            else:
                pairs, n_left = self._one_by_one(tableau, n_left, sizes)
            classes = pairs // self._n_features
            tick()
        return pairs

    def _one_by_one(self, tableau: Tableau, n_left: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        """At most one pair less of each class, the cheapest first; each sees what went before."""
        pairs, inverse, weights = tableau.support[0], tableau.inverse[0], tableau.weights[0]
        classes = pairs // self._n_features
        open_ = n_left > sizes
        inside = torch.ones_like(pairs, dtype=torch.bool)
        for _ in range(int(open_.sum())):
            losses = weights.square() / inverse.diagonal()
            out = int(losses.masked_fill(~(inside & open_[classes]), torch.inf).argmin())
            inside[out], open_[classes[out]] = False, False
            edge = inverse[out].clone()
            weights = weights - edge * (weights[out] / edge[out])
            inverse = inverse - torch.outer(edge, edge / edge[out])
            inverse[out, out] = 1
        kept = pairs[inside]
        return kept, torch.bincount(kept // self._n_features, minlength=self._n_classes)

    def _improve(self, pairs: Tensor) -> Tableau:
        """Swap within classes until none helps: the best swap of each class, or the best of all.

        Swaps of several classes that are good one by one may harm each other: they are made
        together only if that is better than the best of them alone.
        """
        tableau, d = self._tableau(pairs), self._n_features
        own = torch.arange(d)
        for _ in range(MOST_SWAPS):
            self._hear()
            pairs = tableau.support[0]
            classes = pairs // d
            columns = (classes * d)[:, None] + own
            gains = tableau.swap_gains_of(self._coefficients(tableau)[None], columns[None])[0]
            best, column = gains.max(1)
            explained = float(tableau.explained[0])
            first = int(best.argmax())
            if not float(best[first]) > LEAST_GAIN * explained:
                break
            places = [
                int(best.masked_fill(classes != c, -torch.inf).argmax())
                for c in torch.unique(classes[best > LEAST_GAIN * explained]).tolist()
            ]
            together = pairs.clone()
            together[places] = columns[places, column[places]]
            reached = self._explained(together)
            if len(places) > 1 and reached < explained + float(best[first]):
                together = pairs.clone()
                together[first] = columns[first, column[first]]
                reached = self._explained(together)
            if reached <= explained:
                break
            tableau = self._tableau(together)
        return tableau

    def _coefficients(self, tableau: Tableau) -> Tensor:
        """How each kept pair depends on the features of its own class, (n, n_features)."""
        pairs, inverse, d = tableau.support[0], tableau.inverse[0], self._n_features
        found = inverse.new_empty(len(pairs), d)
        for c in range(self._n_classes):
            own = (pairs // d == c).nonzero()[:, 0]
            found[own] = inverse[own] @ self._covariance[pairs, c * d : (c + 1) * d]
        return found

    def _found(self, tableau: Tableau, sizes: Tensor) -> FoundSize:
        """The features of each class, of which the one that would cost most comes first."""
        pairs, losses, n_features = tableau.support[0], tableau.losses()[0], self._n_features
        order = losses.argsort(descending=True, stable=True)
        order = order[(pairs[order] // n_features).argsort(stable=True)]
        inside = torch.arange(int(sizes.max())) < sizes[:, None]
        support = torch.zeros(inside.shape, dtype=torch.int64)
        support[inside] = pairs[order] % n_features
        costs = torch.zeros(inside.shape, dtype=torch.float64)
        costs[inside] = losses[order]
        values = self._weight.new_zeros(len(self._scale))
        values[pairs] = tableau.weights[0] * self._scale[pairs]
        off = values - self._weight[:, :-1].flatten()
        bias = self._weight[:, -1] - self._through @ off
        weight = torch.cat([values.reshape(self._n_classes, -1), bias[:, None]], 1)
        return FoundSize(support, sizes, weight, costs)


def _distinct(starts: list[Tensor]) -> list[Tensor]:
    """Without those that are there before."""
    return [
        pairs
        for i, pairs in enumerate(starts)
        if not any(torch.equal(pairs, before) for before in starts[:i])
    ]
