"""Alternating selection: class after class, each knowing what the others still miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.distill import Distillation
from penult.head import SparseHead
from penult.refit import RefitResult, fit
from penult.select import Subspaces
from penult.sparse_regression import as_subspaces, improve, support_path
from penult.tableau import Tableau

# Samples × classes, and samples × features, up to which every class is told what the others miss.
MOST_LOGITS, MOST_FEATURES = 20_000_000, 200_000_000
# Classes × samples × candidates² that are worth one quadratic.
WORK = 2e10
# Up to this many features each class considers all of them.
ALL_FEATURES = 256
# Classes are taken in so many turns; those of one turn do not see each other's change.
TURNS = 10
# Softens the probabilities of the expansion at a refitted head.
TEMPERATURE = 2.0
# Below this loss, in nats, the expansion at the dense head has said it all.
LEAST_LOSS = 0.02
# Residual at which a refit tells whether swaps help.
TRIAL = 1e-3


@dataclass(frozen=True, eq=False)
class Expansion:
    """Second-order model of a softmax loss at given logits, as one regression per class.

    With e the change of the logits of a sample, p its probabilities and r the slope, the loss is
    `r·e + (Σ p e² − (Σ p e)²) / 2`. For one class, the others' e held fixed, that is a weighted
    regression: sample i weighs p (1 − p), and `(Σ p e)` of the other classes moves its target.

    Features are less their mean, in units of their deviation; the last one is constant, 1.

    Attributes:
        features: (n_features + 1, n_samples).
        p: (n_classes, n_samples).
        slope: (n_classes, n_samples), r.
        logits: (n_classes, n_samples), where the loss is expanded.
        taken: (n_classes, n_samples), how many samples each stands for in its class's regression;
            0 where it is left out.
        candidates: (n_classes, m), in rising order.
        sums: (n_classes, m + 1, m + 1) float64, Σ weight · x xᵀ of the candidates.
    """

    features: Tensor
    p: Tensor
    slope: Tensor
    logits: Tensor
    taken: Tensor
    candidates: Tensor
    sums: Tensor

    @classmethod
    def of(
        cls, features: Tensor, p: Tensor, slope: Tensor, logits: Tensor, candidates: Tensor
    ) -> Expansion:
        """Expand; where all samples are too much work, each class takes those that weigh most."""
        n_classes, n = p.shape
        m = candidates.shape[1]
        part = WORK / (n_classes * m * m * n)
        weights = p * (1 - p)
        if part >= 0.5:
            taken = torch.ones((), device=p.device).expand_as(p)
        else:
            taken = _taken(weights, min(n, max(2048, int(n * part))))
        weights = weights * taken
        ones = torch.full_like(candidates[:, :1], len(features) - 1)
        columns = torch.cat([candidates, ones], 1)
        samples = features.T.contiguous()
        sums = torch.empty(n_classes, m + 1, m + 1, dtype=torch.float64, device=p.device)
        for c in range(n_classes):
            at = weights[c].nonzero()[:, 0]
            x = samples if len(at) == n else samples[at]
            x = x if m + 1 == len(features) else x[:, columns[c]]
            sums[c] = (x * weights[c, at, None]).T @ x
        return cls(features, p, slope, logits, taken, candidates, sums)


class Alternation:
    """Subspaces of all classes in an expansion, improved in turns.

    Attributes:
        support: (n_classes, k) places in the candidates; after a sweep those whose loss would cost
            most come first.
        change: (n_classes, n_samples), e of the subspaces' best weights.
    """

    def __init__(self, at: Expansion, support: Tensor | None = None) -> None:
        self.at = at
        n_classes = len(at.p)
        total = at.sums[:, -1, -1].clamp(min=1e-300)
        self._bias = total
        self._edge = at.sums[:, :-1, -1]
        inner = (
            at.sums[:, :-1, :-1] - self._edge[:, :, None] * (self._edge / total[:, None])[:, None]
        )
        variance = inner.diagonal(dim1=1, dim2=2)
        known = variance > 1e-9 * total[:, None]
        self._scale = torch.where(known, variance, 1).rsqrt() * known
        self._covariance = inner * self._scale[:, None] * self._scale[:, :, None]
        self.change = torch.zeros_like(at.p)
        self._mean_change = torch.zeros_like(at.p[0])
        none = torch.zeros(n_classes, 0, dtype=torch.int64, device=at.p.device)
        self.support = none if support is None else support

    def path(self, ks: Sequence[int]) -> dict[int, Tensor]:
        """Supports of each size, every class by itself, the others as they are."""
        everyone = torch.arange(len(self.support), device=self.support.device)
        return support_path(self._covariance, self._products(everyone)[0], ks)

    def improve(self, max_sweeps: int = 3) -> int:
        """Sweep until no class changes, `max_sweeps` times at most; how many changes there were."""
        n_changed = 0
        for _ in range(max_sweeps):
            found = self.sweep()
            n_changed += found
            if found == 0:
                break
        return n_changed

    def sweep(self) -> int:
        """Let each class swap features until none helps; how many classes changed."""
        n_classes = len(self.support)
        n_changed = 0
        for turn in range(min(TURNS, n_classes)):
            classes = torch.arange(turn, n_classes, TURNS, device=self.support.device)
            products, level = self._products(classes)
            tableau = Tableau.of(self._covariance[classes], products, self.support[classes].clone())
            improve(tableau)
            before = self.support[classes].sort(1).values
            n_changed += int((tableau.support.sort(1).values != before).any(1).sum())
            order = tableau.losses().argsort(dim=1, descending=True, stable=True)
            self.support[classes] = tableau.support.gather(1, order)
            self._put(classes, tableau, level)
        return n_changed

    def subspaces(self) -> Subspaces:
        """The features, of each class the one whose loss would cost most first."""
        kept = self.at.candidates.gather(1, self.support)
        return as_subspaces(kept, len(self.at.features) - 1)

    def _products(self, classes: Tensor) -> tuple[Tensor, Tensor]:
        """Products of the candidates with the classes' targets, and Σ weight · target."""
        at = self.at
        p, change = at.p[classes], self.change[classes]
        pull = at.slope[classes] - p * (self._mean_change - p * change)
        target = (p * (1 - p) * at.logits[classes] - pull) * at.taken[classes]
        found = (target @ at.features.T).double()
        level = found[:, -1]
        found = found.gather(1, at.candidates[classes])
        found -= self._edge[classes] * (level / self._bias[classes])[:, None]
        return found * self._scale[classes], level

    def _put(self, classes: Tensor, tableau: Tableau, level: Tensor) -> None:
        """Take over the weights of some classes."""
        at, places = self.at, tableau.support
        values = tableau.weights * self._scale[classes].gather(1, places)
        shift = (self._edge[classes].gather(1, places) * values).sum(1)
        weight = values.new_zeros(len(classes), len(at.features))
        weight.scatter_(1, at.candidates[classes].gather(1, places), values)
        weight[:, -1] = (level - shift) / self._bias[classes]
        change = weight.to(at.features.dtype) @ at.features - at.logits[classes]
        self._mean_change += (at.p[classes] * (change - self.change[classes])).sum(0)
        self.change[classes] = change


