"""Alternating selection: class after class, each knowing what the others still miss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.heads.refit.distillation import Distillation
from penult.heads.refit.weights import RefitResult, fit
from penult.heads.select.budget import share_out
from penult.heads.select.greedy import improve, support_path
from penult.heads.select.tableau import Tableau
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces

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
        support: (n_classes, largest k) places in the candidates; after a sweep those whose loss
            would cost most come first. A class reads the first `sizes` of its row.
        sizes: (n_classes,) int64.
        costs: (n_classes, largest k), what the second-order loss of each kept feature would be.
        change: (n_classes, n_samples), e of the subspaces' best weights.
    """

    def __init__(
        self, at: Expansion, support: Tensor | None = None, sizes: Tensor | None = None
    ) -> None:
        self.at = at
        n_classes, device = len(at.p), at.p.device
        total = at.sums[:, -1, -1].clamp(min=1e-300)
        self._bias = total
        self._edge = at.sums[:, :-1, -1]
        shared = self._edge[:, :, None] * (self._edge / total[:, None])[:, None]
        inner = at.sums[:, :-1, :-1] - shared
        variance = inner.diagonal(dim1=1, dim2=2)
        known = variance > 1e-9 * total[:, None]
        self._scale = torch.where(known, variance, 1).rsqrt() * known
        self._covariance = inner * self._scale[:, None] * self._scale[:, :, None]
        self.change = torch.zeros_like(at.p)
        self._mean_change = torch.zeros_like(at.p[0])
        none = torch.zeros(n_classes, 0, dtype=torch.int64, device=device)
        self.support = none if support is None else support
        self.sizes = (
            torch.full((n_classes,), self.support.shape[1], device=device)
            if sizes is None
            else sizes
        )
        self.costs = torch.zeros_like(self.support, dtype=torch.float64)

    def path(self, ks: Sequence[int]) -> dict[int, tuple[Tensor, Tensor]]:
        """Supports of each size and what they explain, every class by itself."""
        products = self._products(torch.arange(len(self.support), device=self.support.device))[0]
        found = {}
        for k, support in support_path(self._covariance, products, ks).items():
            found[k] = support, Tableau.of(self._covariance, products, support).explained
        return found

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
        n_classes, n_changed = len(self.support), 0
        for turn in range(min(TURNS, n_classes)):
            classes = torch.arange(turn, n_classes, TURNS, device=self.support.device)
            products, level = self._products(classes)
            for k in torch.unique(self.sizes[classes]).tolist():
                of = (self.sizes[classes] == k).nonzero()[:, 0]
                n_changed += self._swap(classes[of], products[of], level[of], k)
        return n_changed

    def _swap(self, classes: Tensor, products: Tensor, level: Tensor, k: int) -> int:
        """The turn of some classes with k features each; how many of them changed."""
        before = self.support[classes, :k]
        tableau = Tableau.of(self._covariance[classes], products, before.clone())
        improve(tableau)
        losses, order = tableau.losses().sort(dim=1, descending=True, stable=True)
        self.support[classes, :k] = tableau.support.gather(1, order)
        self.costs[classes, :k] = losses
        self._put(classes, tableau, level)
        return int((tableau.support.sort(1).values != before.sort(1).values).any(1).sum())

    def subspaces(self) -> Subspaces:
        """The features, of each class the one whose loss would cost most first."""
        kept = self.at.candidates.gather(1, self.support)
        inside = torch.arange(kept.shape[1], device=kept.device) < self.sizes[:, None]
        indptr = torch.cat([self.sizes.new_zeros(1), self.sizes.cumsum(0)])
        return Subspaces(indptr.cpu(), kept[inside].cpu(), len(self.at.features) - 1)

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


def is_affordable(n_samples: int, n_features: int, n_classes: int) -> bool:
    """Whether each class can be told what the others miss."""
    return n_samples * n_classes <= MOST_LOGITS and n_samples * n_features <= MOST_FEATURES


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
    expansion = expand(loss, candidates, temperature)
    found = {}
    for k, (support, _) in Alternation(expansion).path(ks).items():
        alternation = Alternation(expansion, support)
        alternation.improve()
        found[k] = alternation.subspaces()
    return found


def select_mean_alternating(
    loss: Distillation, ks: Sequence[int], candidates: Tensor, temperature: float
) -> dict[int, Subspaces]:
    """The same for a mean of k features, more for the classes whose loss falls most by them.

    Sizes follow from what each class explains by itself, see `budget.share_out`.
    """
    expansion = expand(loss, candidates, temperature)
    most = min(candidates.shape[1], 4 * (max(ks) + 1))
    path = Alternation(expansion).path(range(1, most + 1))
    explained = torch.stack([value for _, value in path.values()], 1)
    found = {}
    for k in ks:
        sizes = share_out(explained, k).to(candidates.device)
        support = path[most][0].clone()
        for size in torch.unique(sizes).tolist():
            support[sizes == size, :size] = path[size][0][sizes == size]
        alternation = Alternation(expansion, support[:, : int(sizes.max())], sizes)
        alternation.improve()
        found[k] = alternation.subspaces()
    return found


