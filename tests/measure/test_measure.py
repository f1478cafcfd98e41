from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

from command import penult
from penult.errors import InputError
from penult.features.features import Features
from penult.measure import Settings, compare_runs, measure_features, measure_run
from penult.measure.plots import plot_measures
from penult.measure.tables import classes_seen_first, measures_page
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run

NAMES = ("ant", "bee", "cat")
QUICK = Settings(n_replicates=20, n_seeds=2)


def data(seed: int = 0, n: int = 240, d: int = 12, signed: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 3
    z = torch.randn(n, d, generator=generator)
    z[torch.arange(n)[:, None], labels[:, None] * 2 + torch.arange(2)] += 2.5
    return z if signed else z.relu(), labels


def features_of(seed: int = 0, names: tuple[str, ...] = NAMES, **options: Any) -> Features:
    z, labels = data(seed, **options)
    means = torch.stack([z[labels == c].mean(0) for c in range(3)])
    weight = means - means.mean(0)
    return Features.of(z, labels, weight, -(weight * means).sum(1) / 2, names)


def held_out(seed: int) -> Features:
    z, labels = data(seed, n=120)
    return Features.of(z, labels, class_names=NAMES)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("measure") / "run"
    return analyze_features(features_of(0), held_out(1), folder)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("measure") / "other"
    return analyze_features(features_of(2), held_out(3), folder, Options(fit=False))


def test_the_document_is_written_and_printed(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert penult("measure", str(run.folder), "--json", "--seed", "3") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((run.folder / "measures.json").read_text())
    assert printed["format"] == "penult-measures/1"
    assert printed["settings"]["seed"] == 3
    assert printed["evaluated_on"] == "eval"
    assert 0 < printed["selectivity"]["psi"]["0.5"]["mean"] < 1
    assert 0 < printed["selectivity"]["mu"]["mean"] < 1
    families = {"selectivity", "overlap", "dimension", "essentiality", "stability", "faithfulness"}
    assert families <= set(printed)
    assert printed["left_out"] == {}
    assert printed["dimension"]["decision"]["k"]["smallest"] >= 1
    assert "NaN" not in json.dumps(printed)


def test_the_same_seed_gives_the_same_document(run: Run) -> None:
    first = measure_run(run, QUICK)
    assert measure_run(run, QUICK) == first
    other_seed = Settings(seed=1, n_replicates=20, n_seeds=2)
    assert measure_run(run, other_seed)["stability"] != first["stability"]


def test_the_default_dtype_is_not_followed() -> None:
    features = features_of()
    expected = measure_features(features, features.head)
    try:
        torch.set_default_dtype(torch.float64)
        found = measure_features(features, features.head)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found == expected


def test_pages_and_plots(
    run: Run, other: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert penult("measure", str(run.folder), "--plots", str(tmp_path / "one")) == 0
    page = capsys.readouterr().out
    for said in ("Selectivity", "Overlap of classes", "Essentiality", "deletion area", "nc1"):
        assert said in page
    drawn = {path.name for path in (tmp_path / "one").iterdir()}
    assert drawn == {
        f"{name}.png"
        for name in ("selectivity", "spectra", "overlap", "stability", "decision", "essentiality",
                     "curves", "faithfulness")
    }  # fmt: skip
    both = [str(run.folder), str(other.folder)]
    plots = ("--plots", str(tmp_path / "two"), "--plot-format", "pdf")
    assert penult("measure", "--compare", *both, *plots) == 0
    assert "The same story?" in capsys.readouterr().out
    (file,) = (tmp_path / "two").iterdir()
    assert file.name == "comparison.pdf"
    assert file.read_bytes().startswith(b"%PDF")


def test_a_layer_without_a_head_leaves_out_what_needs_one() -> None:
    whole = features_of()
    z, labels = whole.arrays()
    headless = Features.of(z, labels, class_names=NAMES)
    found = measure_features(headless, settings=QUICK, layer="layer2")
    expected = measure_features(whole, whole.require_head(), settings=QUICK)
    assert found["layer"] == "layer2"
    assert found["essentiality"] is found["faithfulness"] is None
    assert found["dimension"]["decision"] is found["stability"]["contribution"] is None
    assert set(found["left_out"]) == {
        "dimension.decision", "essentiality", "faithfulness", "stability.contribution",
        "overlap.confusion",
    }  # fmt: skip
    for family in ("selectivity", "stability"):
        for name, value in found[family].items():
            if value is not None:
                assert value == expected[family][name]
    assert set(expected["left_out"]) == {"dimension.decision.k", "dimension.decision confident"}
    assert expected["dimension"]["decision"]["directions"]["confident"] is None


def test_order_of_the_classes_and_features_moves_the_document_with_it() -> None:
    # Signed, since of equal shares (of zeros, after a ReLU) the first is taken.
    whole = features_of(signed=True)
    head = whole.require_head()
    z, labels = whole.arrays()
    place, order = torch.tensor([2, 0, 1]), torch.randperm(12)
    back = place.argsort()
    moved = Features.of(
        z[:, order], place[labels], head.weight[back][:, order], head.bias[back],
        [NAMES[c] for c in back],
    )  # fmt: skip
    one = measure_features(whole, head, settings=QUICK)
    two = measure_features(moved, moved.require_head(), settings=QUICK)
    for family, path in (
        ("selectivity", ("psi", "0.5", "mean")), ("selectivity", ("mu", "mean")),
        ("overlap", ("distributions", "mean_overlap")),
        ("dimension", ("covariance", "participation_ratio", "value")),
        ("dimension", ("collapse", "nc1", "value")),
        ("dimension", ("decision", "dense_accuracy")),
        ("faithfulness", ("scores", "magnitude", "deletion", "area")),
    ):  # fmt: skip
        first, second = one[family], two[family]
        for key in path:
            first, second = first[key], second[key]
        assert first == pytest.approx(second, rel=1e-6), path
    np.testing.assert_allclose(
        np.array(two["overlap"]["confusion"]["table"])[place][:, place],
        one["overlap"]["confusion"]["table"],
    )


def test_dead_and_negative_features_and_small_classes_are_named(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    z, labels = data(5, signed=True)
    z[:, [3, 7]] = 0
    keep = (labels != 1) | (torch.arange(len(labels)) == 1)
    z, labels = z[keep], labels[keep]
    weight = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    features = Features.of(z, labels, weight, class_names=(*NAMES, "dog"))
    found = measure_features(features, features.require_head(), settings=QUICK)
    assert found["dead"] == {"n": 2, "features": [3, 7]}
    assert found["share"] == "|z|"
    assert found["few_samples"] == {"none": ["dog"], "one": ["bee"]}
    assert found["selectivity"]["psi"]["0.5"]["classes"]["mean"][3] is None
    assert found["stability"]["frequency"]["classes"][1] is None
    assert found["dimension"]["intrinsic"]["classes"][1]["value"] is None
    assert found["selectivity"]["mu"]["units"][3] == 0
    assert all(0 <= unit <= 1 for unit in found["selectivity"]["mu"]["units"])
    run = analyze_features(features, None, tmp_path / "run", Options(fit=False))
    assert penult("measure", str(run.folder), "--plots", str(tmp_path / "plots")) == 0
    page = " ".join(capsys.readouterr().out.split())
    assert "2 features never change: 3, 7" in page
    assert "classes with one sample: bee" in page
    assert "features can be negative" in page


def test_classes_with_samples_come_first_on_the_page_and_the_plot(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    z, names = torch.rand(60, 6, generator=generator), [f"class {c}" for c in range(50)]
    labels = torch.tensor([49, 47])[torch.arange(60) % 2]
    features = Features.of(z, labels, torch.randn(50, 6, generator=generator), class_names=names)
    document = measure_features(features, features.require_head())
    assert classes_seen_first(document)[:3] == [47, 49, 0]
    with Console(width=200, record=True, quiet=False, file=io.StringIO()) as console:
        console.print(measures_page(document))
    page = console.export_text()
    assert "class 0, class 1" in page.split("classes with no samples: ")[1].split("\n")[0]
    assert "and 38 more" in page
    rows = [line for line in page.splitlines() if line.startswith("class ")]
    listed = [line for line in rows if line[6].isdecimal()]
    assert [line.split()[1] for line in listed[:3]] == ["47", "49", "0"]
    plot_measures(document, tmp_path, "svg")
    drawn = (tmp_path / "stability.svg").read_text()
    assert "class 47" in drawn
    assert "class 49" in drawn
    assert "like the set of all samples" in drawn


@pytest.mark.filterwarnings("default")
def test_letters_without_a_font_are_said_once_for_all_plots(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = measure_run(run)
    monkeypatch.setattr("penult.plotting.fonts_for", lambda text: (["DejaVu Sans"], ["日"]))
    with pytest.warns(UserWarning, match="no installed font has 日") as said:
        plot_measures(document, tmp_path)
    assert len(said) == 1


@pytest.mark.parametrize("n", [1, 2, 3])
def test_hardly_any_samples_give_nulls_and_no_error(n: int) -> None:
    z, labels = data(0, n=3)
    features = Features.of(z[:n], labels[:n], torch.randn(3, 12))
    found = measure_features(features, features.require_head(), settings=QUICK)
    json.dumps(found, allow_nan=False)
    assert found["n_samples"] == n


def test_one_feature_and_one_class_give_nulls_and_no_error() -> None:
    z, labels = data(0)
    narrow = Features.of(z[:, :1], labels, torch.randn(3, 1))
    json.dumps(measure_features(narrow, narrow.require_head(), settings=QUICK), allow_nan=False)
    alone = Features.of(z, torch.zeros_like(labels), torch.randn(1, 12))
    found = measure_features(alone, alone.require_head(), settings=QUICK)
    json.dumps(found, allow_nan=False)
    assert found["selectivity"]["mu"]["mean"] is None
    dead = Features.of(torch.zeros(9, 4), torch.arange(9) % 3, torch.randn(3, 4))
    found = measure_features(dead, dead.require_head(), settings=QUICK)
    json.dumps(found, allow_nan=False)
    assert found["n_silent"] == 9
    assert found["selectivity"]["psi"]["0.5"]["mean"] is None


def test_runs_side_by_side(run: Run, other: Run) -> None:
    found = compare_runs([run, other], QUICK)
    assert found["format"] == "penult-comparison/1"
    assert found["runs"] == [str(run.folder), str(other.folder)]
    own = json.loads((other.folder / "measures.json").read_text())
    psi = own["selectivity"]["psi"]["0.5"]
    assert found["rows"]["psi at 0.5"][1] == {"value": psi["mean"], "interval": psi["interval"]}
    assert found["rows"]["features per class for the decision"][1]["value"] is None
    assert found["rows"]["features per class for the decision"][0]["value"] >= 1
    (pair,) = found["agreement"]
    assert pair["confusions"]["rank_correlation"] is None, "so few classes say nothing"


def test_bad_input_is_one_line_and_status_2(
    run: Run, other: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    z, labels = data(4)
    strange = Features.of(z, labels, torch.randn(3, 12), class_names=("ant", "bee", "dog"))
    analyze_features(strange, None, tmp_path / "strange", Options(fit=False))
    unfinished = tmp_path / "unfinished"
    unfinished.mkdir()
    about = {**run.about, "complete": False}
    (unfinished / "run.json").write_text(json.dumps(about))
    here, there = str(run.folder), str(other.folder)
    cases = {
        (here, "--fraction", "1.5"): "a fraction for Ψ must lie in (0, 1), found 1.5",
        (here, "--fraction", "0"): "a fraction for Ψ must lie in (0, 1), found 0",
        (here, "-k", "0"): "k must be at least 1, found 0",
        (here, "--tolerance", "1"): "the tolerance must lie in (0, 1), found 1",
        (here, there): "2 runs: expected one, or --compare to line up several",
        ("--compare", here): "a comparison needs at least two runs, found 1",
        ("--compare", here, here): "the same run is given twice",
        ("--compare", here, str(tmp_path / "strange")): "(dog and cat): expected networks with the",
        (str(unfinished),): "is unfinished: run the command that writes it again",
        (str(tmp_path / "none"),): "is no run folder: it has no run.json",
    }
    for arguments, said in cases.items():
        assert penult("measure", *arguments) == 2, arguments
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        assert said in lines[0]


def test_evaluation_of_another_network_is_refused() -> None:
    features, narrow = features_of(), features_of(d=8)
    with pytest.raises(InputError, match="n_features is 12 in the features and 8"):
        measure_features(features, features.require_head(), narrow, settings=QUICK)
