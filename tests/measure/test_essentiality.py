from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from penult.features.features import Features
from penult.features.influence import SCORES, Evidence, influence
from penult.measure.class_samples import ClassSamples
from penult.measure.essentiality import (
    MODES,
    Edits,
    Replacements,
    essentiality,
    matched_sets,
    random_sets,
)
from penult.measure.faithfulness import curve_steps, edit_curves, faithfulness
from penult.network.head import Head

K, N_FEATURES = 3, 20


def planted(n_classes: int = 4, n: int = 800) -> tuple[Features, Tensor]:
    """A network whose class c reads exactly the features 3c, 3c + 1, 3c + 2, and is always right.

    Features that no class reads are louder than those that are read, and every sample has a rival:
    the next class, whose features reach almost as high. Its mean alone does not save a class then.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(n) % n_classes
    sets = torch.arange(n_classes * K).view(n_classes, K)
    z = 0.2 * torch.rand(n, N_FEATURES, generator=generator)
    z[:, n_classes * K :] += 3 * torch.rand(n, N_FEATURES - n_classes * K, generator=generator)
    z.scatter_add_(1, sets[labels], 1 + torch.rand(n, K, generator=generator))
    z.scatter_add_(1, sets[(labels + 1) % n_classes], torch.full((n, K), 0.75))
    weight = torch.zeros(n_classes, N_FEATURES).scatter_(1, sets, 1.0)
    return Features.of(z, labels, weight), sets


def source_of(features: Features) -> Replacements:
    z, _ = features.arrays()
    return Replacements(z.mean(0), z.std(0), z)


def measured(features: Features, sets: Tensor, n_seeds: int = 4) -> dict[str, Any]:
    sample = ClassSamples.of(features, len(sets))
    sizes = torch.stack([z.abs().mean(0) for z in sample.classes()]).double()
    source = source_of(features)
    return essentiality(sample, features.require_head(), source, sizes, {K: sets}, K, n_seeds, 0)


def test_a_planted_class_dies_with_its_three_features_and_lives_on_them_alone() -> None:
    features, sets = planted()
    found = measured(features, sets)
    assert found["dense_accuracy"] == 1
    for mode in MODES:
        cells = found["replaced"][mode]
        drop, keep = cells["influential"]["drop"], cells["influential"]["keep"]
        # Another image is one of the same class in four, and then its features are, too.
        assert drop["mean"] < (0.45 if mode == "permutation" else 0.35), mode
        assert keep["mean"] > (0.5 if mode == "permutation" else 0.9), mode
        assert cells["random"]["drop"]["mean"] > 0.75, mode
        assert cells["random"]["drop"]["mean"] > drop["mean"] + 0.4, mode
        assert drop["interval"][0] <= drop["mean"] <= drop["interval"][1]
    # The features that no class reads can all go.
    unread = torch.arange(12, 18).view(1, 6).repeat(4, 1)[:, :K]
    others = measured(features, unread)
    for mode in MODES:
        cell = others["replaced"][mode]["influential"]
        assert cell["drop"]["mean"] == 1
        assert cell["drop"]["mistaken"] == 0
    mean_only = others["replaced"]["mean"]["influential"]["keep"]
    assert mean_only["mean"] == pytest.approx(mean_only["mistaken"]), "it says nothing of the class"


def test_replacing_equals_a_loop_over_samples() -> None:
    features, sets = planted(n=40)
    head = features.require_head()
    z, _ = features.arrays()
    replacement = torch.randn(z.shape, generator=torch.Generator().manual_seed(1))
    logits_of = Edits(z, replacement, head).logits(sets[2])
    for edit in ("drop", "keep"):
        expected = []
        for row, other in zip(z.tolist(), replacement.tolist(), strict=True):
            kept = [
                (a if (j in sets[2].tolist()) == (edit == "keep") else b)
                for j, (a, b) in enumerate(zip(row, other, strict=True))
            ]
            expected.append(
                [sum(w * x for w, x in zip(ws, kept, strict=True)) for ws in head.weight.tolist()]
            )
        np.testing.assert_allclose(logits_of[edit], expected, atol=1e-5)


def test_by_the_mean_it_equals_a_slow_sum() -> None:
    features, sets = planted(n=60)
    found = measured(features, sets)
    z, labels = features.arrays()
    head, centre = features.require_head(), z.mean(0)
    right = 0
    for row, label in zip(z, labels.tolist(), strict=True):
        edited = row.clone()
        edited[sets[label]] = centre[sets[label]]
        right += int(head(edited[None]).argmax()) == label
    assert found["replaced"]["mean"]["influential"]["drop"]["mean"] == pytest.approx(right / 60)
    assert found["curves"][0]["influential"]["drop"]["mean"] == pytest.approx(right / 60)


def test_replacements_have_the_moments_they_promise() -> None:
    features, _ = planted()
    source, n = source_of(features), 40_000
    drawn = {
        mode: make(source, n, torch.Generator().manual_seed(2)).double()
        for mode, make in MODES.items()
    }
    zeros, ones = torch.zeros(N_FEATURES), torch.ones(N_FEATURES)
    expected = {
        "standard_normal": (zeros, ones),
        "matched_noise": (source.mean, source.std),
        "mean": (source.mean, zeros),
        "permutation": (source.mean, source.std),
    }
    assert set(expected) == set(MODES)
    for mode, (mean, std) in expected.items():
        np.testing.assert_allclose(drawn[mode].mean(0), mean, atol=0.03, err_msg=mode)
        np.testing.assert_allclose(drawn[mode].std(0), std, atol=0.03, err_msg=mode)
    rows = {tuple(row.tolist()) for row in source.others}
    assert all(tuple(row.tolist()) in rows for row in drawn["permutation"][:50].float())


def test_controls_are_sets_of_the_same_size() -> None:
    generator = torch.Generator().manual_seed(3)
    sizes = torch.rand(4, N_FEATURES, generator=generator, dtype=torch.float64)
    sets = random_sets(4, N_FEATURES, 5, generator)
    matched = matched_sets(sets, sizes, generator)
    assert matched is not None
    for own, control, size in zip(sets.tolist(), matched.tolist(), sizes, strict=True):
        assert len(set(control)) == 5
        assert not set(own) & set(control)
        apart = (size[own] - size[control]).abs()
        left = [j for j in range(N_FEATURES) if j not in own]
        assert float(apart.mean()) < float((size[own][:, None] - size[left]).abs().mean())
    assert matched_sets(random_sets(4, 9, 5, generator), sizes[:, :9], generator) is None


def test_curves_equal_a_loop_that_edits_one_feature_at_a_time() -> None:
    features, _ = planted(n=24)
    generator = torch.Generator().manual_seed(4)
    head = Head("", torch.randn(4, N_FEATURES, generator=generator), torch.randn(4))
    sample = ClassSamples.of(features, 4)
    order = torch.rand(4, N_FEATURES, generator=generator).argsort(1)
    baseline = features.arrays()[0].mean(0)
    found = edit_curves(sample, head, order, baseline)
    assert found.steps.tolist() == list(range(N_FEATURES + 1))
    labels = torch.arange(4).repeat_interleave(sample.counts)
    for i, (row, label) in enumerate(zip(sample.z, labels.tolist(), strict=True)):
        deleted, inserted = row.clone(), baseline.clone()
        for m in range(N_FEATURES + 1):
            if m:
                j = order[label, m - 1]
                deleted[j], inserted[j] = baseline[j], row[j]
            assert bool(found.deletion[i, m]) == (int(head(deleted[None]).argmax()) == label)
            assert bool(found.insertion[i, m]) == (int(head(inserted[None]).argmax()) == label)
    areas = found.areas(found.deletion)
    for i in range(24):
        expected = np.trapezoid(found.deletion[i].double(), np.arange(21) / 20)
        assert float(areas[i]) == pytest.approx(expected)


def test_faithful_scores_beat_the_control_on_a_planted_network() -> None:
    features, sets = planted()
    head = features.require_head()
    evidence = Evidence.of(features, ks=[K])
    sample = ClassSamples.of(features, 4)
    baseline = features.arrays()[0].mean(0)
    found = faithfulness(sample, head, evidence, baseline, K, 5)["scores"]
    assert set(found) == set(SCORES)
    assert (
        influence("magnitude", evidence, K).topk(K).indices.sort().values.tolist() == sets.tolist()
    )
    for name in ("magnitude", "wanda", "contribution"):
        assert found[name]["deletion"]["interval"][1] < found["random"]["deletion"]["interval"][0]
        assert found[name]["insertion"]["interval"][0] > found["random"]["insertion"]["interval"][1]
    # The loud features that no class reads come first by frequency: it is not faithful here.
    assert found["frequency"]["insertion"]["area"] < found["magnitude"]["insertion"]["area"]


def test_steps_of_wide_layers_are_few_and_keep_the_small_ones() -> None:
    steps = curve_steps(2048).tolist()
    assert steps[:5] == [0, 1, 2, 3, 5]
    assert steps[-1] == 2048
    assert len(steps) < 80