def is_affordable(loss: Distillation) -> bool:
    """Whether each class can be told what the others miss."""
    n = loss.n_samples
    return n * loss.n_classes <= MOST_LOGITS and n * loss.n_features <= MOST_FEATURES


def select_alternating(
    loss: Distillation,
    ks: Sequence[int],
    candidates: Tensor,
    temperature: float,
) -> dict[int, Subspaces]:
    """Features of all classes that keep the softmax nearest to the dense head's, to second order.

    Each class first selects by itself; then classes swap features in turns, each making good what
    the others still miss.
    """
    features, logits = _samples(loss)
    p = (logits / temperature).softmax(0)
    logits = logits - logits.mean(0)
    expansion = Expansion.of(features, p, torch.zeros_like(p), logits, candidates)
    found = {}
    for k, support in Alternation(expansion).path(ks).items():
        alternation = Alternation(expansion, support)
        alternation.improve()
        found[k] = alternation.subspaces()
    return found


def relinearise(
    loss: Distillation,
    result: RefitResult,
    *,
    least_loss: float = LEAST_LOSS,
    max_rounds: int = 2,
) -> RefitResult:
    """Swap features in the expansion at a refitted head itself, and refit, while the loss falls.

    The expansion is that of the loss at a temperature of 2, midway between the head's and the
    dense head's probabilities: training images are too sure to tell much at 1. The result comes
    back as it is where its loss is below `least_loss`, where classes keep different numbers of
    features, and where there are too many samples and classes.
    """
    sizes = result.head.subspaces.indptr.diff()
    k = int(sizes[0])
    if result.loss <= least_loss or not is_affordable(loss) or bool((sizes != k).any()):
        return result
    features, dense = _samples(loss)
    best = result
    for _ in range(max_rounds):
        subspaces = _improved(loss, best.head, features, dense, k)
        if subspaces is None:
            break
        moved = fit(loss, subspaces, start=best.head, tolerance=max(TRIAL, result.tolerance))
        if moved.loss >= best.loss * (1 - 1e-3):
            break
        best = moved
    if best.residual <= result.tolerance:
        return best
    return fit(loss, best.head.subspaces, start=best.head, tolerance=result.tolerance)


