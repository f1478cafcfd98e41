from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.refit.distillation import Distillation, Support
from penult.heads.refit.hessian import Point, joint_hessian
from penult.heads.refit.weights import fit
from penult.heads.select import coupled as alternating
from penult.heads.select import joint
from penult.heads.select.curvature import _weighted_sums, select_curvature
from penult.heads.select.joint import select_joint
from penult.heads.subspaces import Subspaces

Samples = tuple[Tensor, Tensor]


def problem(
    seed: int = 0, n_samples: int = 600, n_features: int = 8, n_classes: int = 3
) -> tuple[Samples, Tensor, Tensor]:
    """Features with labels, and a dense head, weight and bias."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_samples, n_features, generator=generator).abs()
    z = z @ (torch.eye(n_features) + 0.3 * torch.rand(n_features, n_features, generator=generator))
    weight = torch.randn(n_classes, n_features, generator=generator) * 2
    bias = torch.randn(n_classes, generator=generator)
    return (z, (z @ weight.T + bias).argmax(1)), weight, bias


def planted(
    seed: int, n_samples: int, n_features: int, n_classes: int, k: int
) -> tuple[Samples, Tensor, Tensor]:
    """A dense head with k large weights per class, and which they are (n_classes, k), sorted."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_samples, n_features, generator=generator).abs()
    support = torch.rand(n_classes, n_features, generator=generator).topk(k, dim=1).indices
    signs = torch.tensor([1.0, -1.0]).repeat((k + 1) // 2)[:k]
    values = (torch.rand(n_classes, k, generator=generator) + 0.5) * signs
    weight = torch.randn(n_classes, n_features, generator=generator) * 1e-3
    weight.scatter_add_(1, support, values)
    return (z, (z @ weight.T).argmax(1)), weight, support.sort(1).values


def only(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every size be selected one way: all classes jointly, alternating, or one by one."""
    monkeypatch.setattr(joint, "JOINT_FEATURES", 10**9 if way == "joint" else 0)
    monkeypatch.setattr(alternating, "MOST_LOGITS", 0 if way == "single" else 10**9)


WAYS = pytest.mark.parametrize("way", ["joint", "alternating", "single"])


def kept(subspaces: Subspaces) -> list[list[int]]:
    return [sorted(features.tolist()) for features in subspaces]


def quadratic_loss(loss: Distillation, subspaces: Subspaces, temperature: float) -> float:
    """Least second-order loss at the dense head on a support, by a plain solve with all weights."""
    n_classes, n_features = loss.weight.shape
    everything = Support(
        Subspaces.of([range(n_features)] * n_classes, n_features), torch.device("cpu")
    )
    point = Point(everything, loss.weight.double().flatten(), loss.bias.double())
    h = joint_hessian(loss, point, temperature, 1e12, torch.float64)
    h.diagonal().add_(1e-9 * h.diagonal().mean())
    dense = torch.cat(
        [(loss.weight * loss.std).flatten(), loss.bias + loss.weight @ loss.mean.float()]
    )
    free = torch.ones(len(h), dtype=torch.bool)
    free[: n_classes * n_features] = False
    free[subspaces.classes() * n_features + subspaces.indices] = True
    error = -dense.double()
    error[free] = torch.linalg.solve(h[free][:, free], h[free][:, ~free] @ dense.double()[~free])
    return float(error @ h @ error) / 2


@pytest.mark.parametrize("seed", range(3))
def test_joint_selection_has_no_better_swap_within_a_class(seed: int) -> None:
    samples, weight, bias = problem(seed)
    loss = Distillation([samples], weight, bias)
    for subspaces in select_joint(loss, [1, 2, 4], 3.0).values():
        found = quadratic_loss(loss, subspaces, 3.0)
        chosen = kept(subspaces)
        for c, features in enumerate(chosen):
            for out in features:
                for new in set(range(8)) - set(features):
                    swapped = [list(other) for other in chosen]
                    swapped[c] = [*(j for j in features if j != out), new]
                    other = quadratic_loss(loss, Subspaces.of(swapped, 8), 3.0)
                    assert other >= found * (1 - 1e-3)


def test_joint_selection_against_exhaustive_search() -> None:
    samples, weight, bias = problem(3, n_features=5)
    loss = Distillation([samples], weight, bias)
    sets = [list(features) for features in combinations(range(5), 2)]
    values = [
        quadratic_loss(loss, Subspaces.of([a, b, c], 5), 3.0)
        for a in sets
        for b in sets
        for c in sets
    ]
    found = quadratic_loss(loss, select_curvature(loss, [2])[2], 3.0)
    better = sum(value < found * (1 - 1e-3) for value in values)
    assert better <= len(values) * 0.005


@pytest.mark.parametrize("way", ["alternating", "single"])
@pytest.mark.parametrize("n_features", [40, 300])
def test_single_classes_find_a_planted_support(
    n_features: int, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether each class considers all features, or candidates only."""
    only(way, monkeypatch)
    samples, weight, support = planted(0, 3000, n_features, 12, 4)
    loss = Distillation([samples], weight, torch.zeros(12))
    path = select_curvature(loss, [2, 4, 6])
    assert kept(path[4]) == support.tolist()
    for two, four, six in zip(kept(path[2]), support.tolist(), kept(path[6]), strict=True):
        assert set(two) <= set(four) <= set(six)


def test_joint_finds_a_planted_support() -> None:
    samples, weight, support = planted(1, 3000, 20, 6, 4)
    loss = Distillation([samples], weight, torch.zeros(6))
    assert kept(select_curvature(loss, [4])[4]) == support.tolist()


def naive_class_quadratic(loss: Distillation, z: Tensor, c: int, features: list[int]) -> float:
    """Weighted variance of class c's centred logit that the features leave open, temperature 3."""
    logits = (z @ loss.weight.T + loss.bias).double()
    p = (logits / 3).softmax(1)[:, c]
    weights = p * (1 - p)
    target = logits[:, c] - logits.mean(1)
    root = weights.sqrt()[:, None]
    design = torch.cat([z[:, features].double(), torch.ones(len(z), 1).double()], 1) * root
    fit_ = design @ torch.linalg.lstsq(design, target[:, None] * root).solution
    return float((target[:, None] * root - fit_).square().sum())


def test_single_classes_have_no_better_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    only("single", monkeypatch)
    samples, weight, bias = problem(5, n_classes=4)
    loss = Distillation([samples], weight, bias)
    for c, features in enumerate(kept(select_curvature(loss, [3])[3])):
        found = naive_class_quadratic(loss, samples[0], c, features)
        for out in features:
            for new in set(range(8)) - set(features):
                swapped = [*(j for j in features if j != out), new]
                assert naive_class_quadratic(loss, samples[0], c, swapped) >= found * (1 - 1e-3)


def test_samples_that_matter_select_what_all_samples_select(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only("single", monkeypatch)
    samples, weight, bias = problem(6, n_samples=30_000, n_features=30, n_classes=10)
    loss = Distillation([samples], weight, bias)
    everything = select_curvature(loss, [5])[5]
    candidates = torch.arange(30).expand(10, 30)
    whole = _weighted_sums(loss, candidates, 3.0)
    monkeypatch.setattr("penult.heads.select.curvature.WORK", 1e6)
    estimate = _weighted_sums(loss, candidates, 3.0)
    assert not torch.equal(estimate, whole)
    torch.testing.assert_close(estimate[:, -1, -1], whole[:, -1, -1], rtol=0.1, atol=0)
    part = select_curvature(loss, [5])[5]
    common = sum(len(set(a) & set(b)) for a, b in zip(kept(part), kept(everything), strict=True))
    assert common >= 42
    assert fit(loss, part).loss <= 1.1 * fit(loss, everything).loss


def test_groups_of_classes_do_not_change_the_selection(monkeypatch: pytest.MonkeyPatch) -> None:
    only("single", monkeypatch)
    samples, weight, bias = problem(7, n_features=12, n_classes=9)
    loss = Distillation([samples], weight, bias)
    whole = select_curvature(loss, [3])[3]
    monkeypatch.setattr("penult.heads.select.curvature.GROUP", 1)
    assert torch.equal(select_curvature(loss, [3])[3].indices, whole.indices)


def test_moments_given_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    only("single", monkeypatch)
    samples, weight, _ = planted(2, 1000, 280, 5, 3)
    loss = Distillation([samples], weight, torch.zeros(5))
    given = select_curvature(loss, [3], moments=Moments.of(*samples, 5))[3]
    assert torch.equal(given.indices, select_curvature(loss, [3])[3].indices)


@WAYS
def test_same_bits_twice(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    only(way, monkeypatch)
    samples, weight, bias = problem(9)
    runs = []
    for _ in range(2):
        loss = Distillation([samples], weight, bias)
        runs.append(select_curvature(loss, [1, 3]))
    for k in (1, 3):
        assert torch.equal(runs[0][k].indices, runs[1][k].indices)


@WAYS
def test_constant_duplicated_and_collinear_features(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(way, monkeypatch)
    (z, labels), weight, bias = problem(10)
    z[:, 1] = 2.0
    z[:, 2] = z[:, 0]
    z[:, 3] = z[:, 4] + z[:, 5]
    loss = Distillation([(z, labels)], weight, bias)
    path = select_curvature(loss, [2, 3, 5, 8])
    # Together, 3 × 3 pairs span all logits but for the shift; what comes after adds nothing.
    for k in (2, 3):
        for features in kept(path[k]):
            columns = z.double()[:, features] - z.double()[:, features].mean(0)
            assert 1 not in features
            assert int(torch.linalg.matrix_rank(columns, rtol=1e-5)) == k
    assert kept(path[8]) == [list(range(8))] * 3
    assert fit(loss, path[5]).loss < 1e-3


@WAYS
def test_one_class_and_a_class_that_no_sample_has(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(way, monkeypatch)
    (z, labels), weight, bias = problem(11)
    alone = Distillation([(z, torch.zeros_like(labels))], weight[:1], bias[:1])
    assert select_curvature(alone, [2])[2].nnz == 2
    bias[2] = -1e4
    loss = Distillation([(z, labels.clamp(max=1))], weight, bias)
    found = select_curvature(loss, [1, 2])
    assert [len(features) for features in found[2]] == [2, 2, 2]
    assert fit(loss, found[2]).converged


def test_float16_features_whose_sums_overflow() -> None:
    (z, labels), weight, bias = problem(12)
    half = (z * 500).half()
    assert not bool(half.square().sum(0, dtype=torch.float16).isfinite().all())
    found = select_curvature(Distillation([(half, labels)], weight / 500, bias), [3])[3]
    wide = select_curvature(Distillation([(half.float(), labels)], weight / 500, bias), [3])[3]
    assert torch.equal(found.indices, wide.indices)


def test_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    samples, weight, bias = problem(13)
    loss = Distillation([samples], weight, bias)
    with pytest.raises(InputError, match=r"k must lie in \[1, 8\] \(n_features\), found 9"):
        select_curvature(loss, [9])
    with pytest.raises(InputError, match="temperature must be a number above 0, found nan"):
        select_curvature(loss, [1], temperature=float("nan"))
    only("single", monkeypatch)
    message = r"k = 5 features for 3 classes needs 0.* the memory limit is 0.* select by moments"
    with pytest.raises(InputError, match=message):
        select_curvature(loss, [5], memory_limit=600)
