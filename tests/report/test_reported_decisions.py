"""The report of a network with a sigmoid per class, against numbers by numpy, and in a browser."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from browsing import Open
from command import penult
from penult.report.report import Report
from penult.runs.run import Run

ROUTES = ("summary", "guide", "classes", "class/3", "features", "feature/5", "mistakes")


@pytest.fixture(scope="module")
def run(two_digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("several") / "run"
    shutil.copytree(two_digits / "run", folder)
    edited = str(folder / "edited" / "try")
    assert penult("edit", str(folder), "--off", "6:3", "--cap", "8", "--out", edited) == 0
    return Run.open(folder)


@pytest.fixture(scope="module")
def made(run: Run) -> Report:
    return Report.of(run, k=5)


def naive(run: Run) -> tuple[Any, Any, Any]:
    """Features, labels (n_samples, 10) and what the network gives."""
    z, labels = run.evaluation().arrays()
    head = run.train().require_head()
    logits = z.double() @ head.weight.T.double() + head.bias.double()
    return z.double().numpy(), labels.numpy(), (logits > 0).numpy()


def test_missed_and_false_of_each_class(run: Run, made: Report) -> None:
    _, labels, given = naive(run)
    summary = run.summary()["dense"]
    for c, row in enumerate(made.document["classes"]):
        own, said = labels[:, c], given[:, c]
        assert row["n_eval"] == own.sum()
        assert row["missed"] == pytest.approx((own & ~said).sum(), abs=1)
        assert row["false"] == pytest.approx((~own & said).sum(), abs=1)
        assert row["dense"] == pytest.approx((own == said).mean(), abs=3e-3)
        assert row["always_no"] == pytest.approx(1 - own.mean())
        assert row["average_precision"] == summary["average_precision"][c]
        assert row["confused"] is None
        assert row["reason"] is None
    assert made.document["reasons"] is None
    assert made.document["about"]["multi_label"]


def test_influence_is_that_of_the_means(run: Run, made: Report) -> None:
    z, labels = (part.double().numpy() for part in run.train().arrays())
    weight = run.train().require_head().weight.double().numpy()
    for c in (0, 7):
        own = labels[:, c] == 1
        moved = weight[c] * (z[own].mean(0) - z[~own].mean(0))
        for trait in made.data.class_details[c]["features"]:
            j = trait["feature"]
            assert trait["influence"] == pytest.approx(moved[j], abs=1e-4)
            assert trait["mean"] == pytest.approx(z[own, j].mean(), abs=1e-4)
            assert trait["elsewhere"] == pytest.approx(z[~own, j].mean(), abs=1e-4)
    assert all(row["share"] is None for row in made.document["features"])


def test_images_with_a_class_and_without(run: Run, made: Report) -> None:
    z, labels = run.train().arrays()
    images = made.data.images
    for c in (2, 9):
        for trait in made.data.class_details[c]["features"][:3]:
            values = z[:, trait["feature"]]
            for side, own in (("own", True), ("others", False)):
                shown = trait[side]
                for image, _, _ in shown:
                    assert (c in images[image]["class"]) == own
                best = values[labels[:, c] == own].sort(descending=True).values[: len(shown)]
                assert [value for _, value, _ in shown] == pytest.approx(best.tolist(), abs=1e-5)


def test_mistakes_are_decisions(run: Run, made: Report) -> None:
    _, labels, given = naive(run)
    found = made.document["mistakes"]
    assert found["n_samples"] == labels.size
    n_wrong = int((labels != given).sum())
    assert found["n_both"] + found["n_only_dense"] == pytest.approx(n_wrong, abs=2)
    head = run.train().require_head()
    z = run.evaluation().arrays()[0].double()
    names = run.evaluation().ids()
    for row in found["rows"]:
        i, c = names.index(row["id"]), row["label"] % 10
        assert (row["label"] < 10) == bool(labels[i, c])
        assert row["dense"] % 10 == row["sparse"] % 10 == c
        reason = next(one for one in row["reasons"] if one["head"] == "dense")
        logit = float(z[i] @ head.weight[c].double() + head.bias[c].double())
        assert (row["dense"] < 10) == (logit > 0)
        assert reason["gap"] == pytest.approx(abs(logit), abs=1e-3)
        assert {reason["for"], reason["against"]} == {c, c + 10}


def test_the_page(made: Report, visit: Open) -> None:
    page = visit(made.html(), "summary")
    n = len(made.document["mistakes"]["rows"])
    seen = page.tour([*ROUTES, *(["mistake/0"] if n else []), "edit/0"])
    text = {view["route"]: " ".join(view["text"].split()) for view in seen}
    assert all(view["fits"] and view["images"] for view in seen)
    assert "yes-or-no decisions" in text["summary"]
    assert "Always the commoner answer" in text["summary"]
    assert "Average precision" in text["classes"]
    assert "From images without it" in text["class/3"]
    assert "Falsely given" in text["class/3"]
    assert "Most often taken for" not in text["class/3"] + text["classes"]
    assert "Between classes" not in text["features"]
    assert "decision, one for each" in text["mistakes"] or "decisions, one for" in text["mistakes"]
    if n:
        assert " called " in text["mistake/0"]
    assert "Mean average precision" in text["edit/0"]
    headings = {view["route"]: view["heading"] for view in seen}
    assert headings["class/3"] == "3"


def test_tables(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert penult("show", str(run.folder), "--csv", str(tmp_path / "tables")) == 0
    capsys.readouterr()
    with (tmp_path / "tables" / "predictions.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    _, labels, given = naive(run)
    assert len(rows) == labels.size
    right = np.array([int(row["network_right"]) for row in rows]).reshape(labels.shape)
    assert np.abs(right - (labels == given)).sum() <= 2
    assert {rows[3]["label"], rows[3]["network"]} <= {"3", "not 3"}


def test_the_command_prints_it(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert penult("report", str(run.folder), "--json", "-k", "5", "--no-maps") == 0
    document = json.loads(capsys.readouterr().out)
    assert "mean average precision" in document["conclusion"][0]
