"""The table of a comparison's samples says what the networks say, in CSV and in Parquet."""

from __future__ import annotations

import csv
import json
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest
import torch

from command import penult
from penult.diff.compare import TwoSides
from penult.diff.sample_table import COLUMNS, sample_rows, write_sample_table
from penult.diff.side import Side
from planted import run_of


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> TwoSides:
    folder = tmp_path_factory.mktemp("table")
    old = run_of(folder, name="old").folder
    with chdir(folder):
        assert penult("edit", str(old), "--off", "1", "--off", "3:cat", "--out", "edit") == 0
    return TwoSides.of(Side.read(str(old)), Side.read(f"{old}@{folder}/edit/recipe.json"))


def read_csv(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as text:
        return [*csv.DictReader(text)]


def test_rows_say_what_the_networks_say(compared: TwoSides, tmp_path: Path) -> None:
    write_sample_table(tmp_path / "t.csv", compared)
    rows = read_csv(tmp_path / "t.csv")
    z, labels = compared.new.features.arrays()
    names = compared.shared.class_names
    assert [row["id"] for row in rows] == list(compared.new.features.ids())
    assert tuple(rows[0]) == COLUMNS
    right = {}
    for which, side in (("old", compared.old), ("new", compared.new)):
        p = side.head(z).double().softmax(1)
        called = p.argmax(1)
        right[which] = called == labels
        assert [row[f"{which}_class"] for row in rows] == [names[c] for c in called.tolist()]
        sure = [float(row[f"{which}_confidence"]) for row in rows]
        assert sure == pytest.approx(p.amax(1).tolist(), abs=1e-6)
    kinds = [row["flip"] for row in rows]
    expected = [
        "negative" if a and not b else "positive" if b and not a else ""
        for a, b in zip(right["old"].tolist(), right["new"].tolist(), strict=True)
    ]
    assert kinds == expected
    assert "negative" in kinds


def test_evidence_is_for_the_class_that_is_said_over_the_runner_up(compared: TwoSides) -> None:
    z = compared.old.features.arrays()[0].double()
    head = compared.old.head
    logits = head(z.float()).double()
    centred = z - z.mean(0)
    for i, row in zip(range(40), sample_rows(compared, {}), strict=False):
        first, second = logits[i].topk(2).indices.tolist()
        parts = (head.weight[first] - head.weight[second]).double() * centred[i]
        order = parts.abs().argsort(descending=True)[:3].tolist()
        assert [int(j) for j, _ in row["old_evidence"]] == order
        assert [x for _, x in row["old_evidence"]] == pytest.approx(parts[order].tolist(), rel=1e-5)


def test_parquet_holds_the_same(compared: TwoSides, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    maps: Any = {2: ([[0.0, 1.0]], None)}
    write_sample_table(tmp_path / "t.parquet", compared, maps)
    write_sample_table(tmp_path / "t.csv", compared, maps)
    whole = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    for row, text in zip(whole, read_csv(tmp_path / "t.csv"), strict=True):
        assert (row["id"], row["flip"], row["new_class"]) == (
            text["id"],
            text["flip"],
            text["new_class"],
        )
        assert row["old_evidence"] == json.loads(text["old_evidence"])
        assert row["moved_by"] == json.loads(text["moved_by"])
    assert whole[2]["old_map"] == [[0.0, 1.0]]
    assert whole[2]["new_map"] is None
    assert whole[3]["old_map"] is None


def test_the_command_writes_it(compared: TwoSides, tmp_path: Path) -> None:
    sides = compared.old.name, compared.new.name
    file = tmp_path / "samples.csv"
    assert penult("diff", *sides, "--table", str(file)) == 0
    assert len(read_csv(file)) == compared.shared.n_samples
    flips = compared.document["flips"]
    moved = [row["moved_by"] for row in read_csv(file) if row["moved_by"] != "[]"]
    assert len(moved) == sum(len(flips[kind]["samples"]) for kind in ("negative", "positive"))


def test_a_class_that_only_one_side_knows(tmp_path: Path) -> None:
    """The other side cannot say it, and says with what certainty it says another."""
    from penult.features.features import Features
    from penult.runs.analyze import Options, analyze_features

    generator = torch.Generator().manual_seed(0)
    z, weight = torch.randn(60, 5, generator=generator), torch.randn(3, 5, generator=generator)
    ids = [f"i{i}" for i in range(60)]
    sides = []
    for name, n in (("old", 3), ("new", 2)):
        names = ("a", "b", "c")[:n]
        made = Features.of(z, torch.arange(60) % 2, weight[:n], class_names=names, ids=ids)
        analyze_features(made, made, tmp_path / name, Options(fit=False))
        sides.append(Side.read(str(tmp_path / name)))
    rows = [*sample_rows(TwoSides.of(sides[0], sides[1]), {})]
    assert {row["new_class"] for row in rows} <= {"a", "b"}
    for row, p in zip(rows, (z @ weight[:2].T).double().softmax(1).amax(1).tolist(), strict=True):
        assert row["new_confidence"] == pytest.approx(p, abs=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--table", "t.txt"), "expected a name that ends in .csv or .parquet"),
        (("--table", "t.csv", "--junit", "t.csv"), "is given twice"),
        (("--table", "."), ". is a folder: expected the name of a table"),
    ],
)
def test_what_cannot_be_written_is_refused(
    compared: TwoSides,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert penult("diff", compared.old.name, compared.new.name, *arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
