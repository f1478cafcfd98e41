"""A run handed over to real trackers on this machine, and read back from them."""

from __future__ import annotations

import json
import sys
from contextlib import chdir
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from command import penult
from penult.errors import InputError
from penult.runs.run import Run
from penult.trackers.record import MOST_CLASSES, Record
from penult.trackers.registry import log_run
from penult.trackers.to_mlflow import metric_name
from penult.trackers.to_wandb import MOST_BYTES, fitting
from planted import run_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its page, and groups."""
    folder = tmp_path_factory.mktemp("tracked")
    made = run_of(folder, name="my run")
    assert penult("report", str(made.folder), "--no-maps") == 0
    return made


def accuracy(run: Run) -> float:
    z, labels = run.evaluation().arrays()
    head = run.train().require_head()
    return float(((z @ head.weight.T + head.bias).argmax(1) == labels).double().mean())


def test_a_record_has_the_numbers_of_the_run(run: Run, tmp_path: Path) -> None:
    record = Record.of(run, tmp_path)
    assert record.numbers["network/accuracy"] == pytest.approx(accuracy(run))
    assert {f"class/{name}" for name in run.summary()["class_names"]} <= record.numbers.keys()
    assert all(plot.read_bytes().startswith(b"\x89PNG") for plot in record.plots)
    assert record.page == run.report_file
    assert {file.name for file in record.tables} >= {"classes.csv", "predictions.csv"}
    by_k = run.summary()["influence"]["frequency"]
    points = [(int(k), row["accuracy"]) for k, row in by_k.items()]
    assert record.by_k["sparse/frequency"] == points


def test_a_run_without_page_is_logged_with_one_and_stays_as_it_is(tmp_path: Path) -> None:
    made = run_of(tmp_path, name="bare")
    before = {file: file.read_bytes() for file in made.folder.rglob("*") if file.is_file()}
    (tmp_path / "out").mkdir()
    record = Record.of(made, tmp_path / "out", name="other")
    assert record.name == "other"
    assert "<!doctype html>" in record.page.read_text(encoding="utf-8")
    after = {file: file.read_bytes() for file in made.folder.rglob("*") if file.is_file()}
    assert after == before


def test_tensorboard_reads_the_numbers(run: Run, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with chdir(tmp_path):
        place = log_run(run, "tensorboard", where="logs", project="team")
        folder = Path("logs/team/my run").resolve()
    assert "tensorboard --logdir logs" in place
    events = EventAccumulator(str(folder))
    events.Reload()
    (event,) = events.Scalars("network/accuracy")
    assert event.value == pytest.approx(accuracy(run))
    by_k = run.summary()["influence"]["frequency"]
    steps = [(one.step, one.value) for one in events.Scalars("sparse/frequency")]
    assert steps == [(int(k), pytest.approx(row["accuracy"])) for k, row in by_k.items()]
    assert "accuracy" in events.Tags()["images"]
    text = events.Tensors("summary/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "The network is right on" in text
    assert (folder / "report.html").read_bytes() == run.report_file.read_bytes()


@pytest.mark.slow
def test_mlflow_reads_the_numbers(run: Run, tmp_path: Path) -> None:
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    with chdir(tmp_path):
        place = log_run(run, "mlflow", where=uri, project="team")
        client = mlflow.MlflowClient(tracking_uri=uri)
        experiment = client.get_experiment_by_name("team")
        (found,) = client.search_runs([experiment.experiment_id])
        assert found.info.run_id in place
        assert found.info.status == "FINISHED"
        assert found.info.run_name == "my run"
        assert found.data.metrics["network/accuracy"] == pytest.approx(accuracy(run))
        assert found.data.params["n_features"] == "7"
        history = client.get_metric_history(found.info.run_id, "sparse/frequency")
        by_k = run.summary()["influence"]["frequency"]
        steps = sorted((one.step, one.value) for one in history)
        assert steps == [(int(k), pytest.approx(row["accuracy"])) for k, row in by_k.items()]
        page = client.download_artifacts(found.info.run_id, "report.html", str(tmp_path))
        assert Path(page).read_bytes() == run.report_file.read_bytes()
        plots = [one.path for one in client.list_artifacts(found.info.run_id, "plots")]
        assert "plots/accuracy.png" in plots


@pytest.mark.slow
def test_wandb_keeps_the_numbers_offline(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path))
    place = log_run(run, "wandb", where=str(tmp_path), project="team")
    assert "wandb sync" in place
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    files = folder / "files" / "media"
    (page,) = files.rglob("*.html")
    assert page.read_bytes() == run.report_file.read_bytes()
    (table,) = files.rglob("classes*.json")
    rows = json.loads(table.read_text())["data"]
    assert [row[0] for row in rows] == list(run.summary()["class_names"])
    assert list(files.rglob("accuracy*.png"))
    (history,) = folder.glob("*.wandb")
    assert b"network/accuracy" in history.read_bytes()


def test_names_are_made_such_that_mlflow_takes_them() -> None:
    validation = pytest.importorskip("mlflow.utils.validation")
    names = ("class/cat", "class/a|b", "class/<b>", "class/ü é", "class/../../x", "class//y")
    for name in (*names, "x" * 400, "class/", "group/a=b/worst", "…"):
        validation._validate_metric_name(metric_name(name))
    assert metric_name("class/cat") == "class/cat"


def test_tables_stay_below_what_wandb_takes() -> None:
    rows: list[list[Any]] = [[f"class {i}" * 10, i, 0.5, 0.4, 0.6] for i in range(50_000)]
    kept = fitting(rows)
    assert 0 < len(kept) < len(rows)
    assert len(json.dumps(kept)) <= MOST_BYTES
    assert fitting(rows[:10]) == rows[:10]


def test_very_many_classes_have_no_number_each(tmp_path: Path) -> None:
    from penult.features.features import Features
    from penult.runs.analyze import Options, analyze_features

    n = MOST_CLASSES + 1
    generator = torch.Generator().manual_seed(0)
    z, weight = (torch.randn(n, 4, generator=generator) for _ in range(2))
    features = Features.of(z, torch.arange(n), weight)
    made = analyze_features(features, features, tmp_path / "run", Options(fit=False))
    (tmp_path / "out").mkdir()
    record = Record.of(made, tmp_path / "out")
    assert not any(name.startswith("class/") for name in record.numbers)
    assert len(record.classes) == n


def test_what_cannot_be_logged_is_one_line(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    folder = str(run.folder)
    cases: dict[tuple[str, ...], str] = {
        ("log", folder, "--to", "excel"): "expected mlflow, wandb, tensorboard, found 'excel'",
        ("log", "nowhere", "--to", "mlflow"): "nowhere",
    }
    if find_spec("tensorboard") is not None:
        cases["log", folder, "--to", "tensorboard", "--where", "file"] = "file"
    for arguments, message in cases.items():
        assert penult(*arguments) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert len(lines) == 1
        assert message in lines[0]


def test_a_server_that_is_not_there_is_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="MLflow at http://127.0.0.1:9 does not take the run"):
        log_run(run, "mlflow", where="http://127.0.0.1:9")


def test_what_is_not_installed_is_named_with_its_line(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlflow", "wandb", "tensorboard"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(InputError, match=rf"pip install 'penult\[{name}\]'"):
            log_run(run, name)
