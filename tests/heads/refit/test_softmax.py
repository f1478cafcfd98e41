from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from penult.errors import InputError
from penult.features.moments import Moments
from penult.heads.refit import curvature
from penult.heads.refit.lbfgs import minimise
from penult.heads.refit.least_squares import refit_least_squares
from penult.heads.refit.loss import Objective, Pull, Support, pull_of
from penult.heads.refit.softmax import RefitResult, fit, refit_softmax
from penult.heads.samples import Samples
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces, top_k

Block = tuple[Tensor, Tensor]


def problem(
    seed: int = 0, n_samples: int = 400, n_features: int = 10, n_classes: int = 4
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Shifted, unequally scaled features, their labels, a dense weight and a bias."""
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(n_samples, n_features, generator=generator).abs()
    z = z * torch.linspace(0.2, 3, n_features) + torch.randn(n_features, generator=generator)
    weight = torch.randn(n_classes, n_features, generator=generator)
    bias = torch.randn(n_classes, generator=generator)
    labels = (z @ weight.T + bias).argmax(1)
    return z, labels, weight, bias


UNEVEN = Subspaces.of([[0, 3, 5], [1, 2], [], [9, 4, 0, 7]], 10)


def pairs(subspaces: Subspaces) -> tuple[Tensor, Tensor]:
    return subspaces.classes(), subspaces.indices


def loss_of(
    x: Tensor, z: Tensor, target: Tensor, subspaces: Subspaces, temperature: float
) -> Tensor:
    """T² · mean KL(target ‖ sparse), naively, for x = (values, bias) in float64."""
    dense = torch.zeros(subspaces.n_classes, subspaces.n_features, dtype=torch.float64)
    dense = dense.index_put(pairs(subspaces), x[: subspaces.nnz])
    logits = (z.double() @ dense.T + x[subspaces.nnz :]) / temperature
    terms = torch.xlogy(target, target) - target * logits.log_softmax(1)
    return temperature**2 * terms.sum(1).mean()


def softened(z: Tensor, weight: Tensor, bias: Tensor, temperature: float) -> Tensor:
    return ((z @ weight.T + bias).double() / temperature).softmax(1)


def best_loss(z: Tensor, target: Tensor, subspaces: Subspaces, temperature: float) -> float:
    """The least loss by scipy, from zero."""

    def both(x: np.ndarray) -> tuple[float, np.ndarray]:
        point = torch.tensor(x, requires_grad=True)
        loss = loss_of(point, z, target, subspaces, temperature)
        loss.backward()  # type: ignore[no-untyped-call]
        assert point.grad is not None
        return loss.item(), point.grad.numpy()

    start = np.zeros(subspaces.nnz + subspaces.n_classes)
    options = {"maxiter": 20_000, "maxfun": 40_000, "ftol": 1e-15, "gtol": 1e-10}
    return float(minimize(both, start, jac=True, method="L-BFGS-B", options=options).fun)


def packed(head: SparseHead) -> Tensor:
    return torch.cat([head.values, head.bias]).detach().double()


def check_result(result: RefitResult, z: Tensor, target: Tensor, temperature: float) -> None:
    """The reported loss and residual are those of the head, by their definitions."""
    head, subspaces = result.head, result.head.subspaces
    x = packed(head)
    loss = float(loss_of(x, z, target, subspaces, temperature))
    assert result.loss == pytest.approx(loss, abs=1e-6)
    p = (z.double() @ head.dense_weight().detach().double().T + x[subspaces.nnz :]) / temperature
    errors = p.softmax(1) - target
    mass = target.mean(0).clamp(min=0.1 / subspaces.n_classes)
    standard = (z.double() - z.double().mean(0)) / z.double().std(0, correction=0)
    by_pair = (errors.T @ standard / len(z) / mass[:, None])[pairs(subspaces)]
    by_class = errors.mean(0) / mass
    root = torch.cat([by_pair, by_class]).square().mean().sqrt()
    assert result.residual == pytest.approx(float(root), abs=2e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
@pytest.mark.parametrize("dense_product", [True, False])
def test_softmax_refit_is_the_optimum(
    temperature: float, dense_product: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Support, "DENSE_ADVANTAGE", 100 if dense_product else 0)
    z, labels, weight, bias = problem()
    target = softened(z, weight, bias, temperature)
    best = best_loss(z, target, UNEVEN, temperature)
    result = refit_softmax(
        UNEVEN, [(z, labels)], weight, bias, temperature=temperature, tolerance=1e-5, pull=0
    )
    assert result.converged
    assert result.residual <= 1e-5
    assert result.loss == pytest.approx(best, abs=1e-6)
    check_result(result, z, target, temperature)


@pytest.mark.parametrize("n_samples", [1, 7, 64])
def test_sums_over_rows_equal_dense_products(
    n_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Logits and gradients, with a class that keeps nothing first, in the middle and last."""
    kept = Subspaces.of([[], [4, 1, 7], [], [9], [0, 4], []], 10)
    generator = torch.Generator().manual_seed(n_samples)
    z = torch.randn(10, n_samples, generator=generator)
    values = torch.randn(6, generator=generator)
    errors = torch.randn(6, n_samples, generator=generator)
    found = []
    for advantage in (0, 100):
        monkeypatch.setattr(Support, "DENSE_ADVANTAGE", advantage)
        support = Support(kept, z.device)
        assert support.dense == (advantage > 0)
        logits, gradient = support.forward(z, values)
        found.append((logits, gradient(errors)))
    torch.testing.assert_close(found[0], found[1])


def test_softmax_refit_with_the_pull_is_stationary() -> None:
    """The slope of divergence and pull together is 0 at its end, by automatic differentiation."""
    z, labels, weight, bias = problem(15, n_samples=30)
    samples = Samples([(z, labels)], weight, bias)
    pull = pull_of(30, 4, UNEVEN.nnz / 4)
    assert pull > 0.01
    result = fit(samples, UNEVEN, tolerance=1e-5)
    free = fit(samples, UNEVEN, tolerance=1e-5, pull=0)
    x, dense = samples.coordinates.x.double(), samples.coordinates.weight
    second = samples.coordinates.second_moments

    def slope(head: SparseHead, pull: float) -> float:
        own = head.dense_weight().detach().double()
        level = head.bias.detach().double() + own @ samples.mean
        u = torch.cat([own * samples.std, level[:, None]], 1).requires_grad_()
        p = (dense @ x).softmax(0)
        kl = (p * (p.log() - (u @ x).log_softmax(0))).sum(0).mean()
        off = u - dense
        (kl + pull / 8 * ((off @ second) * off).sum()).backward()  # type: ignore[no-untyped-call]
        assert u.grad is not None
        return float(torch.cat([u.grad[pairs(UNEVEN)], u.grad[:, -1]]).abs().max())

    assert slope(result.head, pull) < 1e-4
    assert slope(free.head, pull) > 1e-3


def test_labels_instead_of_the_dense_head() -> None:
    z, labels, weight, bias = problem(1)
    labels = torch.where(torch.arange(len(labels)) % 3 == 0, labels, labels.roll(1))
    target = torch.nn.functional.one_hot(labels, 4).double()
    result = refit_softmax(UNEVEN, [(z, labels)], weight, bias, labels=True, tolerance=1e-5, pull=0)
    assert result.loss == pytest.approx(best_loss(z, target, UNEVEN, 1.0), abs=1e-6)
    check_result(result, z, target, 1.0)


def test_labels_that_the_features_separate_end_all_the_same() -> None:
    z = torch.cat([torch.randn(50, 2) - 5, torch.randn(50, 2) + 5])
    labels = torch.arange(2).repeat_interleave(50)
    subspaces = Subspaces.of([[0], [1]], 2)
    result = refit_softmax(subspaces, [(z, labels)], torch.eye(2), torch.zeros(2), labels=True)
    assert result.converged
    assert bool((result.head(z).argmax(1) == labels).all())


def test_all_features_give_the_dense_probabilities() -> None:
    z, labels, weight, bias = problem(2)
    everything = Subspaces.of([range(10)] * 4, 10)
    result = refit_softmax(
        everything, [(z, labels)], weight, bias, start=zero_head(everything), tolerance=1e-6
    )
    assert result.loss < 1e-6
    torch.testing.assert_close(
        result.head(z).softmax(1), (z @ weight.T + bias).softmax(1), atol=2e-3, rtol=0
    )


def zero_head(subspaces: Subspaces) -> SparseHead:
    return SparseHead(subspaces, torch.zeros(subspaces.nnz), torch.zeros(subspaces.n_classes))


def test_optimum_does_not_depend_on_the_start() -> None:
    z, labels, weight, bias = problem(3)
    loss = Samples([(z, labels)], weight, bias)
    cold = fit(loss, UNEVEN, tolerance=1e-6)
    other = fit(loss, top_k(weight, 2))
    far = SparseHead(UNEVEN, torch.full((UNEVEN.nnz,), 40.0), torch.zeros(4))
    for start in (zero_head(UNEVEN), other.head, far):
        warm = fit(loss, UNEVEN, start=start, tolerance=1e-6)
        assert warm.converged
        assert warm.loss == pytest.approx(cold.loss, abs=1e-6)
    again = fit(loss, UNEVEN, start=cold.head, tolerance=1e-5)
    assert again.n_passes == 1


def test_a_part_of_the_samples_first_ends_in_the_same_optimum(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penult.heads.samples.n_few", lambda n_classes: 1000)
    z, labels, weight, bias = problem(4, n_samples=9000)
    loss = Samples([(z, labels)], weight, bias)
    subspaces = top_k(weight, 3)
    result = fit(loss, subspaces, start=zero_head(subspaces), tolerance=1e-5, pull=0)
    target = softened(z, weight, bias, 1.0)
    assert loss.few.n_samples == 1000
    assert result.loss == pytest.approx(best_loss(z, target, subspaces, 1.0), abs=1e-6)
    check_result(result, z, target, 1.0)
    assert result.n_passes <= 16


@pytest.mark.parametrize("pull", [None, 0])
def test_blocks_of_low_rank_end_in_the_same_optimum(
    pull: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    z, labels, weight, bias = problem(5)
    blocks = refit_softmax(UNEVEN, [(z, labels)], weight, bias, tolerance=1e-5, pull=pull)
    monkeypatch.setattr(curvature, "MOST_NUMBERS", 4 * 3**2)
    low = refit_softmax(UNEVEN, [(z, labels)], weight, bias, tolerance=1e-5, pull=pull)
    assert low.converged
    assert low.loss == pytest.approx(blocks.loss, abs=1e-6)


def test_blocks_of_full_rank_are_the_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where its directions span the features, a low rank inverts what the whole blocks are."""
    z, labels, weight, bias = problem(16)
    samples = Samples([(z, labels)], weight, bias)
    support = Support(UNEVEN, weight.device)
    objective = Objective(samples, support, 0.3)
    values = weight[support.classes, support.indices].double()
    whole = curvature.preconditioner(objective, values, bias.double())
    monkeypatch.setattr(curvature, "MOST_NUMBERS", 4 * 10**2)
    monkeypatch.setattr(curvature, "_blocks", None)  # must not be needed
    monkeypatch.setattr(Support, "slots", property(_many_slots))
    low = curvature.preconditioner(objective, values, bias.double())
    g = torch.randn(UNEVEN.nnz + 4, generator=torch.Generator().manual_seed(0)).double()
    assert float((low(g) - whole(g)).norm() / whole(g).norm()) < 0.1


def _many_slots(support: Support) -> tuple[Tensor, Tensor]:
    """Slots that are too many to be taken as whole blocks."""
    return torch.zeros(4, 99, dtype=torch.int64), torch.zeros(4, 99, dtype=torch.bool)


def test_correlated_features_converge_as_fast_in_low_rank_as_in_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A diagonal alone takes several times as many passes."""
    generator = torch.Generator().manual_seed(3)
    mixed = torch.randn(4, 60, generator=generator) * 3
    z = torch.randn(500, 4, generator=generator) @ mixed
    z += torch.randn(500, 60, generator=generator)
    weight, bias = torch.randn(20, 60, generator=generator) / 8, torch.zeros(20)
    blocks = [(z, torch.zeros(500, dtype=torch.int64))]
    kept = top_k(weight.abs(), 30)

    def n_passes() -> int:
        return refit_softmax(kept, blocks, weight, bias, tolerance=1e-3).n_passes

    whole = n_passes()
    monkeypatch.setattr(curvature, "MOST_NUMBERS", 20 * 8**2)
    low = n_passes()
    monkeypatch.setattr(curvature, "RANK", 1)
    assert low < 1.7 * whole
    assert low < 0.7 * n_passes()


def test_the_pull_is_the_squared_distance_from_the_dense_weights() -> None:
    z, labels, weight, bias = problem(6)
    samples = Samples([(z, labels)], weight, bias)
    support = Support(UNEVEN, weight.device)
    objective = Objective(samples, support, 1.0)
    values, level = torch.randn(UNEVEN.nnz).double(), torch.randn(4).double()
    x = objective.pack(values, level)
    inside = support.slots[1]
    wide = torch.zeros(4, inside.shape[1] + 1, dtype=torch.float64)
    wide[:, :-1][inside], wide[:, -1] = x[: UNEVEN.nnz], x[UNEVEN.nnz :]
    dense = samples.coordinates.weight
    off = -dense
    off[:, -1] += level + support.matrix(values) @ samples.mean
    off[:, :-1] += support.matrix(values) * samples.std
    expected = ((off @ samples.coordinates.second_moments) * off).sum() / 8
    assert Pull(samples, support)(wide)[0] == pytest.approx(float(expected), rel=1e-4)


@pytest.mark.parametrize("most_kept", [0, 10**9])
def test_the_objective_with_a_pull_has_the_gradient_it_says(
    most_kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penult.heads.refit.loss.MOST_KEPT", most_kept)
    z, labels, weight, bias = problem(7)
    samples = Samples([(z, labels)], weight, bias)
    objective = Objective(samples, Support(UNEVEN, weight.device), 0.7)
    generator = torch.Generator().manual_seed(0)
    n = UNEVEN.nnz + 4
    x = torch.randn(n, generator=generator, dtype=torch.float64)
    gradient = objective(x)[1]
    for i in range(n):
        step = torch.zeros_like(x)
        step[i] = 1e-2
        slope = (objective(x + step)[0] - objective(x - step)[0]) / 2e-2
        assert slope == pytest.approx(float(gradient[i]), abs=2e-3)


def test_few_samples_are_drawn_to_the_dense_head_and_many_are_not() -> None:
    """With few samples the head with the pull is nearer to the dense one on new samples."""
    free, drawn = 0.0, 0.0
    for seed in range(5):
        z, labels, weight, bias = problem(seed, n_samples=2000, n_features=20, n_classes=5)
        subspaces = top_k(weight.abs() * z.std(0), 6)
        few = [(z[:40], labels[:40])]
        target = softened(z[1000:], weight, bias, 1.0)

        def kl(head: SparseHead) -> float:
            return float(loss_of(packed(head), z[1000:], target, subspaces, 1.0))  # noqa: B023

        free += kl(refit_softmax(subspaces, few, weight, bias, pull=0).head)
        drawn += kl(refit_softmax(subspaces, few, weight, bias).head)
    assert drawn < 0.9 * free
    assert pull_of(50_000, 10, 20) < 1e-3
    assert pull_of(20, 10, 20) == 1
    assert pull_of(3864, 1000, 20) == pytest.approx(0.54, abs=0.01)


def test_a_pull_that_is_too_strong_gives_the_nearest_logits() -> None:
    """Nearest where features are as much alike as the samples can show."""
    z, labels, weight, bias = problem(8)
    found = refit_softmax(UNEVEN, [(z, labels)], weight, bias, pull=1e5, tolerance=1e-3)
    samples = Samples([(z, labels)], weight, bias)
    second, dense = samples.coordinates.second_moments, samples.coordinates.weight
    for c, own in enumerate(UNEVEN):
        columns = torch.cat([own, own.new_tensor([10])])
        nearest = torch.linalg.solve(second[columns][:, columns], second[columns] @ dense[c])
        values = found.head.dense_weight().detach()[c, own] * samples.std[own]
        torch.testing.assert_close(values.double(), nearest[:-1], rtol=1e-2, atol=1e-2)


def test_ten_samples_one_of_each_class() -> None:
    generator = torch.Generator().manual_seed(1)
    z = torch.randn(10, 64, generator=generator)
    weight = torch.randn(10, 64, generator=generator)
    found = refit_softmax(top_k(weight, 5), [(z, torch.arange(10))], weight, torch.zeros(10))
    assert found.converged
    assert bool(found.head.values.isfinite().all())


def test_constant_and_duplicated_features() -> None:
    z, labels, weight, bias = problem(6)
    z[:, 1] = 4.0
    z[:, 2] = z[:, 0]
    subspaces = Subspaces.of([[0, 1, 2], [1], [2, 3], [4, 5]], 10)
    target = softened(z, weight, bias, 1.0)
    result = refit_softmax(subspaces, [(z, labels)], weight, bias, tolerance=1e-5, pull=0)
    assert result.converged
    assert result.loss == pytest.approx(best_loss(z, target, subspaces, 1.0), abs=1e-6)
    assert result.head.dense_weight()[:, 1].abs().max() == 0
    squares = refit_least_squares(subspaces, Moments.of(z, labels, 4), weight, bias)
    assert squares.dense_weight()[:, 1].abs().max() == 0
    shares = squares.dense_weight()[0, [0, 2]]
    torch.testing.assert_close(shares[0], shares[1], rtol=1e-4, atol=1e-5)


def test_one_class_and_a_class_that_no_sample_has() -> None:
    z, labels, weight, bias = problem(7)
    one = Subspaces.of([[1, 2]], 10)
    blocks = [(z, torch.zeros_like(labels))]
    alone = refit_softmax(one, blocks, weight[:1], bias[:1])
    assert alone.loss == pytest.approx(0, abs=1e-6)
    bias[2] = -1e4
    result = refit_softmax(top_k(weight, 3), [(z, labels.clamp(max=1))], weight, bias)
    assert result.converged
    assert not bool((result.head(z).argmax(1) == 2).any())


def test_float16_features_whose_sums_overflow() -> None:
    z, labels, weight, bias = problem(8)
    half = (z * 200).half()
    assert not bool(half.square().sum(0, dtype=torch.float16).isfinite().all())
    found = refit_softmax(UNEVEN, [(half, labels)], weight / 200, bias)
    wide = refit_softmax(UNEVEN, [(half.float(), labels)], weight / 200, bias)
    assert torch.equal(found.head.values, wide.head.values)
    assert found.head.values.isfinite().all()


class Streamed:
    """Blocks made anew at every reading, as from files; counts the readings."""

    def __init__(self, z: Tensor, labels: Tensor, size: int) -> None:
        self.z, self.labels, self.size, self.n_readings = z, labels, size, 0

    def __iter__(self) -> Iterator[Block]:
        self.n_readings += 1
        for start in range(0, len(self.z), self.size):
            part = slice(start, start + self.size)
            yield self.z[part].clone(), self.labels[part].clone()


@pytest.mark.parametrize("labels", [False, True])
def test_streamed_samples_give_what_samples_in_memory_give(labels: bool) -> None:
    """Whether nothing is kept in memory, the features alone, or the targets too."""
    z, y, weight, bias = problem(9)
    features, targets = 4 * z.numel(), 4 * len(z) * 4
    heads, readings = [], []
    for limit in (1000, features + targets // 2, features + targets):
        stream = Streamed(z, y, 150)
        loss = Samples(stream, weight, bias, labels=labels, memory_limit=limit)
        assert loss.keeps_targets == (limit >= features + targets)
        found = fit(loss, UNEVEN, tolerance=1e-5)
        heads.append(found)
        readings.append(stream.n_readings)
    assert readings[0] > heads[0].n_passes
    assert readings[1:] == [1, 1]
    for found in heads[:2]:
        assert found.loss == pytest.approx(heads[2].loss, abs=1e-6)
        torch.testing.assert_close(found.head.values, heads[2].head.values, rtol=1e-3, atol=1e-3)


def test_same_bits_twice() -> None:
    z, labels, weight, bias = problem(10, n_samples=9000)
    first, second = (refit_softmax(UNEVEN, [(z, labels)], weight, bias) for _ in range(2))
    assert torch.equal(first.head.values, second.head.values)
    assert torch.equal(first.head.bias, second.head.bias)
    assert first.residual == second.residual


def test_minimise_a_steep_function_with_a_useless_preconditioner() -> None:
    scale = torch.logspace(0, 3, 6, dtype=torch.float64)

    def steep(x: Tensor) -> tuple[float, Tensor]:
        inner = scale * (x - 1)
        return float(torch.cosh(inner / 100).log().sum()), scale / 100 * torch.tanh(inner / 100)

    start = torch.full((6,), -3.0, dtype=torch.float64)
    value, x, gradient = minimise(
        steep, start, lambda x: lambda g: 1000 * g, lambda g: float(g.abs().max()) < 1e-8, 2000
    )
    assert value == pytest.approx(0, abs=1e-9)
    assert float(gradient.abs().max()) < 1e-8
    torch.testing.assert_close(x, torch.ones(6, dtype=torch.float64), atol=1e-3, rtol=0)


def test_least_squares_equals_a_fit_to_the_samples() -> None:
    z, labels, weight, bias = problem(12)
    head = refit_least_squares(UNEVEN, Moments.of(z, labels, 4), weight, bias)
    logits = (z @ weight.T + bias).double()
    centred = logits - logits.mean(1, keepdim=True)
    for c, kept in enumerate(UNEVEN):
        design = torch.cat([z.double()[:, kept], torch.ones(len(z), 1).double()], 1)
        solution = torch.linalg.lstsq(design, centred[:, c : c + 1]).solution[:, 0]
        torch.testing.assert_close(
            head.dense_weight()[c, kept].detach().double(), solution[:-1], rtol=1e-4, atol=1e-4
        )
        assert head.bias[c].item() == pytest.approx(solution[-1].item(), abs=1e-3)


def test_bad_input() -> None:
    z, labels, weight, bias = problem(14)
    good: list[Block] = [(z, labels)]
    with pytest.raises(InputError, match="weight or bias holds NaN or infinite values"):
        refit_softmax(UNEVEN, good, weight * float("nan"), bias)
    with pytest.raises(InputError, match=r"found \(4, 10\) and \(3,\)"):
        refit_softmax(UNEVEN, good, weight, bias[:3])
    with pytest.raises(InputError, match=r"shape \(n_samples, 10\) for this head, found \(400, 9"):
        refit_softmax(UNEVEN, [(z[:, :9], labels)], weight, bias)
    with pytest.raises(InputError, match="features hold NaN or infinite values"):
        refit_softmax(UNEVEN, [(z / 0, labels)], weight, bias)
    with pytest.raises(InputError, match=r"labels of shape \(400,\).*found \(399,\)"):
        refit_softmax(UNEVEN, [(z, labels[1:])], weight, bias)
    with pytest.raises(InputError, match=r"labels must lie in \[0, 4\) to be fitted, found 4 … 5"):
        refit_softmax(UNEVEN, [(z, labels + 4)], weight, bias, labels=True)
    with pytest.raises(InputError, match="no samples to fit"):
        refit_softmax(UNEVEN, [(z[:0], labels[:0])], weight, bias)
    with pytest.raises(InputError, match="can be read only once: give a list"):
        refit_softmax(UNEVEN, iter(good), weight, bias)
    with pytest.raises(InputError, match="temperature must be a number above 0, found 0"):
        refit_softmax(UNEVEN, good, weight, bias, temperature=0)
    with pytest.raises(InputError, match="tolerance must be above 0, found -1"):
        refit_softmax(UNEVEN, good, weight, bias, tolerance=-1)
    with pytest.raises(InputError, match="prior must be a number, 0 or more, found -1"):
        refit_softmax(UNEVEN, good, weight, bias, pull=-1)
    with pytest.raises(InputError, match=r"logits reach about .e\+4. on these features"):
        refit_softmax(UNEVEN, [(z * 1e25, labels)], weight * 1e20, bias)
    with pytest.raises(InputError, match=r"= \(4, 11\) and the dense head has \(4, 10\)"):
        refit_softmax(Subspaces.of([[0]] * 4, 11), good, weight, bias)
    moments = Moments.of(z, labels, 4)
    with pytest.raises(InputError, match=r"= \(4, 11\) and the dense head has \(4, 10\)"):
        refit_least_squares(Subspaces.of([[0]] * 4, 11), moments, weight, bias)
    with pytest.raises(InputError, match=r"weight of shape \(4, 10\).*found \(3, 10\)"):
        refit_least_squares(UNEVEN, moments, weight[:3], bias[:3])
