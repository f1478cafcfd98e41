from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from torch import Tensor

from penult.features.features import Features
from penult.features.moments import Moments
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import top_k
from penult.measure.class_samples import ClassSamples
from penult.measure.decision import decision, direction_sizes
from penult.measure.dimension import (
    class_subspaces,
    collapse,
    dimension_of,
    entropy_rank,
    intrinsic,
    n_components,
    participation_ratio,
    principal,
    scatter,
    spectra,
    two_nn,
)


def samples(seed: int = 0, n: int = 90, d: int = 6, n_classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(n_classes, (n,), generator=generator)
    centres = 2 * torch.randn(n_classes, d, generator=generator)
    return centres[labels] + torch.randn(n, d, generator=generator), labels


def test_scatter_and_collapse_equal_slow_sums() -> None:
    z, labels = samples()
    x = z.double().numpy()
    mean = x.mean(0)
    within, between = np.zeros((6, 6)), np.zeros((6, 6))
    means = np.stack([x[labels == c].mean(0) for c in range(3)])
    for row, label in zip(x, labels.numpy(), strict=True):
        within += np.outer(row - means[label], row - means[label]) / len(x)
        between += np.outer(means[label] - mean, means[label] - mean) / len(x)
    found = scatter(Moments.of(z, labels, 3))
    np.testing.assert_allclose(found["within"], within, atol=1e-10)
    np.testing.assert_allclose(found["between"], between, atol=1e-10)
    np.testing.assert_allclose(found["covariance"], np.cov(x.T, bias=True), atol=1e-10)
    np.testing.assert_allclose(found["second_moment"], x.T @ x / len(x), atol=1e-10)
    collapsed = collapse(Moments.of(z, labels, 3))
    pinv = np.linalg.pinv(between, rcond=1e-9)
    assert collapsed["nc1"] == pytest.approx(np.trace(within @ pinv) / 3, rel=1e-6)
    assert collapsed["within_over_between"] == pytest.approx(np.trace(within) / np.trace(between))
    arms = means - means.mean(0)
    norms = np.linalg.norm(arms, axis=1)
    assert collapsed["equinorm"] == pytest.approx(norms.std() / norms.mean())
    cosines = [arms[a] @ arms[b] / norms[a] / norms[b] for a in range(3) for b in range(a)]
    assert collapsed["equiangular"] == pytest.approx(np.mean(np.abs(np.array(cosines) + 0.5)))


def test_collapsed_classes_are_points_of_a_simplex() -> None:
    labels = torch.arange(4).repeat(5)
    found = collapse(Moments.of(torch.eye(4)[labels], labels, 4))
    assert found == pytest.approx(dict.fromkeys(found, 0), abs=1e-9)


def test_ranks_of_known_spectra() -> None:
    values = torch.tensor([1.0, 1, 1, 1, 0, 0], dtype=torch.float64)
    assert participation_ratio(values) == pytest.approx(4)
    assert entropy_rank(values) == pytest.approx(4)
    assert [n_components(values, f) for f in (0.25, 0.5, 0.51, 0.99)] == [1, 2, 3, 4]
    assert np.isnan(participation_ratio(torch.zeros(3)))
    assert n_components(torch.zeros(3), 0.9) is None
    assert participation_ratio(7 * values) == pytest.approx(4), "scale changes nothing"


def test_order_scale_and_rotation_leave_the_spectra() -> None:
    z, labels = samples(1)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(2))).Q
    place = torch.tensor([2, 0, 1])
    changes = [(z.flip(0), labels.flip(0)), (3 * z @ rotation, labels), (z, place[labels])]
    expected = spectra([Moments.of(z, labels, 3)])
    for changed, others in changes:
        found = spectra([Moments.of(changed, others, 3)])
        for name in ("covariance", "within", "between", "second_moment"):
            for statistic in ("participation_ratio", "entropy_rank"):
                got, want = found[name][statistic]["value"], expected[name][statistic]["value"]
                assert got == pytest.approx(want, rel=1e-5)
        assert found["collapse"]["nc1"]["value"] == pytest.approx(
            expected["collapse"]["nc1"]["value"], rel=1e-4
        )


def test_jackknife_interval_is_about_the_spread_over_new_samples() -> None:
    values, widths = [], []
    for seed in range(60):
        z = torch.randn(400, 5, generator=torch.Generator().manual_seed(seed))
        z = z * torch.tensor([3.0, 2, 1, 1, 1])
        labels = torch.zeros(400, dtype=torch.int64)
        groups = [Moments.of(z[g::20], labels[g::20], 1) for g in range(20)]
        found = spectra(groups)["covariance"]["participation_ratio"]
        values.append(found["value"])
        widths.append(found["interval"][1] - found["interval"][0])
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.std(values), rel=0.25)


