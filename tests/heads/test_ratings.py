"""Selection, refit and comparison with a sigmoid per class."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import expit
from torch import Tensor

from penult.features.draw import folds
from penult.features.features import Features
from penult.features.moments import Moments
from penult.heads.comparison import PairedCounts, compare_heads
from penult.heads.path import fit_path
from penult.heads.plan import Plan
from penult.heads.refit.least_squares import refit_least_squares
from penult.heads.refit.softmax import refit_softmax
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces


def planted(
    seed: int, n: int = 1500, d: int = 12, n_classes: int = 5
) -> tuple[Features, list[list[int]]]:
    """Features of which each class reads two, and the labels drawn from its probabilities."""
    rng = np.random.default_rng(seed)
    z = np.abs(rng.normal(size=(n, d))).astype(np.float32)
    weight = np.zeros((n_classes, d), np.float32)
    kept = [sorted(rng.choice(d, 2, replace=False).tolist()) for _ in range(n_classes)]
    for c, own in enumerate(kept):
        weight[c, own] = 2 + rng.random(2) * np.array([1, -8])[rng.permutation(2)]
    weight += rng.normal(size=weight.shape).astype(np.float32) * 1e-3
    bias = rng.normal(size=n_classes).astype(np.float32) - 1
    labels = rng.random((n, n_classes)) < expit(z @ weight.T + bias)
    return Features.of(z, labels, weight, bias), kept


@pytest.mark.parametrize("select", ["curvature", "moments"])
@pytest.mark.parametrize("seed", range(3))
def test_planted_features_are_found(seed: int, select: str) -> None:
    features, kept = planted(seed)
    path = fit_path(features, None, Plan((2, 4), select, seed=seed))
    assert [sorted(own.tolist()) for own in path[2].subspaces] == kept
    counts = path.steps[0].counts
    assert counts is not None
    assert counts.kl is not None
    assert counts.kl < 1e-4


def objective(x: np.ndarray, z: np.ndarray, target: np.ndarray) -> float:
    logits = z @ x[:-1] + x[-1]
    return float((np.logaddexp(0, logits) - target * logits).mean())


@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("held", [True, False])
def test_refit_is_each_class_by_itself(labels: bool, held: bool) -> None:
    features, _ = planted(4, n=900)
    head = features.require_head()
    subspaces = Subspaces.of([[0, 3, 7], [1, 2], [5], [], [4, 8, 9, 11]], 12)
    limit = 2**30 if held else 0
    found = refit_softmax(
        subspaces,
        features,
        head.weight,
        head.bias,
        labels=labels,
        link="sigmoid",
        tolerance=1e-6,
        pull=0,
        memory_limit=limit,
    )
    z, y = (part.double().numpy() for part in features.arrays())
    target = y if labels else expit(z @ head.weight.double().numpy().T + head.bias.numpy())
    weight, bias = found.head.dense_weight().detach().double(), found.head.bias.detach().double()
    errors = expit(z @ weight.numpy().T + bias.numpy()) - target
    assert np.abs(errors.mean(0)).max() < 1e-5  # stationary
    for c, own in enumerate(subspaces):
        kept = own.numpy()
        assert np.abs((errors[:, c, None] * z[:, kept]).mean(0)).max(initial=0) < 1e-5
        best = minimize(
            objective, np.zeros(len(kept) + 1), (z[:, kept], target[:, c]), method="BFGS"
        )
        mine = np.append(weight[c, kept].numpy(), float(bias[c]))
        assert objective(mine, z[:, kept], target[:, c]) <= best.fun + 1e-7
    if not labels:
        p, q = target, expit(z @ weight.numpy().T + bias.numpy())
        kl = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
        assert found.loss == pytest.approx(kl.sum(1).mean(), rel=1e-3)


def test_least_squares_takes_no_mean_off() -> None:
    features, _ = planted(5)
    z, labels = features.arrays()
    head = features.require_head()
    moments = Moments.of(z, labels, 5)
    subspaces = Subspaces.of([[0, 1], [2], [3, 4, 5], [6], [7, 8]], 12)
    found = refit_least_squares(subspaces, moments, head.weight, head.bias, "sigmoid")
    logits = head(z).double()
    for c, own in enumerate(subspaces):
        x = torch.cat([z[:, own], torch.ones(len(z), 1)], 1).double()
        best = torch.linalg.lstsq(x, logits[:, c : c + 1]).solution[:, 0]
        mine = torch.cat([found.dense_weight()[c, own], found.bias[c : c + 1]]).double()
        torch.testing.assert_close(mine.detach(), best, rtol=1e-4, atol=1e-4)


def test_moments_merge() -> None:
    features, _ = planted(6, n=400)
    z, labels = features.arrays()
    whole = Moments.of(z, labels, 5)
    parts = Moments.of(z[:150], labels[:150], 5) + Moments.of(z[150:], labels[150:], 5)
    assert parts.n_samples == whole.n_samples == 400
    torch.testing.assert_close(parts.mean(), z.double().mean(0))
    assert torch.equal(parts.counts, labels.sum(0))


def test_counts_of_decisions_by_hand() -> None:
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0]]).bool()
    before = torch.tensor([[1, 0, 0], [0, 1, 0], [1, 1, 0]]).bool()
    after = torch.tensor([[0, 0, 0], [0, 0, 0], [1, 0, 1]]).bool()
    counts = PairedCounts.of(labels, before, after)
    assert (counts.n_samples, counts.n_decisions) == (3, 9)
    assert (counts.n_before, counts.n_after) == (7, 5)
    assert (counts.lost, counts.won, counts.n_agree) == (3, 1, 5)
    assert counts.squares == 1 + 1 + 4
    assert counts + counts == PairedCounts.of(
        labels.repeat(2, 1), before.repeat(2, 1), after.repeat(2, 1)
    )


def copies(n: int, n_classes: int, rate: float, seed: int, together: bool) -> PairedCounts:
    """Decisions of which some are lost: each by itself, or all of a sample together."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.ones(n, n_classes, dtype=torch.bool)
    shape = (n, 1) if together else (n, n_classes)
    after = (torch.rand(shape, generator=generator) >= rate).expand(n, n_classes)
    return PairedCounts.of(labels, labels, after)


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("rate", [0.0, 0.002, 0.03])
def test_bound_holds_however_decisions_depend_on_each_other(rate: float, together: bool) -> None:
    found = [copies(400, 8, rate, seed, together).at_most >= rate for seed in range(400)]
    assert np.mean(found) >= 0.91  # of 0.95, less what 400 draws and a normal tail take


