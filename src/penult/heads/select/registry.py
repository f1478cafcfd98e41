"""The registry of selections: how the features of each class are chosen."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

import torch
from torch import Tensor

from penult.features.influence import SCORES, Evidence, influence
from penult.features.moments import Moments
from penult.heads.refit.softmax import fit
from penult.heads.samples import Samples
from penult.heads.select.budget import Budget, pool_left, read_all
from penult.heads.select.joint import JointPath
from penult.heads.select.models import Limits, at_dense, at_head, by_moments, check_moments
from penult.heads.select.quadratic import FoundSize, JointCoupling, Quadratic
from penult.heads.select.shrink import own_losses, shrink
from penult.heads.select.walk import Tick, Walk, forward, walk_down
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import top_k

# Numbers of the curvatures of one group of classes, where each class is by itself.
GROUP = 2**24


@dataclass(frozen=True, eq=False)
class Search:
    """What a selection may read.

    Attributes:
        samples: what heads are fitted to.
        evidence: sums for the scores of influence, made when they are first asked for.
        moments: of the samples, likewise.
        budget: of the heads.
        limits: constants.
        tick: called after each turn of classes; raises an error to stop.
        fit_tick: likewise before each pass of a refit.
        hear: called within long steps, and no sign of progress; raises an error to stop.
    """

    samples: Samples
    evidence: Callable[[], Evidence]
    moments: Callable[[], Moments]
    budget: Budget = field(default_factory=Budget)
    limits: Limits = field(default_factory=Limits)
    tick: Tick = lambda: None
    fit_tick: Tick = lambda: None
    hear: Tick = lambda: None


Heads = Iterator[tuple[int, SparseHead]]


@dataclass(frozen=True)
class Selection:
    """A way to choose features.

    Attributes:
        choose: gives heads of the sizes asked for, the largest first.
        takes_budgets: whether it can share out a mean k, or keep to a pool.
        improve: a head with better features, made of a refitted one; None where there is none.
    """

    choose: Callable[[Search, list[int]], Heads]
    takes_budgets: bool = False
    improve: Callable[[Search, SparseHead, float], SparseHead | None] | None = None


def curvature(search: Search, ks: list[int]) -> Heads:
    """Features that keep the softmax nearest to the dense head's, to second order."""
    samples = search.samples.few
    sizes = samples.n_samples, samples.n_features, samples.n_classes
    most = search.limits.most_walked(*sizes)
    # With a sigmoid classes have nothing to do with each other, but the sizes are the same.
    coupled = search.limits.is_coupled(samples.n_samples, samples.n_classes)
    every = torch.arange(samples.n_classes)

    def models(k: int, pool: Tensor | None) -> Iterator[Quadratic]:
        if coupled:
            yield at_dense(samples, k, search.limits, pool, hear=search.hear)
            return
        m = search.limits.n_candidates(*sizes, k) + 1
        for classes in torch.split(every, max(1, GROUP // m**2)):
            yield at_dense(samples, k, search.limits, pool, classes, search.hear)

    def refit(head: SparseHead) -> SparseHead:
        return fit(samples, head.subspaces, start=head, tick=search.fit_tick).head

    yield from _heads(search, ks, most, models, refit)


def moments(search: Search, ks: list[int]) -> Heads:
    """Features whose best linear fit to the centred dense logits errs least, from moments alone."""
    found, weight, bias = search.moments(), search.samples.weight, search.samples.bias
    check_moments(found, weight)

    def models(k: int, pool: Tensor | None) -> Iterator[Quadratic]:
        yield by_moments(found, weight, bias, pool, search.samples.link)

    yield from _heads(search, ks, search.limits.walked, models, lambda head: head)


def score(name: str, search: Search, ks: list[int]) -> Heads:
    """Features with the largest influence score, with the dense weights."""
    samples, evidence = search.samples, search.evidence()
    for k in reversed(ks):
        kept = top_k(influence(name, evidence, k), k)
        yield k, SparseHead.from_dense(samples.weight.cpu(), samples.bias.cpu(), kept)


Models = Callable[[int, Tensor | None], Iterator[Quadratic]]


def _heads(
    search: Search,
    ks: list[int],
    most_walked: int,
    models: Models,
    refit: Callable[[SparseHead], SparseHead],
) -> Heads:
    """Heads on quadratics within a budget: the largest by shrinking, the others by walking."""
    budget = search.budget
    pool = None
    if budget.pool is not None:
        pool = _pool(search, min(ks[-1], most_walked), budget.pool, models)
    large = [k for k in reversed(ks) if k > most_walked]
    found: Heads = iter(())
    if large:
        found = shrink(search.samples.few, large, refit, mean=budget.mean, pool=pool)
    small = [k for k in ks if k <= most_walked]
    if small:
        found = chain(found, _walked(search, small, models, pool))
    for k, head in found:
        yield k, head if pool is None else _within(search, head, pool)


def _within(search: Search, head: SparseHead, pool: Tensor) -> SparseHead:
    """A head that reads the whole of an exact pool, with dense weights for what comes in."""
    if not search.budget.exact:
        return head
    subspaces = read_all(head.subspaces, pool.cpu(), *own_losses(search.samples.few, head))
    weight, kept = search.samples.weight.cpu(), head.subspaces.indices == subspaces.indices
    dense = weight[subspaces.classes(), subspaces.indices]
    values = torch.where(kept, head.values.detach(), dense)
    return SparseHead(subspaces, values, head.bias.detach())


def _walked(search: Search, ks: list[int], models: Models, pool: Tensor | None) -> Heads:
    """Heads of each size by one path over k."""
    budget, n_features = search.budget, search.samples.n_features
    most = budget.most(ks[-1], n_features)
    passed = range(ks[-1], ks[0] - 1, -1)
    groups = models(most, pool)
    model = next(groups)
    if model.n_classes == search.samples.n_classes:
        start = forward(model, most, search.tick)
        sizes = budget.sizes(passed, start.explained)
        if isinstance(model.coupling, JointCoupling):
            found = JointPath(model.coupling, search.hear).down(sizes, ks, search.tick)
        else:
            found = walk_down(model, start, sizes, ks, search.tick)
        for k, one in found:
            yield k, one.head(model)
        return
    yield from _by_groups(search, ks, models, pool)


def _by_groups(search: Search, ks: list[int], models: Models, pool: Tensor | None) -> Heads:
    """The same where classes are by themselves and are taken in groups, to save memory."""
    budget, n_features = search.budget, search.samples.n_features
    most = budget.most(ks[-1], n_features)
    explained = torch.zeros(search.samples.n_classes, 2)
    if budget.mean:
        explained = torch.cat(
            [forward(model, most, search.tick).explained for model in models(most, pool)]
        )
    sizes = budget.sizes(range(ks[-1], ks[0] - 1, -1), explained)
    parts: dict[int, list[FoundSize]] = {k: [] for k in reversed(ks)}
    n_done = 0
    for model in models(most, pool):
        own = slice(n_done, n_done + model.n_classes)
        n_done += model.n_classes
        start = forward(model, most, search.tick)
        within = {k: size[own] for k, size in sizes.items()}
        for k, found in walk_down(model, start, within, ks, search.tick):
            parts[k].append(found)
    for k in parts:
        yield k, FoundSize.joined(parts[k]).head(model)


def _pool(search: Search, k: int, size: int, models: Models) -> Tensor:
    """Features that all classes share, at most or exactly `size`, in rising order.

    Backward: all classes choose, the features that cost least over all of them go, a quarter of
    those in use at most, and all choose anew.
    """
    pool: Tensor | None = None
    n_features = search.samples.n_features
    while True:
        parts: list[FoundSize] = []
        for model in models(k, pool):
            start = forward(model, k, search.tick)
            walk = Walk(model, start.places, torch.full((model.n_classes,), k), search.tick)
            walk.sweep(swap=False)
            walk.settle()
            parts.append(walk.found())
        found = FoundSize.joined(parts)
        used = torch.unique(found.support)
        if len(used) <= size:
            break
        pool = pool_left(found.support, found.costs, n_features, size)
    if len(used) < size and search.budget.exact:
        scores = search.samples.few.coordinates.weight[:, :-1].square().sum(0)
        scores[used] = float("inf")
        used = torch.sort(scores.argsort(descending=True, stable=True)[:size]).values
    return torch.as_tensor(used)


def improve(search: Search, head: SparseHead, prior: float) -> SparseHead | None:
    """Swap features in the expansion at a refitted head itself; None where no swap helps."""
    samples = search.samples.few
    sizes = head.indptr.diff()
    n_samples, n_classes = search.samples.n_samples, samples.n_classes
    affordable = search.limits.is_coupled(samples.n_samples, n_classes)
    few = float(sizes.double().mean()) + 1 > n_samples / n_classes
    if int(sizes.min()) == 0 or int(sizes.max()) > search.limits.walked or few or not affordable:
        return None
    bounded = search.budget.pool is not None
    pool = torch.unique(head.indices) if bounded else None
    model, places = at_head(samples, head, prior, search.limits, pool, search.hear)
    walk = Walk(model, places, sizes.clone(), search.tick)
    if walk.sweep() == 0:
        return None
    better = walk.found().head(model)
    return better if pool is None else _within(search, better, pool)


SELECTIONS: dict[str, Selection] = {
    "curvature": Selection(curvature, takes_budgets=True, improve=improve),
    "moments": Selection(moments, takes_budgets=True),
    **{name: Selection(partial(score, name)) for name in SCORES},
}
