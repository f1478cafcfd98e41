from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from penult.heads.refit.distillation import Distillation
from penult.heads.refit.weights import fit
from penult.heads.select import coupled as alternating
from penult.heads.select import joint
from penult.heads.select.coupled import (
    Alternation,
    Expansion,
    _samples,
    relinearise,
    select_alternating,
)
from penult.heads.subspaces import Subspaces, top_k


def problem(
    seed: int = 0, n_samples: int = 500, n_features: int = 7, n_classes: int = 4
) -> Distillation:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_samples, n_features, generator=generator).abs()
    z = z @ (torch.eye(n_features) + 0.3 * torch.rand(n_features, n_features, generator=generator))
    weight = torch.randn(n_classes, n_features, generator=generator) * 2
    bias = torch.randn(n_classes, generator=generator)
    return Distillation([(z, torch.zeros(n_samples, dtype=torch.int64))], weight, bias)


def expansion(loss: Distillation, seed: int = 0, slope: float = 0.1) -> Expansion:
    """At random logits, with a random slope."""
    generator = torch.Generator().manual_seed(seed)
    features, logits = _samples(loss)
    n_classes, n = logits.shape
    r = slope * torch.randn(n_classes, n, generator=generator)
    every = torch.arange(loss.n_features).expand(n_classes, -1).contiguous()
    p = (logits / 3).softmax(0)
    return Expansion.of(features, p, r, logits, every)


def model(at: Expansion, change: Tensor) -> float:
    """The second-order loss, written out sample by sample, per sample."""
    total = 0.0
    for i in range(change.shape[1]):
        p, e = at.p[:, i].double(), change[:, i].double()
        h = torch.diag(p) - torch.outer(p, p)
        total += float(at.slope[:, i].double() @ e + e @ h @ e / 2)
    return total / change.shape[1]


def least_for_class(at: Expansion, change: Tensor, c: int, features: list[int]) -> float:
    """Least second-order loss where class c reads some features, by a plain solve."""
    x = at.features[[*features, len(at.features) - 1]].double()
    p, e = at.p.double(), change.double()
    weights = p[c] * (1 - p[c])
    others = (p * e).sum(0) - p[c] * e[c]
    pull = at.slope[c].double() - p[c] * others
    right = x @ (weights * at.logits[c].double() - pull)
    best = torch.linalg.solve((x * weights) @ x.T, right)
    new = change.double().clone()
    new[c] = best @ x - at.logits[c].double()
    return model(at, new)


def test_the_weights_of_a_turn_are_the_best_for_its_class() -> None:
    at = expansion(problem(), slope=0.1)
    support = torch.tensor([[0, 1], [2, 3], [4, 5], [1, 6]])
    alternation = Alternation(at, support)
    alternation.sweep()
    last = 3  # the class of the last turn: nobody has moved since
    features = alternation.support[last].tolist()
    expected = least_for_class(at, alternation.change, last, features)
    assert model(at, alternation.change) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_sweeps_end_where_no_class_has_a_better_swap(seed: int) -> None:
    at = expansion(problem(seed), seed)
    alternation = Alternation(at, Alternation(at).path([2])[2][0])
    values: list[float] = []
    while len(values) < 30 and (alternation.sweep() or len(values) < 10):
        values.append(model(at, alternation.change))
    assert values == sorted(values, reverse=True) or max(b - a for a, b in pairwise(values)) < 1e-5
    for c in range(4):
        own = alternation.support[c].tolist()
        found = least_for_class(at, alternation.change, c, own)
        for out in own:
            for new in set(range(7)) - set(own):
                swapped = [*(j for j in own if j != out), new]
                other = least_for_class(at, alternation.change, c, swapped)
                assert other >= found - 1e-4 * abs(found)


def test_the_expansion_at_a_head_is_that_of_the_loss() -> None:
    """A small step of the logits changes the true loss as the model says, to third order."""
    loss = problem(1)
    (tile,) = loss.tiles()
    dense = loss.dense_logits(tile.features).double()
    own = dense + torch.randn(dense.shape, generator=torch.Generator().manual_seed(0)).double()
    step = torch.randn(dense.shape, generator=torch.Generator().manual_seed(1)).double()
    targets, p = dense.softmax(0), own.softmax(0)

    def true(logits: Tensor) -> float:
        return float(-(targets * logits.log_softmax(0)).sum(0).mean())

    none = torch.zeros(4, 0, 0, dtype=torch.float64)
    at = Expansion(dense, p, p - targets, own, torch.ones_like(p), none, none)
    errors = []
    for size in (0.1, 0.05):
        change = true(own + size * step) - true(own)
        errors.append(abs(change - model(at, size * step)))
    assert errors[1] < errors[0] / 6