def test_bound_knows_that_independent_decisions_tell_more() -> None:
    apart, whole = (copies(4000, 8, 0.05, 0, together).at_most for together in (False, True))
    assert apart - 0.05 < 0.7 * (whole - 0.05)


def test_comparison_by_class_is_of_its_decisions() -> None:
    features, _ = planted(7, n=300)
    head = features.require_head()
    sparse = SparseHead.from_dense(head.weight, head.bias, Subspaces.of([[0, 1]] * 5, 12))
    found = compare_heads(head, [sparse], features, divergence=True)[0]
    z, labels = features.arrays()
    mine: Tensor = sparse(z) > 0
    for c, counts in enumerate(found.by_class()):
        assert counts.n_samples == 300
        assert counts.n_after == int((mine[:, c] == labels[:, c]).sum())
    assert found.overall.n_after == sum(counts.n_after for counts in found.by_class())
    assert set(found.changed().tolist()) == set(
        ((head(z) > 0) != mine).any(1).nonzero()[:, 0].tolist()
    )


def test_folds_deal_out_sets_of_classes() -> None:
    features, _ = planted(8)
    labels = features.labels()
    fold = folds(labels, 5, 0)
    assert torch.bincount(fold).tolist() == [300] * 5
    share = torch.stack([labels[fold == i].double().mean(0) for i in range(5)])
    assert float((share - labels.double().mean(0)).abs().max()) < 0.05
