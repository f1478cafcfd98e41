from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penult.errors import InputError
from penult.features.groups import Groups, coded
from penult.features.groups_file import read_groups

IDS = ["cat/01.png", "cat/02.png", "dog/01.png", "dog/03.png"]
ROWS = [("cat/01.png", "photo", "3"), ("02.png", "sketch", "40"), ("x/dog/01.png", "photo", "41")]


def written(path: Path, rows: Sequence[tuple[str, ...]] = ROWS, naming: str = "path") -> Path:
    names = (naming, "domain", "age")
    if path.suffix == ".jsonl":
        lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows]
        path.write_text("\n".join(lines))
    elif path.suffix == ".parquet":
        import pyarrow
        from pyarrow import parquet

        columns = {name: [row[i] for row in rows] for i, name in enumerate(names)}
        columns["age"] = [int(value) for value in columns["age"]]  # type: ignore[misc]
        parquet.write_table(pyarrow.table(columns), path)
    else:
        path.write_text("\n".join(",".join(row) for row in [names, *rows]))
    return path


@pytest.mark.parametrize("ending", ["csv", "jsonl", "parquet"])
def test_samples_are_found_by_id_by_the_end_of_a_path_and_by_a_longer_path(
    tmp_path: Path, ending: str
) -> None:
    table = read_groups(written(tmp_path / f"groups.{ending}"))
    rows, unknown = table.match(IDS)
    assert (rows.tolist(), unknown) == ([0, 1, 2, -1], [])
    found = table.groups(rows).attribute("domain")
    assert found.values == ("photo", "sketch")
    assert found.codes.tolist() == [0, 1, 0, -1]
    assert found.known.tolist() == [True, True, True, False]
    labels = torch.tensor([0, 0, 1, 1])
    assert found.groups(labels).tolist() == [0, 1, 2, -1]
    assert found.named(3, ["cat", "dog"]) == ("dog", "sketch")


def test_rows_are_counted_from_zero_and_unknown_ones_are_named(tmp_path: Path) -> None:
    rows = [("2", "photo", "1"), ("0", "sketch", "2"), ("9", "photo", "3")]
    table = read_groups(written(tmp_path / "groups.csv", rows, "row"))
    found, unknown = table.match(IDS)
    assert found.tolist() == [1, -1, 0, -1]
    assert unknown == ["9"]


def test_groups_survive_their_file(tmp_path: Path) -> None:
    table = read_groups(written(tmp_path / "groups.csv"), bins={"age": 2})
    made = table.groups(table.match(IDS)[0])
    made.save(tmp_path / "train.safetensors")
    found = Groups.load(tmp_path / "train.safetensors", 4)
    for name, attribute in made.attributes.items():
        assert found.attributes[name].values == attribute.values
        assert torch.equal(found.attributes[name].codes, attribute.codes)
    with pytest.raises(InputError, match="holds the groups of 4 samples and the run has 5"):
        Groups.load(tmp_path / "train.safetensors", 5)
    with pytest.raises(InputError, match="no attribute 'sex'; they have domain, age"):
        found.attribute("sex")


def test_one_path_end_that_two_samples_share_is_refused(tmp_path: Path) -> None:
    table = read_groups(written(tmp_path / "groups.csv", [("01.png", "photo", "1")]))
    message = r"01.png is the end of 2 samples' paths \(cat/01.png and dog/01.png\); expected more"
    with pytest.raises(InputError, match=message):
        table.match(IDS)


def test_two_rows_for_one_sample_are_refused(tmp_path: Path) -> None:
    rows = [("cat/02.png", "photo", "1"), ("dog/03.png", "photo", "1"), ("02.png", "sketch", "1")]
    table = read_groups(written(tmp_path / "groups.csv", rows))
    with pytest.raises(InputError, match="two rows for sample cat/02.png: rows 1 and 3"):
        table.match(IDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no rows"),
        ("id,a", "has no rows"),
        ("id,a\n1,x,y", "row 1 has 3 fields, expected 2"),
        ("id,a,a\n1,x,y", "two columns 'a'"),
        ("id,a\n,x", "row 1 names no sample in column 'id'"),
        ("id\n1", "no column but 'id': expected attributes beside it"),
        ("id,a\n1,\n2,", "attribute a has no values"),
    ],
)
def test_csv_that_holds_no_groups_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_groups(tmp_path / "g.csv")


def test_other_files_and_columns_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist: expected a table"):
        read_groups(tmp_path / "absent.csv")
    (tmp_path / "g.xlsx").write_text("")
    with pytest.raises(InputError, match=r"expected a table of .csv, .tsv"):
        read_groups(tmp_path / "g.xlsx")
    (tmp_path / "g.jsonl").write_text("[1]")
    with pytest.raises(InputError, match=r"line 1: expected a JSON object, found \[1\]"):
        read_groups(tmp_path / "g.jsonl")
    (tmp_path / "g.parquet").write_text("no")
    with pytest.raises(InputError, match="no readable Parquet file"):
        read_groups(tmp_path / "g.parquet")
    path = written(tmp_path / "g.csv")
    with pytest.raises(InputError, match="no column 'sex'; it has path, domain, age"):
        read_groups(path, attributes=["sex"])


def test_attributes_of_hundreds_of_values_are_refused_with_a_remedy() -> None:
    many = [str(i) for i in range(300)]
    with pytest.raises(InputError, match="age has 300 different values.*--bins age=4"):
        coded("f", "age", many, None)
    with pytest.raises(InputError, match="--bins 'hours of sun=4'"):
        coded("f", "hours of sun", many, None)
    with pytest.raises(InputError, match="patient has 300 different values.*leave it out"):
        coded("f", "patient", [f"p{i}" for i in range(300)], None)
    with pytest.raises(InputError, match="--bins sex: expected numbers, found 'f'"):
        coded("f", "sex", ["1", "f"], 2)
    with pytest.raises(InputError, match="expected 2 to 100 ranges, found 1"):
        coded("f", "age", many, 1)


@given(
    st.lists(st.one_of(st.none(), st.integers(-20, 20)), min_size=1, max_size=60).filter(
        lambda numbers: any(number is not None for number in numbers)
    ),
    st.integers(2, 6),
)
@settings(max_examples=60, deadline=None)
def test_ranges_hold_every_number_once_and_equal_numbers_together(
    numbers: list[int | None], bins: int
) -> None:
    column = [None if number is None else str(number) for number in numbers]
    found = coded("f", "age", column, bins)
    assert 1 <= len(found.values) <= bins
    for number, code in zip(numbers, found.codes.tolist(), strict=True):
        assert (number is None) == (code == -1)
        if number is not None:
            low, high = (float(end) for end in found.values[code].split(" to "))
            assert low <= number <= high
    assert set(found.codes.tolist()) - {-1} == set(range(len(found.values)))


def test_bins_of_large_numbers_that_lie_close_have_names_of_their_own() -> None:
    column = [1_600_000_000_000 + i for i in range(12)]
    found = coded("f", "taken", [*map(str, column)], 4)
    assert len(set(found.values)) == len(found.values) == 4
    assert found.values[0] == "1600000000000 to 1600000000002"