def select_shared_alternating(
    loss: Distillation, k: int, n_shared: int, candidates: Tensor, temperature: float
) -> Subspaces:
    """The same where all classes together may use `n_shared` different features.

    Backward elimination: the features that cost least over all classes are barred, a quarter of
    those in use at most, and all classes select anew, until few enough are in use.
    """
    while True:
        expansion = expand(loss, candidates, temperature)
        alternation = Alternation(expansion, Alternation(expansion).path([k])[k][0])
        alternation.improve()
        kept = expansion.candidates.gather(1, alternation.support)
        costs = alternation.costs.new_zeros(loss.n_features)
        costs.index_add_(0, kept.flatten(), alternation.costs.flatten())
        n_used = len(torch.unique(kept))
        if n_used <= n_shared:
            return alternation.subspaces()
        n_left = max(n_shared, min(n_used - 1, 3 * n_used // 4))
        allowed = costs.argsort(descending=True, stable=True)[:n_left].sort().values
        candidates = allowed.expand(loss.n_classes, -1).contiguous()


def expand(loss: Distillation, candidates: Tensor, temperature: float) -> Expansion:
    """The expansion at the dense head, its probabilities softened."""
    features, logits = _samples(loss)
    p = (logits / temperature).softmax(0)
    return Expansion.of(features, p, torch.zeros_like(p), logits - logits.mean(0), candidates)


def relinearise(
    loss: Distillation,
    result: RefitResult,
    *,
    least_loss: float = LEAST_LOSS,
    max_rounds: int = 2,
    allowed: Tensor | None = None,
) -> RefitResult:
    """Swap features in the expansion at a refitted head itself, and refit, while the loss falls.

    The expansion is that of the loss at a temperature of 2, midway between the head's and the
    dense head's probabilities: training images are too sure to tell much at 1. The result comes
    back as it is where its loss is below `least_loss` and where there are too many samples and
    classes. With `allowed`, features in rising order, no others come in.
    """
    sizes = result.head.subspaces.indptr.diff()
    if result.loss <= least_loss or not is_affordable(*loss.sizes) or int(sizes.min()) == 0:
        return result
    features, dense = _samples(loss)
    best = result
    for _ in range(max_rounds):
        subspaces = _improved(loss, best.head, features, dense, allowed)
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
    loss: Distillation, head: SparseHead, features: Tensor, dense: Tensor, allowed: Tensor | None
) -> Subspaces | None:
    """Subspaces after swaps in the expansion at a head; None where no swap helps."""
    weight = head.dense_weight().detach().to(dense.device)
    level = head.bias.detach().to(dense.device) + weight @ loss.mean.float()
    logits = torch.cat([weight * loss.std.float(), level[:, None]], 1) @ features
    own = (logits / TEMPERATURE).softmax(0)
    targets = (dense / TEMPERATURE).softmax(0)
    slope = (own - targets).mul_(TEMPERATURE)
    sizes = head.indptr.diff().to(dense.device)
    places = torch.arange(int(sizes.max()), device=dense.device)
    # Where a class reads fewer features its first stands in for those it lacks.
    places = torch.where(places < sizes[:, None], places, 0) + head.indptr[:-1, None].to(sizes)
    kept = head.indices.to(dense.device)[places]
    candidates = choose_candidates((slope @ features[:-1].T).abs(), kept, allowed=allowed)
    expansion = Expansion.of(features, (own + targets) / 2, slope, logits, candidates)
    alternation = Alternation(expansion, torch.searchsorted(candidates, kept), sizes)
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


def n_considered(n_features: int, k: int) -> int:
    """How many candidates a class has for k features."""
    return n_features if n_features <= ALL_FEATURES else min(n_features, max(4 * k, 32))


def choose_candidates(
    scores: Tensor, kept: Tensor, most: int | None = None, allowed: Tensor | None = None
) -> Tensor:
    """Features that each class considers, (n_classes, m), in rising order.

    All up to 256 features; else the kept ones and those that score highest, 4 × k or 32 at least.

    Args:
        scores: (n_classes, n_features).
        kept: (n_classes, k) features that must be among them.
        most: bound on m.
        allowed: features in rising order; no others are considered.
    """
    scores = scores.scatter(1, kept, float("inf"))
    names = torch.arange(scores.shape[1], device=kept.device) if allowed is None else allowed
    n = len(names)
    m = n_considered(n, kept.shape[1])
    m = m if most is None else min(m, most)
    if m == n:
        return names.expand(len(scores), m).contiguous()
    order = scores[:, names].argsort(dim=1, descending=True, stable=True)
    return names[order[:, :m].sort(dim=1).values]
