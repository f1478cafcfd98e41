"""Several labels per sample, in every form in which people have them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from penult.data.classes import align_classes
from penult.data.forms import DataOptions
from penult.data.labels import labels_of
from penult.data.open import batches, open_data
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.features import Features
from penult.features.saving import save_features

PLAIN = Transform(mean=(0.5,), std=(0.5,), source="test")
NAMES = ("cat", "dog", "owl")
SETS = [("cat",), ("cat", "owl"), (), ("dog", "owl"), ("owl",), ("cat", "dog", "owl")]
ROWS = np.array([[name in one for name in NAMES] for one in SETS])
PIXELS = np.random.default_rng(0).integers(0, 256, (len(SETS), 8, 8, 3), dtype=np.uint8)


def files(root: Path) -> list[str]:
    """The pictures as files; their names."""
    for i, image in enumerate(PIXELS):
        Image.fromarray(image).save(root / f"{i}.png")
    return [f"{i}.png" for i in range(len(SETS))]


def read_all(data: Any) -> torch.Tensor:
    return torch.cat([batch.labels for batch in batches(data, PLAIN, batch_size=4)])


def check(data: Any, rows: np.ndarray = ROWS) -> None:
    assert data.multi_label
    assert (read_all(data).numpy() == rows).all()
    assert any("multi-label" in note for note in data.notes)


class Listed:
    """Items that each list their classes."""

    classes = NAMES

    def __init__(self, labels: list[Any]) -> None:
        self.labels_of_items = labels

    def __len__(self) -> int:
        return len(SETS)

    def __getitem__(self, i: int) -> tuple[Any, Any]:
        return Image.fromarray(PIXELS[i]), self.labels_of_items[i]


@pytest.mark.parametrize(
    "labels",
    [
        [list(one) for one in SETS],
        [[NAMES.index(name) for name in one] for one in SETS],
        [torch.tensor(row).float() for row in ROWS],
        [row.astype(int) for row in ROWS],
        [";".join(one) if len(one) != 2 else list(one) for one in SETS],
    ],
    ids=["words", "numbers", "tensors", "arrays", "mixed"],
)
def test_data_set_whose_items_list_their_classes(labels: list[Any]) -> None:
    check(open_data(Listed(labels)))


def test_data_set_that_does_not_say_how_many_classes() -> None:
    data = Listed([[0, 2], [1], [], [0], [1], [2]])
    data.classes = None  # type: ignore[assignment]
    with pytest.raises(InputError, match="nothing says how many there are: give the data set an"):
        open_data(data)


def test_arrays_and_their_single_labels() -> None:
    check(open_data((PIXELS, ROWS)))
    check(open_data({"images": PIXELS, "labels": [list(one) for one in SETS]}))
    one_each = np.eye(3)[[0, 1, 2, 0, 1, 2]]
    assert not open_data((PIXELS, one_each)).multi_label
    check(open_data((PIXELS, one_each), options=DataOptions(multi_label=True)), one_each == 1)
    with pytest.raises(InputError, match="sample 1 is a row with 2 ones, expected one class"):
        open_data((PIXELS, ROWS), options=DataOptions(multi_label=False))


def test_table_with_text_that_is_separated(tmp_path: Path) -> None:
    names = files(tmp_path)
    lines = [f"{name},{'|'.join(one)}" for name, one in zip(names, SETS, strict=True)]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    data = open_data(tmp_path / "t.csv")
    there = [i for i, one in enumerate(SETS) if one]
    check(data, ROWS[there])
    assert data.class_names == NAMES
    assert any("1 row has no label" in note for note in data.notes)
    again = open_data(tmp_path / "t.csv", options=DataOptions.from_json(data.describe()["options"]))
    assert again.fingerprint == data.fingerprint


def test_names_with_a_separator_stay_whole(tmp_path: Path) -> None:
    names = files(tmp_path)
    classes = ["tench; Tinca tinca", "goldfish; Carassius auratus"]
    lines = [f"{name},{classes[i % 2]}" for i, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("path,label\n" + "\n".join(lines) + "\n")
    data = open_data(tmp_path / "t.csv")
    assert not data.multi_label
    assert data.class_names == tuple(sorted(classes))
    several = open_data(tmp_path / "t.csv", options=DataOptions(multi_label=True))
    assert several.multi_label
    assert len(several.class_names or ()) == 4


def test_table_with_a_column_for_each_class(tmp_path: Path) -> None:
    names = files(tmp_path)
    lines = [",".join([name, *map(str, row)]) for name, row in zip(names, ROWS, strict=True)]
    (tmp_path / "t.csv").write_text("path,cat,dog,owl\n" + "\n".join(lines) + "\n")
    data = open_data(tmp_path / "t.csv", options=DataOptions(label_columns=NAMES))
    check(data)
    assert data.class_names == NAMES
    again = open_data(tmp_path / "t.csv", options=DataOptions.from_json(data.describe()["options"]))
    assert again.fingerprint == data.fingerprint
    with pytest.raises(InputError, match="row 1 has '0.png' in the column 'path' of"):
        open_data(tmp_path / "t.csv", options=DataOptions("path", label_columns=("path", "cat")))
    with pytest.raises(InputError, match="has no column 'cow'; it has path, cat, dog, owl"):
        open_data(tmp_path / "t.csv", options=DataOptions(label_columns=("cat", "cow")))
    with pytest.raises(InputError, match="two different columns at least"):
        DataOptions(label_columns=("cat",))


def test_parquet_and_shards_with_lists(tmp_path: Path) -> None:
    names = files(tmp_path)
    table = pa.table({"path": names, "labels": [list(one) for one in SETS]})
    pq.write_table(table, tmp_path / "t.parquet")
    check(open_data(tmp_path / "t.parquet"))
    with tarfile.open(tmp_path / "s.tar", "w") as archive:
        for i, (name, one) in enumerate(zip(names, SETS, strict=True)):
            archive.add(tmp_path / name, f"{i:03}.png")
            raw = json.dumps({"labels": list(one)}).encode()
            info = tarfile.TarInfo(f"{i:03}.json")
            info.size = len(raw)
            archive.addfile(info, io.BytesIO(raw))
    check(open_data(tmp_path / "s.tar"))


def test_folders_as_multi_label_and_in_the_order_of_the_network(tmp_path: Path) -> None:
    for i, image in enumerate(PIXELS):
        path = tmp_path / NAMES[i % 3] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(path)
    data = open_data(tmp_path, options=DataOptions(multi_label=True))
    align_classes(4, data, given=["owl", "cow", "dog", "cat"])
    assert data.labels is not None
    assert data.labels.shape == (6, 4)
    assert data.labels.sum(0).tolist() == [2, 0, 2, 2]
    assert data.sample(0)[1].tolist() == [False, False, False, True]  # type: ignore[union-attr]
    limited = open_data(tmp_path, options=DataOptions(multi_label=True, limit=3))
    assert limited.multi_label
    assert limited.labels is not None
    assert limited.labels.sum(0).tolist() == [1, 1, 1]


def test_labels_without_names_get_a_column_for_each_class_of_the_network() -> None:
    data = open_data((PIXELS, ROWS))
    align_classes(5, data)
    assert (read_all(data)[:, :3].numpy() == ROWS).all()
    assert not read_all(data)[:, 3:].any()
    with pytest.raises(InputError, match="labels of 3 classes and the network only 2"):
        align_classes(2, open_data((PIXELS, ROWS)))


@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=8))
def test_lists_and_rows_mean_the_same(lists: list[list[int]]) -> None:
    if max(max(one, default=0) for one in lists) < 2:
        return  # equal lists of 0 and 1 are rows
    found, _ = labels_of(lists, len(lists), None, True)
    assert [set(np.flatnonzero(row).tolist()) for row in found] == [set(one) for one in lists]
    again, _ = labels_of(found.astype(int), len(lists), None, True)
    assert (again == found).all()


def test_features_files_say_what_their_logits_mean(tmp_path: Path) -> None:
    z = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    weight = np.ones((3, 4), np.float32)
    features = Features.of(z, ROWS, weight, class_names=NAMES)
    assert features.multi_label
    assert features.require_head().link == "sigmoid"
    save_features(tmp_path / "f.safetensors", features)
    opened = Features.open(tmp_path / "f.safetensors")
    assert torch.equal(opened.labels(), torch.from_numpy(ROWS))
    assert opened.fingerprint() != features.fingerprint()
    part = opened.subset(torch.tensor([True, False, True, False, True, True]))
    assert torch.equal(part.labels(), torch.from_numpy(ROWS[[0, 2, 4, 5]]))
    words = Features.of(z, [list(one) for one in SETS])
    assert words.class_names == NAMES
    with pytest.raises(InputError, match="penult tune is for data with one class per sample"):
        opened.require_one_label("penult tune")


def test_evaluation_features_in_another_order() -> None:
    z = np.zeros((6, 4), np.float32)
    reference = Features.of(z, ROWS, np.ones((3, 4)), class_names=NAMES)
    other = Features.of(z, ROWS[:, [2, 0, 1]], class_names=("owl", "cat", "dog"))
    assert torch.equal(other.matched(reference).labels(), torch.from_numpy(ROWS))
    single = Features.of(z, [0, 1, 2, 0, 1, 2]).matched(reference)
    assert single.labels().shape == (6, 3)
    assert torch.equal(single.labels().int().argmax(1), torch.tensor([0, 1, 2, 0, 1, 2]))
    with pytest.raises(InputError, match="multi-label and the features have one class per"):
        reference.matched(Features.of(z, [0, 1, 2, 0, 1, 2], np.ones((3, 4))))