def cube(d: int, n: int, seed: int) -> Tensor:
    return torch.rand(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("d", [1, 2, 4, 6])
def test_intrinsic_dimension_of_manifolds_of_known_dimension(d: int) -> None:
    generator = torch.Generator().manual_seed(d)
    basis = torch.linalg.qr(torch.randn(20, d, generator=generator)).Q
    flat = cube(d, 3000, d) @ basis.T
    assert dimension_of(two_nn(flat)) == pytest.approx(d, rel=0.1)
    sphere = torch.randn(3000, d + 1, generator=generator)
    sphere = sphere / sphere.norm(dim=1, keepdim=True)
    assert dimension_of(two_nn(sphere)) == pytest.approx(d, rel=0.1)
    assert dimension_of(two_nn(5 * flat)) == pytest.approx(dimension_of(two_nn(flat)), rel=1e-3)


def test_two_nn_equals_sorted_distances_and_leaves_copies_out() -> None:
    z = cube(3, 60, 0)
    distances = torch.cdist(z.double(), z.double()).sort(dim=1).values
    expected = (distances[:, 2] / distances[:, 1]).log()
    np.testing.assert_allclose(two_nn(z).sort().values, expected.sort().values, atol=1e-6)
    doubled = two_nn(torch.cat([z, z[:5]]))
    assert len(doubled) == 55, "a point and its copy have no nearest distance"
    assert len(two_nn(z[:2])) == 0


def test_intrinsic_dimension_of_small_classes_is_null() -> None:
    z = cube(2, 400, 1)
    labels = torch.cat([torch.zeros(398), torch.tensor([1, 2])]).long()
    found = intrinsic(ClassSamples.of(Features.of(z, labels), 4), 100, 0)
    assert found["value"] == pytest.approx(2, rel=0.15)
    low, high = found["interval"]
    assert low < found["value"] < high
    assert list(found["by_n_samples"]) == ["400", "200", "100"]
    assert [np.isnan(row["value"]) for row in found["classes"]] == [False, True, True, True]
    assert [row["interval"] is None for row in found["classes"]] == [False, True, True, True]


def test_principal_directions_and_angles_equal_a_singular_value_decomposition() -> None:
    z, labels = samples(3, n=40, d=8)
    sample = ClassSamples.of(Features.of(z, labels), 3)
    found = class_subspaces(sample, 2)
    bases = []
    for x in sample.classes():
        _, values, vectors = np.linalg.svd(x.double().numpy(), full_matrices=False)
        got, directions = principal(x, 2)
        size = min(len(x), 8)
        np.testing.assert_allclose(got[:size], values[:size] ** 2 / len(x), atol=1e-9)
        np.testing.assert_allclose(
            (directions.T @ torch.from_numpy(vectors[:2].T)).abs(), np.eye(2), atol=1e-6
        )
        bases.append(vectors[:2].T)
    for a in range(3):
        for b in range(a):
            angles = subspace_angles(bases[a], bases[b])
            assert float(found["overlap"][a, b]) == pytest.approx(np.mean(np.cos(angles) ** 2))
            assert float(found["smallest_angle"][a, b]) == pytest.approx(
                np.degrees(angles.min()), abs=1e-5
            )


def test_fewer_samples_than_features_span_their_own_subspace() -> None:
    z, _ = samples(4, n=3, d=9)
    values, directions = principal(z, 5)
    assert directions.shape == (9, 3)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-9)
    assert len(values) == 3


def test_two_classes_have_one_direction_and_fitted_samples_vouch_for_nothing() -> None:
    z = torch.randn(400, 5, generator=torch.Generator().manual_seed(0))
    weight = torch.randn(2, 5, generator=torch.Generator().manual_seed(1))
    features = Features.of(z, (z @ weight.T).argmax(1), weight)
    moments = Moments.of(z, features.labels(), 2)
    found = decision(moments, features.require_head(), features, {}, 0.01, vouches=False)
    assert found["directions"]["trivial"] is True
    assert (found["directions"]["smallest"], found["directions"]["confident"]) == (1, None)
    found = decision(moments, features.require_head(), features, {}, 0.01)
    assert found["directions"]["confident"] == 1


def test_a_decision_in_a_plane_needs_two_directions() -> None:
    generator = torch.Generator().manual_seed(5)
    z = torch.randn(3000, 12, generator=generator)
    angles = torch.arange(8) * (2 * torch.pi / 8)
    weight = torch.zeros(8, 12)
    weight[:, 3], weight[:, 7] = angles.cos(), angles.sin()
    labels = (z @ weight.T).argmax(1)
    # A shift common to all classes is no part of the decision.
    features = Features.of(z, labels, weight + torch.randn(12, generator=generator), None)
    head = features.require_head()
    moments = Moments.of(z, labels, 8)
    heads = {k: SparseHead.from_dense(weight, None, top_k(weight.abs(), k)) for k in (1, 2, 3)}
    found = decision(moments, head, features, heads, 0.005)
    assert found["dense_accuracy"] == 1
    assert found["directions"]["smallest"] == found["directions"]["confident"] == 2
    assert [found["k"][name] for name in ("possibly", "smallest", "confident")] == [2, 2, 2]
    # Slowly, by projecting whole logits.
    logits = (z @ head.weight.T).double().numpy()
    logits -= logits.mean(1, keepdims=True)
    middle = logits.mean(0)
    _, _, rows = np.linalg.svd(logits - middle, full_matrices=False)
    for step in found["directions"]["steps"]:
        basis = rows[: step["n"]]
        seen = middle + (logits - middle) @ basis.T @ basis
        expected = np.mean(seen.argmax(1) == labels.numpy())
        assert step["accuracy"] == pytest.approx(expected, abs=1e-3)


def test_sizes_of_many_classes_grow_to_the_last() -> None:
    assert direction_sizes(10) == list(range(10))
    sizes = direction_sizes(1000)
    assert sizes[:65] == list(range(65))
    assert sizes[-1] == 999
    assert len(sizes) < 100
