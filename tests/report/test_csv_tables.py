"""Tables against the arrays and documents that they are made of."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from command import penult
from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.features.features import Features
from penult.report.csv_tables import write_csv_tables
from penult.runs.analyze import Options, analyze_features
from penult.runs.run import Run


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Names with commas, quotes, line breaks and other scripts; one class without samples."""
    generator = torch.Generator().manual_seed(0)
    z, weight = torch.rand(80, 6, generator=generator), torch.randn(4, 6, generator=generator)
    weight[3] = -9
    labels = (z @ weight.T + torch.randn(80, 4, generator=generator))[:, :3].argmax(1)
    names = ['a, "b"', "c\nd", "猫", "none"]
    ids = [f"{i}, é.png" for i in range(80)]
    features = Features.of(z, labels, weight, class_names=names, ids=ids)
    return analyze_features(
        features, None, tmp_path_factory.mktemp("r") / "run", Options(fit=False)
    )


def test_the_tables_say_what_the_features_say(run: Run, tmp_path: Path) -> None:
    written = write_csv_tables(run, tmp_path / "new", k=2, select="wanda")
    assert [path.name for path in written] == ["predictions.csv", "mistakes.csv", "classes.csv"]
    rows, mistakes, classes = map(read, written)
    z, labels = run.evaluation().arrays()
    names, dense = run.evaluation().names(), run.evaluation().require_head()
    assert [row["image"] for row in rows] == run.evaluation().ids()
    assert [row["label"] for row in rows] == [names[c] for c in labels]
    for who, head in (("network", dense), ("sparse", run.head("wanda", 2))):
        logits = head(z)
        assert [row[who] for row in rows] == [names[c] for c in logits.argmax(1)]
        right = (logits.argmax(1) == labels).int().tolist()
        assert [int(row[f"{who}_right"]) for row in rows] == right
        chances = torch.tensor([float(row[f"{who}_probability"]) for row in rows])
        torch.testing.assert_close(chances, logits.softmax(1).amax(1), atol=1e-5, rtol=0)
    wrong = [row for row in rows if "0" in (row["network_right"], row["sparse_right"])]
    assert mistakes == wrong != rows
    assert [row["class"] for row in classes] == list(names)
    for c, row in enumerate(classes[:3]):
        own = [int(r["network_right"]) for r in rows if r["label"] == names[c]]
        assert (int(row["n_judged"]), int(row["n_right"])) == (len(own), sum(own))
        assert float(row["accuracy"]) == pytest.approx(sum(own) / len(own))
        assert float(row["low"]) <= float(row["accuracy"]) <= float(row["high"])
    assert classes[3]["accuracy"] == ""


def test_measures_are_a_table_too(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run.measures_file.write_text('{"psi": {"0.5": {"mean": 0.8}}, "names": ["a"], "none": null}')
    try:
        assert penult("show", str(run.folder), "--csv", str(tmp_path)) == 0
    finally:
        run.measures_file.unlink()
    assert f"Tables: {tmp_path}" in capsys.readouterr().out
    found = {row["measure"]: row["value"] for row in read(tmp_path / "measures.csv")}
    assert found == {"psi.0.5.mean": "0.8", "names.0": "a", "none": ""}
    assert len(read(tmp_path / "predictions.csv")) == 80
    assert choose_head(run).name


def test_a_file_is_no_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file: expected a folder for the tables"):
        write_csv_tables(run, tmp_path / "file")
