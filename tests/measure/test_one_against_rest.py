"""Measures of a network with a sigmoid per class, against numbers by numpy and scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, balanced_accuracy_score

from command import penult
from penult.features.features import Features
from penult.measure import Settings, compare_runs, measure_run
from penult.measure.class_samples import ClassSamples
from penult.measure.compare import measure_layers
from penult.measure.measures import measure_features
from penult.runs.run import Run

QUICK = Settings(n_replicates=20, n_seeds=3)


@pytest.fixture(scope="module")
def measured(two_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run = Run.open(two_digits / "run")
    return measure_features(run.train(), run.train().require_head(), run.held_out(), settings=QUICK)


def naive(two_digits: Path, part: str) -> tuple[Any, Any, Any]:
    """Features, labels and logits of a part as arrays."""
    run = Run.open(two_digits / "run")
    features = run.train() if part == "train" else run.evaluation()
    head, (z, labels) = features.require_head(), features.arrays()
    logits = z.double() @ head.weight.T.double() + head.bias.double()
    return z.double().numpy(), labels.numpy(), logits.numpy()


def test_decisions_by_class(two_digits: Path, measured: dict[str, Any]) -> None:
    _, labels, logits = naive(two_digits, "eval")
    assert len(measured["decisions"]) == 10
    for c, row in enumerate(measured["decisions"]):
        own = labels[:, c]
        assert row["n_positive"] == own.sum()
        assert row["n_samples"] == len(own)
        assert row["always_no"] == pytest.approx(1 - own.mean())
        assert row["accuracy"] == pytest.approx(((logits[:, c] > 0) == own).mean(), abs=3e-3)
        assert row["interval"][0] < row["accuracy"] < row["interval"][1]
        said = balanced_accuracy_score(own, logits[:, c] > 0)
        assert row["balanced"] == pytest.approx(said, abs=1e-2)
        precision = average_precision_score(own, logits[:, c])
        assert row["average_precision"] == pytest.approx(precision, abs=1e-3)


def test_what_does_not_apply_is_left_out_by_name(measured: dict[str, Any]) -> None:
    assert set(measured["left_out"]) == {
        "overlap.confusion",
        "dimension.within",
        "dimension.between",
        "dimension.collapse",
        "dimension.decision.k",
    }
    for name in ("within", "between", "collapse"):
        assert measured["dimension"][name] is None
        assert "multi-label" in measured["left_out"][f"dimension.{name}"]
    assert measured["overlap"]["confusion"] is None


def test_selectivity(two_digits: Path, measured: dict[str, Any]) -> None:
    z, labels, _ = naive(two_digits, "train")
    shares = np.sort(z, 1)[:, ::-1].cumsum(1) / z.sum(1, keepdims=True)
    m = (shares < 0.5 - 1e-9).sum(1)
    found = measured["selectivity"]["psi"]["0.5"]["classes"]["mean"]
    means = []
    for c in range(10):
        assert found[c] == pytest.approx(1 - m[labels[:, c]].mean() / z.shape[1], abs=1e-4)
        means.append(z[labels[:, c]].mean(0))
    ordered = np.sort(np.stack(means), 0)
    largest, rest = ordered[-1], ordered[:-1].mean(0)
    mu = (largest - rest) / (largest + rest + 1e-7)
    assert measured["selectivity"]["mu"]["units"] == pytest.approx(mu.tolist(), abs=1e-5)
    values = np.linalg.eigvalsh(np.cov(z.T, bias=True))
    ratio = values.sum() ** 2 / (values**2).sum()
    found = measured["dimension"]["covariance"]["participation_ratio"]
    assert found["value"] == pytest.approx(ratio, rel=1e-4)
    assert found["interval"][0] < ratio < found["interval"][1]


def test_directions_of_the_logits(two_digits: Path, measured: dict[str, Any]) -> None:
    z, _, own = naive(two_digits, "train")
    _, labels, logits = naive(two_digits, "eval")
    values, vectors = np.linalg.eigh(np.cov(own.T, bias=True))
    found = measured["dimension"]["decision"]
    assert found["k"] is None
    assert found["dense_accuracy"] == pytest.approx(((logits > 0) == labels).mean(), abs=1e-3)
    variances = found["directions"]["variances"]
    assert variances == pytest.approx(values[::-1].tolist(), rel=1e-3)
    steps = {step["n"]: step for step in found["directions"]["steps"]}
    assert max(steps) == 10  # a shift common to all classes decides, too
    assert steps[10]["loss"] == pytest.approx(0, abs=1e-3)
    middle = own.mean(0)
    for n in (1, 4, 7):
        basis = vectors[:, ::-1][:, :n]
        seen = middle + (logits - middle) @ basis @ basis.T
        assert steps[n]["accuracy"] == pytest.approx(((seen > 0) == labels).mean(), abs=2e-3)


def test_essentiality(two_digits: Path, measured: dict[str, Any]) -> None:
    """Of the mean as a replacement nothing is drawn, so that a loop gives the same."""
    run = Run.open(two_digits / "run")
    z, labels, logits = naive(two_digits, "eval")
    middle = naive(two_digits, "train")[0].mean(0)
    head = run.train().require_head()
    weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    found = measured["essentiality"]
    asked = found["replaced"]["mean"]["influential"]
    kept = {"drop": [0] * 10, "keep": [0] * 10}
    for c, features in enumerate(measured["overlap"]["sets"]):
        for edit in kept:
            edited = z[labels[:, c]].copy()
            gone = np.isin(np.arange(z.shape[1]), features) == (edit == "drop")
            edited[:, gone] = middle[gone]
            kept[edit][c] = int((edited @ weight[c] + bias[c] > 0).sum())
    n = labels.sum(0)
    for edit, counted in kept.items():
        close = 2.5 / n.min()  # rounding may turn a sample or two
        assert asked[edit]["classes"] == pytest.approx((counted / n).tolist(), abs=close)
        assert asked[edit]["mean"] == pytest.approx(sum(counted) / n.sum(), abs=3e-3)
        assert asked[edit]["interval"][0] < asked[edit]["mean"] < asked[edit]["interval"][1]
    given = (logits > 0)[labels].mean()
    assert found["dense_accuracy"] == pytest.approx(given, abs=3e-3)


def test_faithfulness(two_digits: Path, measured: dict[str, Any]) -> None:
    _, labels, logits = naive(two_digits, "eval")
    given = (logits > 0)[labels].mean()
    for curves in measured["faithfulness"]["scores"].values():
        assert curves["deletion"]["curve"][0] == pytest.approx(given, abs=3e-3)
        assert curves["insertion"]["curve"][-1] == pytest.approx(given, abs=3e-3)
        assert curves["deletion"]["curve"][-1] == curves["insertion"]["curve"][0]
    head = Run.open(two_digits / "run").train().require_head()
    z, middle = naive(two_digits, "eval")[0], naive(two_digits, "train")[0].mean(0)
    weight, bias = head.weight.double().numpy(), head.bias.double().numpy()
    n_given = 0
    for c in range(10):
        edited = z[labels[:, c]].copy()
        gone = np.argsort(-np.abs(weight[c]), kind="stable")[:5]
        edited[:, gone] = middle[gone]
        n_given += int((edited @ weight[c] + bias[c] > 0).sum())
    place = measured["faithfulness"]["steps"].index(5)
    curve = measured["faithfulness"]["scores"]["magnitude"]["deletion"]["curve"]
    assert curve[place] == pytest.approx(n_given / labels.sum(), abs=5e-3)


def test_the_interval_of_dependent_values() -> None:
    """Two values of each sample that are the same: as wide as that of one value of each."""
    z = torch.zeros(60, 2)
    both = torch.ones(60, 2, dtype=torch.bool)
    sample = ClassSamples.of(Features.of(z, both, multi_label=True), 2)
    values = torch.rand(60, generator=torch.Generator().manual_seed(0)).double()
    found = sample.by_sample(values.repeat(2))
    torch.testing.assert_close(found, values)
    some = torch.rand(60, 3, generator=torch.Generator().manual_seed(1)) < 0.4
    sample = ClassSamples.of(Features.of(torch.zeros(60, 2), some, multi_label=True), 3)
    members = torch.rand(int(some.sum()), generator=torch.Generator().manual_seed(2)).double()
    assert float(sample.by_sample(members).mean()) == pytest.approx(float(members.mean()))
    assert len(sample.by_sample(members)) == int(some.any(1).sum())


def test_a_bounded_part_of_many_sets_of_classes() -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.rand(400, 20, generator=generator) < 0.5  # hardly two sets are the same
    features = Features.of(torch.rand(400, 3), labels, multi_label=True)
    part = ClassSamples.of(features, 20, max_elements=300)
    assert len(part.z) == 100
    for c, rows in enumerate(part.members()):
        assert len(rows) == int(part.counts[c])
        others = part.others(rows, 50, generator)
        own = {tuple(row) for row in part.z[rows].tolist()}
        assert not own & {tuple(row) for row in others.tolist()}


def test_the_command(two_digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = two_digits / "run"
    assert penult("measure", str(run), "--plots", str(tmp_path / "plots")) == 0
    page = capsys.readouterr().out
    words = " ".join(page.split())
    assert "Decisions, one class against the rest" in words
    assert "left out: dimension.collapse: classes share samples" in words
    assert "samples of a class (%) still given it" in words
    assert (tmp_path / "plots" / "spectra.png").is_file()
    document = json.loads((run / "measures.json").read_text())
    assert document["dimension"]["decision"]["k"]["smallest"] >= 1
    assert document["decisions"][0]["n_positive"] > 0


def test_layers_and_runs_side_by_side(two_digits: Path) -> None:
    run = Run.open(two_digits / "run")
    found = measure_layers({"hidden": run.train()}, settings=QUICK)
    left = found["measures"]["hidden"]["left_out"]
    assert left["decisions"] == "no head reads this layer"
    assert "nc1" not in found["rows"]
    with pytest.raises(Exception, match="at least two runs"):
        compare_runs([run])
    assert measure_run(run, QUICK)["link"] == "sigmoid"