def _improved(
    loss: Distillation, head: SparseHead, features: Tensor, dense: Tensor, k: int
) -> Subspaces | None:
    """Subspaces after swaps in the expansion at a head; None where no swap helps."""
    weight = head.dense_weight().detach().to(dense.device)
    level = head.bias.detach().to(dense.device) + weight @ loss.mean.float()
    logits = torch.cat([weight * loss.std.float(), level[:, None]], 1) @ features
    own = (logits / TEMPERATURE).softmax(0)
    targets = (dense / TEMPERATURE).softmax(0)
    slope = (own - targets).mul_(TEMPERATURE)
    kept = head.indices.to(dense.device).reshape(-1, k)
    candidates = choose_candidates((slope @ features[:-1].T).abs(), kept)
    expansion = Expansion.of(features, (own + targets) / 2, slope, logits, candidates)
    alternation = Alternation(expansion, torch.searchsorted(candidates, kept))
    return alternation.subspaces() if alternation.improve() else None


def _samples(loss: Distillation) -> tuple[Tensor, Tensor]:
    """Standardised features and a constant (n_features + 1, n); dense logits (n_classes, n)."""
    features, logits = [], []
    for tile in loss.tiles():
        z = loss.standardised(tile)
        features.append(torch.cat([z, z.new_ones(1, z.shape[1])]))
        logits.append(loss.dense_logits(tile.features))
    return torch.cat(features, 1), torch.cat(logits, 1)


def _taken(weights: Tensor, n_taken: int) -> Tensor:
    """Half the samples with the largest weights, and an even part that stands for the rest."""
    n = weights.shape[1]
    top = weights.topk(n_taken // 2, dim=1)
    taken = torch.zeros_like(weights)
    stride = max(1, n // (n_taken - n_taken // 2))
    taken[:, ::stride] = float(stride)
    return taken.masked_fill_(weights >= top.values[:, -1:], 1.0)


def choose_candidates(scores: Tensor, kept: Tensor, most: int | None = None) -> Tensor:
    """Features that each class considers, (n_classes, m), in rising order.

    All up to 256 features; else the kept ones and those that score highest, 4 × k or 32 at least.

    Args:
        scores: (n_classes, n_features).
        kept: (n_classes, k) features that must be among them.
        most: bound on m.
    """
    n_features, k = scores.shape[1], kept.shape[1]
    m = n_features if n_features <= ALL_FEATURES else min(n_features, max(4 * k, 32))
    m = m if most is None else min(m, most)
    if m == n_features:
        return torch.arange(m, device=kept.device).expand(len(scores), m).contiguous()
    order = scores.scatter(1, kept, float("inf")).argsort(dim=1, descending=True, stable=True)
    return order[:, :m].sort(dim=1).values
