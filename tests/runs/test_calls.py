"""What a run says before anything is concluded, and the samples that its accuracies come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penult.features.features import Features
from penult.features.shards import Block
from penult.heads.judge import CROSS_FIT, EVALUATION
from penult.network.head import Head
from penult.runs.analyze import Options, analyze_features
from penult.runs.calls import Calls, few_samples

NAMES = ["a", "b", "c", "d"]
FAST = Options(fit=False)


def features_of(per_class: int, seed: int = 0, shift: int = 0, d: int = 30) -> Features:
    """Four classes that the dense head tells apart; labels moved on by `shift`."""
    generator = torch.Generator().manual_seed(seed)
    means = torch.rand(4, d, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(4).repeat_interleave(per_class)
    z = (means[labels] + 0.3 * torch.randn(len(labels), d, generator=generator)).clamp(min=0)
    bias = -(means**2).sum(1) / 2
    return Features.of(z, (labels + shift) % 4, means, bias, NAMES)


def test_the_document_of_calls_counts_class_by_class() -> None:
    calls = Calls(Head("", torch.eye(3), torch.zeros(3)))
    given = torch.tensor([0, 0, 1, 1])
    calls.add(Block(torch.zeros(4, 3), torch.tensor([0, 0, 0, 1]), given, []))
    calls.add(Block(torch.eye(3)[:1], torch.tensor([0]), None, []))
    found = calls.document(["x", "y", "z"])
    assert found["accuracy"] == 0.8
    assert found["commonest"] == {"class": "x", "accuracy": 0.8}
    assert (found["n_samples"], found["n_right"]) == ([4, 1, 0], [3, 1, 0])
    assert found["interval"] == pytest.approx([0.3755, 0.9638], abs=1e-3)


def test_classes_with_few_samples_are_counted() -> None:
    assert few_samples(torch.tensor([5, 0, 9])) is None
    said = few_samples(torch.tensor([1, 0, 9, 4]))
    assert said is not None
    assert "2 of 3 classes have fewer than 5 analysed samples (1 only one)" in said


def test_a_run_says_what_its_accuracies_were_measured_on(tmp_path: Path) -> None:
    alone = analyze_features(features_of(40), None, tmp_path / "alone", FAST).summary()
    assert (alone["judge"]["kind"], alone["judge"]["n_folds"]) == (CROSS_FIT, 5)
    assert "new samples may lose more" in alone["judge"]["warning"]
    judged = analyze_features(features_of(40), features_of(9, 1), tmp_path / "b", FAST).summary()
    assert judged["judge"] == {
        "kind": EVALUATION,
        "n_samples": 36,
        "n_folds": 0,
        "own_labels": False,
        "warning": None,
    }
    for summary, n in ((alone, 160), (judged, 36)):
        assert summary["warnings"] == []
        assert summary["dense"]["commonest"]["accuracy"] == 0.25
        for rows in summary["influence"].values():
            for row in rows.values():
                counts = row["counts"]
                assert counts["n_samples"] == n == sum(summary["dense"]["n_samples"])
                assert row["accuracy"] == pytest.approx(
                    (counts["n_before"] - counts["lost"] + counts["won"]) / n
                )


@pytest.mark.parametrize("seed", range(5))
def test_few_samples_do_not_vouch_for_what_they_chose(seed: int, tmp_path: Path) -> None:
    """One sample a class and features of noise: the same sample would call its choice right."""
    generator = torch.Generator().manual_seed(seed)
    z, weight = torch.rand(40, 200, generator=generator), torch.rand(20, 200, generator=generator)
    features = Features.of(z, torch.arange(20).repeat(2), weight, -weight.sum(1) / 2)
    run = analyze_features(features, None, tmp_path / "run", FAST)
    assert "20 of 20 classes have fewer than 5" in run.summary()["warnings"][-1]
    rows = run.summary()["influence"]["contribution"]
    # As it was: chosen and judged by the same samples.
    head = run.head("contribution", 5)
    in_sample = float((head(z).argmax(1) == torch.arange(20).repeat(2)).double().mean())
    assert rows["5"]["accuracy"] <= 0.3
    assert rows["5"]["accuracy"] <= in_sample


def test_labels_in_another_order_are_said_before_anything_is_concluded(tmp_path: Path) -> None:
    run = analyze_features(features_of(40, shift=1), None, tmp_path / "run", FAST)
    (said,) = run.summary()["warnings"]
    assert said.startswith("analysed samples: accuracy is")
    assert "off by one" in said
    run = analyze_features(features_of(40), features_of(40, 1, 1), tmp_path / "b", FAST)
    (said,) = run.summary()["warnings"]
    assert said.startswith("evaluation samples: accuracy is")
