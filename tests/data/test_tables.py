"""Tables as programs and people write them: the same samples, or a line that says what to do."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from penult.data.classes import align_classes
from penult.data.image import ImageData
from penult.data.open import open_data
from penult.errors import InputError

CLASSES = ("cat", "dog", "owl")
N = 12
PATHS = [f"photos/{CLASSES[i % 3]}/{i:03}.png" for i in range(N)]
NAMES = [CLASSES[i % 3] for i in range(N)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for i, path in enumerate(PATHS):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(tmp_path / path)
    return tmp_path


def lines(row: str = "{path},{name}", head: str = "path,label", end: str = "\n") -> str:
    rows = (
        row.format(path=path, name=name, i=i, number=CLASSES.index(name))
        for i, (path, name) in enumerate(zip(PATHS, NAMES, strict=True))
    )
    return end.join([head, *rows]) + end


WRITINGS: dict[str, tuple[str, str]] = {
    "plain": (lines(), "utf-8"),
    "byte order mark": (lines(), "utf-8-sig"),
    "Excel's Unicode text": (lines("{path}\t{name}", "path\tlabel"), "utf-16"),
    "semicolons": (lines("{path};{name}", "path;label"), "utf-8"),
    "bars": (lines("{path}|{name}", "path|label"), "utf-8"),
    "a line that says the delimiter": ("sep=;\n" + lines("{path};{name}", "path;label"), "utf-8"),
    "Windows' lines": (lines(end="\r\n"), "utf-8"),
    "blank lines": (lines(end="\n\n"), "utf-8"),
    "quotes after spaces": (lines('"{path}", "{name}"', '"path", "label"'), "utf-8"),
    "quoted lines": (
        lines('"{path}","{name}","one\n""two"", three"', '"path","label","the\nnote"'),
        "utf-8",
    ),
    "an index and spaces": (lines("{i}, {path} ,{name}", ", Image Path , Class Name "), "utf-8"),
    "a long field": (lines("{path},{name}," + "x" * 200_000, "path,label,note"), "utf-8"),
}


@pytest.mark.parametrize("writing", WRITINGS)
def test_csv_as_programs_write_it(folder: Path, writing: str) -> None:
    text, encoding = WRITINGS[writing]
    (folder / "list.csv").write_bytes(text.encode(encoding))
    before = csv.field_size_limit()
    data = open_data(folder / "list.csv")
    assert csv.field_size_limit() == before
    assert [data.id(i) for i in range(len(data))] == PATHS
    assert data.class_names == CLASSES
    assert data.labels is not None
    assert [CLASSES[i] for i in data.labels] == NAMES


DAMAGED = [
    (lines().replace("cat\n", '"cat\n', 1), "line 2 is damaged: a quoted text has no end"),
    ("café\n".join(["path,label\n", ""]), r"no text in UTF-8 or UTF-16 \(line 2\): save it as"),
    ("\n".join(f"{path} 1" for path in PATHS), "the first line holds .* and no names of columns"),
]


@pytest.mark.parametrize(("text", "said"), DAMAGED)
def test_csv_that_would_lose_rows_is_refused(folder: Path, text: str, said: str) -> None:
    (folder / "list.txt").write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=said):
        open_data(folder / "list.txt")


def test_two_columns_of_one_name_are_refused_in_parquet_too(folder: Path) -> None:
    columns = [pa.array(PATHS), pa.array(NAMES), pa.array(NAMES)]
    pq.write_table(pa.Table.from_arrays(columns, ["path", "label", "label"]), folder / "a.parquet")
    with pytest.raises(InputError, match="two columns 'label'"):
        open_data(folder / "a.parquet")


def jsonl(folder: Path, labels: list[Any]) -> ImageData:
    rows = [{"path": path, "label": label} for path, label in zip(PATHS, labels, strict=True)]
    (folder / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_data(folder / "a.jsonl")


def parquet(folder: Path, labels: list[Any]) -> ImageData:
    pq.write_table(pa.table({"path": PATHS, "label": labels}), folder / "a.parquet")
    return open_data(folder / "a.parquet")


def in_csv(folder: Path, labels: list[Any]) -> ImageData:
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "label"), *zip(PATHS, labels, strict=True)])
    return open_data(folder / "a.csv")


FORMS = {"csv": in_csv, "jsonl": jsonl, "parquet": parquet}
Form = Callable[[Path, list[Any]], ImageData]


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_booleans_are_the_classes_0_and_1_in_every_form(folder: Path, form: Form) -> None:
    flags = [i % 3 == 0 for i in range(N)]
    for names in (None, ["benign", "malignant"]):
        data = form(folder, flags)
        assert data.class_names == ("False", "True")
        places = align_classes(2, data, given=names)
        assert places.names == tuple(names or ("False", "True"))
        assert data.labels is not None
        assert data.labels.tolist() == list(map(int, flags))
    swapped = form(folder, flags)
    align_classes(2, swapped, given=["True", "False"])
    assert swapped.labels is not None
    assert swapped.labels.tolist() == [int(not flag) for flag in flags]
    assert form(folder, [True] * N).labels is not None
    data = form(folder, [True] * N)
    align_classes(2, data)
    assert data.labels is not None
    assert set(data.labels.tolist()) == {1}


@pytest.mark.parametrize("form", [in_csv, jsonl])
def test_what_programs_write_for_no_label_is_no_class(folder: Path, form: Form) -> None:
    words: list[Any] = [*NAMES[:6], "NaN", "NA", "null", "<NA>", "n/a", "#N/A"]
    data = form(folder, words)
    assert data.class_names == CLASSES
    assert len(data) == 6
    said = "6 rows have no label ('#N/A', '<NA>', 'NA' and 3 more) and are left out, the first is"
    assert any(note.startswith(f"{said} row 7") for note in data.notes)
    # "None" can be a class, but not where all others are numbers.
    assert form(folder, ["none", *NAMES[1:]]).class_names == ("cat", "dog", "none", "owl")
    numbers = form(folder, ["None", "?", "-", *map(str, range(N - 3))])
    assert numbers.class_names is None
    assert numbers.labels is not None
    assert numbers.labels.tolist() == list(range(N - 3))


def test_lists_of_one_class_and_words_as_bytes_are_classes(folder: Path) -> None:
    assert jsonl(folder, [[name] for name in NAMES]).class_names == CLASSES
    assert parquet(folder, [[name] for name in NAMES]).class_names == CLASSES
    assert parquet(folder, [name.encode() for name in NAMES]).class_names == CLASSES


def test_words_among_numbers_are_refused_where_the_file_tells_them_apart(folder: Path) -> None:
    with pytest.raises(InputError, match="row 3 is the word owl, where others are numbers"):
        jsonl(folder, [7, None, *NAMES[2:]])


def test_the_row_of_a_bad_label_is_named_though_rows_before_it_are_left_out(folder: Path) -> None:
    with pytest.raises(InputError, match="label of row 5 is -2, expected at least 0"):
        parquet(folder, [None, 1, None, 0, -2, *[1] * (N - 5)])
    data = parquet(folder, [1, 3, *[1] * (N - 2)])
    with pytest.raises(
        InputError, match=r"sample photos/dog/001\.png is 3, .*: if they count from"
    ):
        align_classes(3, data)


def test_names_that_hugging_face_keeps_in_parquet_are_the_classes(folder: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pictures = [str(folder / path) for path in PATHS]
    numbers = [CLASSES[::-1].index(name) for name in NAMES]
    table = datasets.Dataset.from_dict({"image": pictures, "label": numbers})
    table = table.cast_column("image", datasets.Image())
    table = table.cast_column("label", datasets.ClassLabel(names=list(CLASSES[::-1])))
    table.to_parquet(folder / "all.parquet")
    data = open_data(folder / "all.parquet")
    assert data.class_names == CLASSES[::-1]
    assert data.labels is not None
    assert data.labels.tolist() == numbers
    stream = table.to_iterable_dataset()
    from penult.data.forms import DataOptions

    taken = open_data(stream, options=DataOptions(limit=5))
    assert taken.class_names == CLASSES[::-1]
    assert [taken.sample(i)[1] for i in range(5)] == numbers[:5]


PLACES = {
    "of another machine": ("/home/me/{path}", "without /home/me at their start"),
    "of Windows": ("C:\\data\\{path}", "without C:/data at their start"),
    "from the root": ("/{path}", "without / at their start"),
    "of another machine, without an ending": ("/home/me/{stem}", "with the ending .png"),
    "an address of a file": ("file://{root}/{path}", ""),
}


@pytest.mark.parametrize("place", PLACES)
def test_paths_are_found_where_the_table_was_moved(folder: Path, place: str) -> None:
    row, said = PLACES[place]
    paths = [row.format(path=path, stem=path[:-4], root=folder) for path in PATHS]
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *zip(paths, NAMES, strict=True)])
    data = open_data(folder / "list.csv")
    assert [data.load(i).getpixel((0, 0))[0] for i in range(N)] == list(range(N))  # type: ignore
    assert said in "; ".join(data.notes)


def test_files_beside_the_tables_folder_are_found_and_said_to_be_outside(folder: Path) -> None:
    (folder / "lists").mkdir()
    (folder / "lists" / "a.csv").write_text(lines())
    data = open_data(folder / "lists" / "a.csv")
    assert "the files are in the folder .." in data.notes
    outside = f"{N} of the files lie outside of the table's folder, the first: {PATHS[0]}"
    assert outside in data.notes
    assert data.load(3).getpixel((0, 0))[0] == 3  # type: ignore


def test_a_path_that_leads_nowhere_gets_a_near_one(folder: Path) -> None:
    (folder / "a.csv").write_text(lines().replace(".png", ".jpg"))
    with pytest.raises(InputError, match=r"cat/000\.jpg \(did you mean 000\.png\?\)"):
        open_data(folder / "a.csv")


def test_rows_without_an_image_are_left_out_with_their_labels(folder: Path) -> None:
    (folder / "a.csv").write_text(lines().replace(PATHS[4], "").replace(PATHS[7], ""))
    data = open_data(folder / "a.csv")
    left = [name for i, name in enumerate(NAMES) if i not in (4, 7)]
    assert data.labels is not None
    assert [CLASSES[i] for i in data.labels] == left
    assert "2 rows name no image and are left out, the first is row 5" in data.notes
    (folder / "b.csv").write_text("path,label\n,cat\n,dog\n")
    with pytest.raises(InputError, match="which column holds the images|no row names an image"):
        open_data(folder / "b.csv")


def test_a_column_that_is_empty_at_first_is_known_by_what_comes_later(folder: Path) -> None:
    raw = (folder / PATHS[0]).read_bytes()
    images = [None] * 40 + [{"bytes": raw, "path": None}] * 5
    table = pa.table({"image": images, "label": ["a", "b"] * 22 + ["a"]})
    pq.write_table(table, folder / "late.parquet")
    data = open_data(folder / "late.parquet")
    assert len(data) == 45
    with pytest.raises(InputError, match="has no image"):
        data.load(2)
    assert data.load(41)


def test_rows_of_several_parts_are_said_to_be_taken_together(folder: Path) -> None:
    (folder / "a.csv").write_text(lines("{path},{name},part{i}", "path,label,set"))
    assert not any("set" in note for note in open_data(folder / "a.csv").notes)
    text = lines("{path},{name},train", "path,label,Split").replace("train", "val", 3)
    (folder / "a.csv").write_text(text)
    notes = open_data(folder / "a.csv").notes
    assert "the column 'Split' says train, val: the rows of all of them are taken" in notes
