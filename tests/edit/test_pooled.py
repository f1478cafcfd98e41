"""Features tested over many classes of a few samples each."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from browsing import Open
from command import penult
from penult.edit.balance import Calibrated
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast
from penult.features.features import Features
from penult.intervals import upper_tail
from penult.network.head import Head
from penult.report.report import Report
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run

N_CLASSES, N_FEATURES, OVERUSED = 200, 30, 7


def drawn(n: int, seed: int, factor: float, trained: bool = False) -> Features:
    """Labels drawn from a head's probabilities; the head that is kept overuses one feature.

    In samples of its training the feature goes with the class as strongly as the head believes.
    """
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(N_CLASSES, N_FEATURES, generator=torch.Generator().manual_seed(0))
    kept = weight.clone()
    kept[:, OVERUSED] *= factor
    z = torch.randn(n, N_FEATURES, generator=g)
    true = kept if trained else weight
    labels = torch.multinomial((z @ true.T).softmax(1), 1, generator=g)[:, 0]
    return Features.of(z, labels, kept, torch.zeros(N_CLASSES))


def scores(seed: int, factor: float) -> Tensor:
    features, trained = drawn(800, seed, factor), drawn(1500, seed + 100, factor, trained=True)
    head = features.require_head()
    parts = [Calibrated.of(LogitTable(part, head)) for part in (features, trained)]
    chosen = torch.bincount(features.labels(), minlength=N_CLASSES) < 20
    return Contrast(*parts).factors(chosen).score


def test_scores_spread_no_wider_than_chance_where_nothing_is_overused() -> None:
    found = torch.stack([scores(seed, 1.0) for seed in range(3)])
    assert 0.3 < float(found.std()) < 1.25
    assert float((upper_tail(found) < 0.01).double().mean()) < 0.03


def test_a_feature_that_all_classes_overuse_is_found_with_four_samples_of_a_class() -> None:
    for seed in range(3):
        score = scores(seed, 1.8)
        assert int(score.argmax()) == OVERUSED
        assert float(upper_tail(score)[OVERUSED]) < 1e-3


def test_it_is_the_derivative_by_a_common_factor() -> None:
    """Against a numerical derivative of the loss, on heads without any calibration left to do."""
    features = drawn(500, 3, 1.5)
    head = features.require_head()
    table = LogitTable(features, head)
    logits, one, none = table.logits, torch.ones(1), torch.zeros(N_CLASSES)
    chosen = torch.arange(N_CLASSES) < 120
    plain = Calibrated(table, (one, one), (none, none))
    score = Contrast(plain, None).factors(chosen).score
    z, labels = features.arrays()
    x = (z - z.mean(0)).double()
    centred = (head.weight - head.weight.mean(0)).double()
    for j in (0, OVERUSED):
        moved = x[:, j, None] * torch.where(chosen, centred[:, j], 0.0)

        def loss(step: float, moved: Tensor = moved) -> Tensor:
            logs = (logits.double() + step * moved).log_softmax(1)
            return -logs[torch.arange(500), labels]

        parts = (loss(1e-4) - loss(-1e-4)) / 2e-4
        expected = parts.sum() / parts.square().sum().sqrt()
        assert float(score[j]) == pytest.approx(float(expected), abs=1e-3)


def test_the_command_and_the_page_tell_of_the_features_of_all_classes_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], visit: Open
) -> None:
    run = analyze_features(
        drawn(900, 1, 1.8, trained=True), drawn(800, 2, 1.8), tmp_path / "r", Options(fit=False)
    )
    assert penult("shortcuts", str(run.folder)) == 0
    said = capsys.readouterr().out
    assert "of 30 features are suspects over all" in said
    assert "analyse with --eval and 20 images or more of a class" in " ".join(said.split())
    assert penult("shortcuts", str(run.folder), "--json") == 0
    found = json.loads(capsys.readouterr().out)
    first = found["pooled"]["features"][0]
    assert (first["feature"], first["overuse"]["suspect"]) == (OVERUSED, True)
    head = run.train().require_head()
    z, labels = run.evaluation().arrays()
    off = z.clone()
    off[:, OVERUSED] = run.train().arrays()[0][:, OVERUSED].double().mean()
    expected = (Head("", head.weight, head.bias)(off).argmax(1) == labels).double().mean()
    assert first["off"]["after"] == pytest.approx(float(expected), abs=2e-3)
    seen = visit(Report.of(Run.open(run.folder), k=1, select="magnitude").html(), "suspects")
    text = seen.text("#other-view")
    assert "Over all classes with few images" in text
    assert "1 feature is a suspect" in text or "features are suspects" in text