def test_classes_that_know_of_each_other_select_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "JOINT_FEATURES", 0)
    gains = []
    for seed in range(4):
        loss = problem(seed, n_features=12, n_classes=6)
        every = torch.arange(12).expand(6, -1).contiguous()
        with monkeypatch.context() as patch:
            patch.setattr(Alternation, "improve", lambda self: 0)
            alone = select_alternating(loss, [2, 3], every, 3.0)
        together = select_alternating(loss, [2, 3], every, 3.0)
        gains += [1 - fit(loss, together[k]).loss / fit(loss, alone[k]).loss for k in (2, 3)]
    # The second-order loss is not the loss: a single gain may be negative.
    assert sum(gains) / len(gains) > 0.1


@pytest.mark.parametrize("seed", range(2))
def test_selection_against_exhaustive_search(seed: int) -> None:
    loss = problem(seed, n_samples=200, n_features=5, n_classes=4)
    every = torch.arange(5).expand(4, -1).contiguous()
    losses = sorted(
        fit(loss, Subspaces.of([[j] for j in features], 5), tolerance=1e-3).loss
        for features in product(range(5), repeat=4)
    )
    found = relinearise(loss, fit(loss, select_alternating(loss, [1], every, 3.0)[1]))
    assert found.loss <= losses[len(losses) // 10] * (1 + 1e-3)


def test_relinearised_heads_are_never_worse_and_sometimes_better() -> None:
    gains = []
    for seed in range(4):
        loss = problem(seed)
        start = fit(loss, top_k(loss.weight, 1))
        end = relinearise(loss, start)
        assert end.converged
        assert end.loss <= start.loss * (1 + 1e-6)
        assert fit(loss, end.head.subspaces).loss == pytest.approx(end.loss, rel=1e-2)
        gains.append(1 - end.loss / start.loss)
    assert max(gains) > 0.05


def test_relinearise_refuses_swaps_that_make_the_loss_worse(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = problem(0)
    start = fit(loss, select_alternating(loss, [2], torch.arange(7).expand(4, -1).clone(), 3.0)[2])

    def worse(self: Alternation) -> int:
        self.support = torch.tensor([[0, 1]] * 4)
        return 4

    monkeypatch.setattr(Alternation, "improve", worse)
    assert relinearise(loss, start, least_loss=0) is start


def test_relinearise_leaves_what_is_close_enough_or_too_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loss = problem(0)
    start = fit(loss, top_k(loss.weight, 1))
    assert relinearise(loss, start) is not start
    assert relinearise(loss, start, least_loss=start.loss) is start
    monkeypatch.setattr(alternating, "MOST_LOGITS", 4 * 500 - 1)
    assert relinearise(loss, start) is start


def test_relinearise_keeps_sizes_and_stays_within_what_is_allowed() -> None:
    loss = problem(1)
    start = fit(loss, top_k(loss.weight, [1, 2, 3, 1]))
    end = relinearise(loss, start)
    assert end.loss < start.loss
    assert end.head.subspaces.indptr.diff().tolist() == [1, 2, 3, 1]
    allowed = torch.unique(start.head.indices)
    assert 3 <= len(allowed) < 7
    bounded = relinearise(loss, start, allowed=allowed)
    assert set(bounded.head.indices.tolist()) <= set(allowed.tolist())
    assert end.loss <= bounded.loss <= start.loss


def test_samples_that_matter_stand_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = problem(4, n_samples=20_000, n_features=10)
    whole = expansion(loss, slope=0.0)
    monkeypatch.setattr(alternating, "WORK", 4 * 100 * 5000.0)
    part = expansion(loss, slope=0.0)
    assert 0 < int((part.taken > 0).sum()) < 0.3 * part.taken.numel()
    torch.testing.assert_close(part.sums[:, -1, -1], whole.sums[:, -1, -1], rtol=0.05, atol=0)
    torch.testing.assert_close(
        part.sums.diagonal(dim1=1, dim2=2), whole.sums.diagonal(dim1=1, dim2=2), rtol=0.1, atol=0
    )
