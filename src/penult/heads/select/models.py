"""The quadratics that features are chosen on: by moments, and by the curvature of the softmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.samples import Samples, Standardised
from penult.heads.select.quadratic import JointCoupling, Quadratic, SampleCoupling, Units
from penult.heads.sparse_head import SparseHead
from penult.network.link import SIGMOID, SOFTMAX, probabilities

# Samples whose products are summed in float32 before they are added up in float64.
CHUNK = 8192


@dataclass(frozen=True)
class Limits:
    """What a selection by curvature weighs, and how much work it may be.

    Attributes:
        temperature: softens the dense probabilities at which the loss is expanded: a network is so
            sure of its training images that its own would leave almost no samples.
        fitted_temperature: likewise at a fitted head.
        prior: share of the second moments in the curvature, per class that shares out a
            probability: what fixes classes that no sample weighs on.
        whole_work: multiplications, 2 × n_classes × n_samples × n_features², up to which every
            class considers all features; otherwise `candidates` times as many as it keeps.
        candidates: see there; `least_candidates` at least.
        joint_weights: weights up to which the whole Hessian is taken, within `joint_work`
            multiplications: all classes are then one regression.
        coupled_logits: samples × classes up to which classes see what the others lack.
        walked: largest k that is reached feature by feature; within `walked_work`
            multiplications for the candidates that it needs. Beyond, see `shrink`.
    """

    temperature: float = 3.0
    fitted_temperature: float = 2.0
    prior: float = 1e-3
    whole_work: float = 2e11
    candidates: int = 5
    least_candidates: int = 64
    joint_weights: int = 1600
    joint_work: float = 1e11
    coupled_logits: float = 2e7
    walked: int = 64
    walked_work: float = 5e11

    def n_candidates(self, n_samples: int, n_features: int, n_classes: int, k: int) -> int:
        """How many features each class considers for k of them."""
        if 2 * n_classes * n_samples * n_features**2 <= self.whole_work:
            return n_features
        return min(n_features, max(self.candidates * k, self.least_candidates))

    def is_joint(self, n_samples: int, n_features: int, n_classes: int) -> bool:
        """Whether the whole Hessian is taken."""
        n = n_classes * (n_features + 1)
        return n <= self.joint_weights and 2 * n_samples * n**2 <= self.joint_work

    def is_coupled(self, n_samples: int, n_classes: int) -> bool:
        """Whether classes see what the others lack."""
        return n_samples * n_classes <= self.coupled_logits

    def most_walked(self, n_samples: int, n_features: int, n_classes: int) -> int:
        """The largest k that is reached feature by feature."""
        k = min(self.walked, n_features)
        while k > 1:
            m = self.n_candidates(n_samples, n_features, n_classes, k)
            if m == n_features or 2 * n_classes * n_samples * m**2 <= self.walked_work:
                break
            k -= 1
        return k


def by_moments(
    moments: Moments,
    weight: Tensor,
    bias: Tensor,
    pool: Tensor | None = None,
    link: str = SOFTMAX,
) -> Quadratic:
    """Least squares from moments alone: the dense logits, every class by itself.

    Args:
        moments: of the features.
        weight: (n_classes, n_features) of the dense head.
        bias: (n_classes,) of the dense head.
        pool: features in rising order; no others are considered.
        link: what the logits mean; softmax ignores what is common to all classes, and the logits
            are then less their mean.
    """
    n = moments.n_samples
    sums = moments.total[:, None]
    count = torch.full_like(sums[:1], float(n))
    products = (moments.products + moments.products.T) / 2
    second = torch.cat([torch.cat([products, sums], 1), torch.cat([sums.T, count], 1)]) / n
    dense = torch.cat([weight, bias[:, None]], 1).to(second)
    target = (dense - (dense.mean(0) if link == SOFTMAX else 0)) @ second
    d = moments.n_features
    names = torch.arange(d, device=second.device) if pool is None else pool.to(second.device)
    columns = torch.cat([names, names.new_tensor([d])])
    units = Units(second.new_zeros(d), second.new_ones(d))
    candidates = names.expand(len(weight), len(names))
    return Quadratic(second[columns][:, columns], target, candidates, units, least_variance=1e-8)


def at_dense(
    samples: Samples,
    k: int,
    limits: Limits,
    pool: Tensor | None = None,
    classes: Tensor | None = None,
    hear: Callable[[], None] = lambda: None,
) -> Quadratic:
    """The loss to second order at the dense head, its probabilities softened.

    With a sigmoid each class is by itself; with softmax classes are coupled.

    Args:
        samples: those that the selection reads.
        k: most features of a class.
        limits: constants.
        pool: features in rising order; no others are considered.
        classes: only these, each by itself; else all of them.
        hear: called class by class; raises an error to stop.
    """
    at = samples.coordinates
    n_classes, d = samples.n_classes, samples.n_features
    coupled = classes is None and samples.link == SOFTMAX
    p = _probabilities(at, limits.temperature, classes)
    logits = at.logits if classes is None else at.weight[classes].float() @ at.x
    dense = at.weight if classes is None else at.weight[classes]
    weights = p * (1 - p)
    names = torch.arange(d, device=at.x.device) if pool is None else pool
    m = min(len(names), limits.n_candidates(at.n_samples, d, n_classes, k))
    if m < len(names):
        candidates = _by_weight_and_by_covariance(at, dense, weights, logits, names, m)
    else:
        candidates = names.expand(len(dense), m)
    share = limits.prior / samples.n_rivals
    if coupled and m == d and limits.is_joint(at.n_samples, d, n_classes):
        whole = _whole_hessian(at, p, share, hear)
        classes = torch.arange(n_classes, device=p.device)
        hessian = whole[classes, :, classes]
        target = (hessian @ at.weight[:, :, None])[:, :, 0]
        coupling = JointCoupling(whole, at.weight)
        return Quadratic(hessian, target, candidates, units_of(samples), coupling)
    hessian = weighted_moments(at, weights, candidates, share, hear)
    target = ((weights * logits) @ at.x.T).double() / at.n_samples
    target += share * dense @ at.second_moments
    seen = SampleCoupling(at.x, p, logits) if coupled else None
    return Quadratic(hessian, target, candidates, units_of(samples), seen)


def at_head(
    samples: Samples,
    head: SparseHead,
    prior: float,
    limits: Limits,
    pool: Tensor | None = None,
    hear: Callable[[], None] = lambda: None,
) -> tuple[Quadratic, Tensor]:
    """The refit's objective to second order at a fitted head; and where its features lie.

    The curvature is taken midway between the head's probabilities and the dense head's.

    Args:
        samples: those that the selection reads.
        head: all of whose classes keep at least one feature.
        prior: weight of the pull towards the dense logits, see `penult.heads.refit.loss`.
        limits: constants.
        pool: features in rising order; no others are considered.
        hear: called class by class; raises an error to stop.

    Returns:
        The model, and places (n_classes, k) of the head's features in its candidates; where a class
        keeps fewer its first fills up.
    """
    at, temperature = samples.coordinates, limits.fitted_temperature
    weight = head.dense_weight().detach().to(at.weight)
    level = head.bias.detach().to(at.weight) + weight @ samples.mean
    own_weight = torch.cat([weight * samples.std, level[:, None]], 1)
    logits = own_weight.float() @ at.x
    own = samples.probabilities(logits / temperature)
    dense = samples.probabilities(at.logits / temperature)
    slope, p = (own - dense) * temperature, (own + dense) / 2
    weights, share = p * (1 - p), prior / samples.n_rivals
    gradient = (slope @ at.x.T).double() / at.n_samples
    gradient += share * (own_weight - at.weight) @ at.second_moments
    sizes = head.indptr.diff()
    slots = torch.arange(int(sizes.max()))
    slots = torch.where(slots < sizes[:, None], slots, 0) + head.indptr[:-1, None]
    kept = head.indices[slots].to(at.x.device)
    spread = (weights @ at.x.square().T).double() / at.n_samples + share
    scores = (gradient / spread.sqrt())[:, :-1].abs().scatter(1, kept, float("inf"))
    names = torch.arange(samples.n_features, device=kept.device) if pool is None else pool
    m = min(len(names), max(3 * kept.shape[1], 48))
    order = scores[:, names].argsort(dim=1, descending=True, stable=True)
    candidates = names[order[:, :m].sort(dim=1).values]
    hessian = weighted_moments(at, weights, candidates, share, hear)
    target = ((weights * logits) @ at.x.T).double() / at.n_samples - gradient
    target += share * own_weight @ at.second_moments
    coupling = SampleCoupling(at.x, p, logits) if samples.link == SOFTMAX else None
    model = Quadratic(hessian, target, candidates, units_of(samples), coupling)
    return model, torch.searchsorted(candidates, kept)


def units_of(samples: Samples) -> Units:
    """Units of the coordinates of some samples."""
    return Units(samples.mean, samples.std)


def weighted_moments(
    at: Standardised,
    weights: Tensor,
    candidates: Tensor,
    share: float,
    hear: Callable[[], None] = lambda: None,
) -> Tensor:
    """Weighted second moments of each class's candidates and the constant, plus a share of even.

    Args:
        at: the samples.
        weights: (n_classes, n_samples).
        candidates: (n_classes, m).
        share: how much of the unweighted second moments is added.
        hear: called class by class; raises an error to stop.

    Returns:
        (n_classes, m + 1, m + 1) float64.
    """
    d, n = at.x.shape[0] - 1, at.n_samples
    columns = torch.cat([candidates, torch.full_like(candidates[:, :1], d)], 1)
    m = columns.shape[1]
    sums = torch.empty(len(columns), m, m, dtype=torch.float64, device=at.x.device)
    for c, own in enumerate(columns):
        hear()
        even = at.second_moments if m > d else at.second_moments[own][:, own]
        torch.mul(even, share * n, out=sums[c])
        for start in range(0, n, CHUNK):
            x = at.x[:, start : start + CHUNK]
            x = x if m > d else x[own]
            sums[c] += (x * weights[c, start : start + CHUNK]) @ x.T
    return sums.div_(n)


def _whole_hessian(at: Standardised, p: Tensor, share: float, hear: Callable[[], None]) -> Tensor:
    """Hessian of all classes' weights together, (n_classes, width, n_classes, width) float64.

    Of two blocks that mirror each other one is summed. What a class has by itself is what it has
    with all others, the sign turned, since probabilities add up to 1; and a share of even moments.
    """
    n_classes, width = len(p), len(at.x)
    whole = torch.zeros(n_classes, width, n_classes, width, dtype=torch.float64, device=p.device)
    size = max(256, 2**22 // (n_classes * width))
    for start in range(0, at.n_samples, size):
        hear()
        part = slice(start, start + size)
        x = (p[:, None, part] * at.x[:, part]).flatten(0, 1)
        for c in range(n_classes - 1):
            own, later = x[c * width : (c + 1) * width], x[(c + 1) * width :]
            whole[c, :, c + 1 :] -= (own @ later.T).reshape(width, -1, width)
    whole.div_(at.n_samples)
    for c in range(n_classes):
        whole[c + 1 :, :, c] = whole[c, :, c + 1 :].permute(1, 2, 0)
        others = whole[c].sum(1)
        whole[c, :, c] = share * at.second_moments - (others + others.T) / 2
    return whole


def _probabilities(at: Standardised, temperature: float, classes: Tensor | None) -> Tensor:
    """Dense probabilities of all or some classes, (n, n_samples)."""
    if classes is None:
        return probabilities(at.logits / temperature, at.link, dim=0)
    own = (at.weight[classes].float() @ at.x).div_(temperature)
    if at.link == SIGMOID:
        return own.sigmoid_()
    return own.sub_(at.log_total(temperature)).exp_()


def _by_weight_and_by_covariance(
    at: Standardised, dense: Tensor, weights: Tensor, logits: Tensor, names: Tensor, m: int
) -> Tensor:
    """Candidates (n_classes, m) in rising order: half by dense weight, half by what they tell.

    The first half are those whose weight times deviation is largest, the second those that share
    most with the class's logit; both over the samples as the class weighs them.
    """
    x = at.x[:-1].T
    total = weights.sum(1, keepdim=True).clamp(min=1e-30)
    mean, level = (weights @ x) / total, (weights * logits).sum(1, keepdim=True) / total
    variance = ((weights @ x.square()) / total - mean.square()).clamp(min=0)
    shared = ((weights * logits) @ x) / total - mean * level
    std = variance.sqrt()
    by_weight = (dense[:, :-1].float().abs() * std)[:, names]
    told = torch.where(std > 1e-4, shared.abs() / std.clamp(min=1e-4), 0)[:, names]
    first = by_weight.topk(m // 2, dim=1).indices
    second = told.scatter(1, first, -1.0).topk(m - m // 2, dim=1).indices
    return names[torch.cat([first, second], 1).sort(dim=1).values]


def check_moments(moments: Moments, weight: Tensor) -> None:
    """Refuse moments that do not fit a dense weight, that hold NaN, or of fewer than 2 samples."""
    expected = (moments.n_classes, moments.n_features)
    if weight.shape != expected:
        raise InputError(
            f"expected a weight of shape {expected} (n_classes, n_features) for these moments, "
            f"found {tuple(weight.shape)}"
        )
    if not bool(weight.isfinite().all()):
        raise InputError("the dense head's weight holds NaN or infinite values")
    if not bool(moments.products.isfinite().all() and moments.sums.isfinite().all()):
        raise InputError("the moments hold NaN or infinite values: the features did")
    if moments.n_samples < 2:
        raise InputError(f"expected moments of at least 2 samples, found {moments.n_samples}")
