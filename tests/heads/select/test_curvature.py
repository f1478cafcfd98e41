from __future__ import annotations

from collections.abc import Callable
from itertools import combinations, product

import pytest
import torch
from torch import Tensor

from penult.heads.refit.loss import pull_of
from penult.heads.refit.softmax import fit
from penult.heads.samples import Samples
from penult.heads.select import registry
from penult.heads.select.budget import Budget
from penult.heads.select.models import Limits, at_dense, at_head
from penult.heads.select.quadratic import JointCoupling, SampleCoupling
from penult.heads.select.registry import Search, improve
from penult.heads.select.walk import Walk, forward
from penult.heads.subspaces import Subspaces, top_k
from searches import chosen, kept, search

Problem = tuple[Tensor, Tensor, Tensor, Tensor]


def problem(
    seed: int = 0, n_samples: int = 500, n_features: int = 8, n_classes: int = 4
) -> Problem:
    """Correlated non-negative features, labels, and a dense head, weight and bias."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_samples, n_features, generator=generator).abs()
    z = z @ (torch.eye(n_features) + 0.3 * torch.rand(n_features, n_features, generator=generator))
    weight = torch.randn(n_classes, n_features, generator=generator) * 2
    bias = torch.randn(n_classes, generator=generator)
    return z, (z @ weight.T + bias).argmax(1), weight, bias


def planted(
    seed: int, n_samples: int, n_features: int, n_classes: int, k: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A dense head with k large weights per class, and which they are (n_classes, k), sorted."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_samples, n_features, generator=generator).abs()
    support = torch.rand(n_classes, n_features, generator=generator).topk(k, dim=1).indices
    signs = torch.tensor([1.0, -1.0]).repeat((k + 1) // 2)[:k]
    values = (torch.rand(n_classes, k, generator=generator) + 0.5) * signs
    weight = torch.randn(n_classes, n_features, generator=generator) * 1e-3
    weight.scatter_add_(1, support, values)
    return z, (z @ weight.T).argmax(1), weight, support.sort(1).values


JOINT, COUPLED = Limits(), Limits(joint_weights=0)
ALONE = Limits(joint_weights=0, coupled_logits=0)
WAYS = pytest.mark.parametrize("limits", [JOINT, COUPLED, ALONE], ids=["joint", "coupled", "alone"])


def expansion(samples: Samples, temperature: float = 3.0) -> Callable[[Tensor], float]:
    """The second-order loss at the dense head of a change of the logits, sample by sample."""
    p = (samples.coordinates.logits.double() / temperature).softmax(0)

    def value(change: Tensor) -> float:
        total = 0.0
        for i in range(change.shape[1]):
            e = change[:, i].double()
            h = torch.diag(p[:, i]) - torch.outer(p[:, i], p[:, i])
            total += float(e @ h @ e) / 2
        return total / change.shape[1]

    return value


def least(samples: Samples, subspaces: Subspaces, share: float, temperature: float = 3.0) -> float:
    """Least second-order loss at the dense head on a support, by a plain solve with all weights."""
    at = samples.coordinates
    x, n_classes = at.x.double(), samples.n_classes
    width = len(x)
    p = (at.logits.double() / temperature).softmax(0)
    h = torch.zeros(n_classes, width, n_classes, width, dtype=torch.float64)
    for a, b in product(range(n_classes), repeat=2):
        w = p[a] * (float(a == b) - p[b])
        h[a, :, b] = (x * w) @ x.T / x.shape[1] + float(a == b) * share * (x @ x.T) / x.shape[1]
    h = h.reshape(n_classes * width, -1)
    free = torch.zeros(n_classes, width, dtype=torch.bool)
    free[:, -1] = True
    free[subspaces.classes(), subspaces.indices] = True
    f = free.flatten()
    dense = at.weight.flatten()
    off = -dense
    inner = h[f][:, f] + 1e-12 * torch.eye(int(f.sum()), dtype=torch.float64)
    off[f] = torch.linalg.solve(inner, h[f][:, ~f] @ dense[~f])
    return float(off @ h @ off) / 2


@pytest.mark.parametrize("limits", [JOINT, COUPLED], ids=["joint", "coupled"])
def test_weights_after_a_turn_are_the_best_of_their_class(limits: Limits) -> None:
    """Stationary: moving a weight of the class that moved last raises the second-order loss."""
    found = search(*problem())
    model = at_dense(found.samples, 2, limits)
    assert isinstance(model.coupling, JointCoupling if limits is JOINT else SampleCoupling)
    places = torch.tensor([[0, 1], [2, 3], [4, 5], [1, 6]])
    walk = Walk(model, places, torch.full((4,), 2), lambda: None)
    walk.sweep(swap=False)
    last = 3  # of the first order: nobody has moved since
    at = found.samples.coordinates
    value = expansion(found.samples)
    share = limits.prior / 4

    def total(weight: Tensor) -> float:
        own = weight[last] - at.weight[last]
        change = (weight - at.weight) @ at.x.double()
        return value(change) + share * float(own @ at.second_moments @ own) / 2

    weight = walk.weight[:4].clone()
    best = total(weight)
    for j in [*walk.found().support[last].tolist(), 8]:
        for step in (-0.02, 0.02):
            moved = weight.clone()
            moved[last, j] += step
            assert total(moved) > best - 1e-7


@pytest.mark.parametrize("seed", range(3))
def test_the_joint_path_has_no_better_swap_even_with_all_weights_anew(seed: int) -> None:
    found = search(*problem(seed, n_classes=3, n_features=7))
    share = JOINT.prior / 3
    for subspaces in chosen("curvature", found, [1, 2, 4]).values():
        loss = least(found.samples, subspaces, share)
        own = kept(subspaces)
        for c, features in enumerate(own):
            for out in features:
                for new in set(range(7)) - set(features):
                    swapped = [list(other) for other in own]
                    swapped[c] = [*(j for j in features if j != out), new]
                    assert least(found.samples, Subspaces.of(swapped, 7), share) >= 0.999 * loss


def test_the_joint_path_against_exhaustive_search() -> None:
    share, ranks = JOINT.prior / 3, []
    sets = [list(features) for features in combinations(range(4), 2)]
    for seed in range(4):
        found = search(*problem(seed, n_samples=100, n_features=4, n_classes=3))
        best = least(found.samples, chosen("curvature", found, [2])[2], share)
        values = [
            least(found.samples, Subspaces.of(list(three), 4), share)
            for three in product(sets, repeat=3)
        ]
        ranks.append(sum(value < best * (1 - 1e-3) for value in values))
    assert sum(rank <= 1 for rank in ranks) >= 3
    assert max(ranks) <= 20


@pytest.mark.parametrize("seed", range(2))
def test_the_refitted_head_against_exhaustive_search(seed: int) -> None:
    found = search(*problem(seed, n_samples=200, n_features=5, n_classes=3))
    losses = sorted(
        fit(found.samples, Subspaces.of([[j] for j in features], 5), tolerance=1e-3).loss
        for features in product(range(5), repeat=3)
    )
    start = fit(found.samples, chosen("curvature", found, [1])[1]).head
    better = improve(found, start, 0.0) or start
    assert fit(found.samples, better.subspaces, tolerance=1e-3).loss <= losses[
        len(losses) // 10
    ] * (1 + 1e-3)


def test_sweeps_end_where_no_class_has_a_better_swap() -> None:
    found = search(*problem(1))
    model = at_dense(found.samples, 2, COUPLED)
    walk = Walk(model, forward(model, 2, lambda: None).places, torch.full((4,), 2), lambda: None)
    value = expansion(found.samples)
    at = found.samples.coordinates
    losses = []
    for _ in range(20):
        changed = walk.sweep()
        losses.append(value((walk.weight - at.weight) @ at.x.double()))
        if not changed:
            break
    assert not changed
    assert losses == sorted(losses, reverse=True) or max(losses) <= losses[0] * (1 + 1e-4)


@pytest.mark.parametrize("n_features", [40, 300])
@WAYS
def test_a_planted_support_is_found(n_features: int, limits: Limits) -> None:
    """Whether each class considers all features, or candidates only."""
    z, labels, weight, support = planted(0, 3000, n_features, 12, 4)
    found = search(z, labels, weight, limits=Limits(**{**vars(limits), "whole_work": 1e9}))
    path = chosen("curvature", found, [2, 4, 6])
    assert kept(path[4]) == support.tolist()
    for two, four, six in zip(kept(path[2]), support.tolist(), kept(path[6]), strict=True):
        assert set(two) <= set(four) <= set(six)


@WAYS
def test_constant_duplicated_and_collinear_features(limits: Limits) -> None:
    z, labels, weight, bias = problem(10)
    z[:, 1] = 2.0
    z[:, 2] = z[:, 0]
    z[:, 3] = z[:, 4] + z[:, 5]
    path = chosen("curvature", search(z, labels, weight, bias, limits=limits), [2, 3, 5, 8])
    for k in (2, 3):
        for features in kept(path[k]):
            columns = z.double()[:, features] - z.double()[:, features].mean(0)
            assert 1 not in features
            assert int(torch.linalg.matrix_rank(columns, rtol=1e-5)) == k
    assert kept(path[8]) == [list(range(8))] * 4


@WAYS
def test_one_class_and_a_class_that_no_sample_has(limits: Limits) -> None:
    z, labels, weight, bias = problem(11)
    alone = search(z, torch.zeros_like(labels), weight[:1], bias[:1], limits=limits)
    assert chosen("curvature", alone, [2])[2].nnz == 2
    bias[2] = -1e4
    found = search(z, labels.clamp(max=1), weight, bias, limits=limits)
    path = chosen("curvature", found, [1, 2])
    assert [len(features) for features in path[2]] == [2] * 4
    assert fit(found.samples, path[2]).converged


@WAYS
def test_same_bits_twice(limits: Limits) -> None:
    runs = [chosen("curvature", search(*problem(9), limits=limits), [1, 3]) for _ in range(2)]
    for k in (1, 3):
        assert torch.equal(runs[0][k].indices, runs[1][k].indices)


def test_groups_of_classes_do_not_change_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    found = search(*problem(7, n_features=12, n_classes=9), limits=ALONE)
    whole = chosen("curvature", found, [1, 3])
    monkeypatch.setattr(registry, "GROUP", 1)
    groups = chosen("curvature", found, [1, 3])
    for k in (1, 3):
        assert torch.equal(groups[k].indices, whole[k].indices)


def test_float16_features_whose_sums_overflow() -> None:
    z, labels, weight, bias = problem(12)
    half = (z * 500).half()
    assert not bool(half.square().sum(0, dtype=torch.float16).isfinite().all())
    found, wide = (
        chosen("curvature", search(x, labels, weight / 500, bias), [3])[3]
        for x in (half, half.float())
    )
    assert torch.equal(found.indices, wide.indices)


def test_classes_that_know_of_each_other_select_better() -> None:
    gains = []
    for seed in range(4):
        data = problem(seed, n_features=12, n_classes=6)
        alone, together = (search(*data, limits=limits) for limits in (ALONE, COUPLED))
        ways = [chosen("curvature", one, [2, 3]) for one in (alone, together)]
        for k in (2, 3):
            first, second = (fit(alone.samples, way[k]).loss for way in ways)
            gains.append(1 - second / first)
    # The second-order loss is not the loss: a single gain may be negative.
    assert sum(gains) / len(gains) > 0.1


def test_the_model_at_a_head_is_that_of_the_objective() -> None:
    """Its target less its curvature times the head's weights is the objective's descent."""
    found = search(*problem(1))
    samples, at = found.samples, found.samples.coordinates
    head = fit(samples, top_k(samples.weight, 3)).head
    model, places = at_head(samples, head, 0.3, Limits())
    assert torch.equal(
        model.candidates.gather(1, places).sort(1).values, torch.tensor(kept(head.subspaces))
    )
    weight = head.dense_weight().detach().double()
    own = torch.cat(
        [weight * samples.std, (head.bias + weight @ samples.mean)[:, None]], 1
    ).detach()
    own.requires_grad_()
    x = at.x.double()
    logits, dense = own @ x / 2, at.logits.double() / 2
    kl = 4 * (dense.softmax(0) * (dense.log_softmax(0) - logits.log_softmax(0))).sum(0).mean()
    off = own - at.weight
    (kl + 0.3 / 4 * ((off @ at.second_moments) * off).sum() / 2).backward()  # type: ignore[no-untyped-call]
    rows = torch.arange(4)
    target = model._target[rows]
    p = ((own.detach() @ x / 2).softmax(0) + dense.softmax(0)) / 2
    for c in range(4):
        h = (x * p[c] * (1 - p[c])) @ x.T / x.shape[1] + 0.3 / 4 * at.second_moments
        assert own.grad is not None
        descent = target[c] - h @ own[c].detach()
        torch.testing.assert_close(descent, -own.grad[c], rtol=1e-3, atol=1e-4)


def refitted(found: Search, subspaces: Subspaces) -> tuple[float, float]:
    """Loss of a refitted head, and of the one that is made of it at the head itself."""
    start = fit(found.samples, subspaces)
    pull = pull_of(found.samples.n_samples, found.samples.n_classes, 1)
    better = improve(found, start.head, pull)
    return start.loss, start.loss if better is None else fit(found.samples, better.subspaces).loss


def test_swaps_at_a_fitted_head_keep_sizes_and_stay_within_the_pool() -> None:
    gains = []
    for seed in range(4):
        found = search(*problem(seed))
        before, after = refitted(found, top_k(found.samples.weight, 1))
        gains.append(1 - after / before)
    assert max(gains) > 0.05
    found = search(*problem(1))
    start = fit(found.samples, top_k(found.samples.weight, [1, 2, 3, 1])).head
    better = improve(found, start, 0.0)
    assert better is not None
    assert better.indptr.diff().tolist() == [1, 2, 3, 1]
    pooled = search(*problem(1), budget=Budget(pool=5))
    bounded = improve(pooled, start, 0.0)
    if bounded is not None:
        assert set(bounded.indices.tolist()) <= set(start.indices.tolist())
    z, labels, weight, bias = problem(1)
    few = search(z[:8], labels[:8], weight, bias)
    assert improve(few, start, 0.0) is None
    assert improve(search(*problem(1), limits=ALONE), start, 0.0) is None
