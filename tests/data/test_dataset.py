from __future__ import annotations

import io
import pickle
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from penult.data.classes import align_classes
from penult.data.labels import NoLabelError, label_of
from penult.data.open import batches, check_data, open_data, read
from penult.data.transform import Transform
from penult.errors import InputError

RAW = Transform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
PIXELS = np.random.default_rng(0).integers(0, 256, (6, 7, 9, 3), dtype=np.uint8)
Row = namedtuple("Row", "image label name")


class Items:
    """A data set of whatever items it is given."""

    def __init__(self, items: list[Any], **attributes: Any) -> None:
        self.items = items
        self.__dict__.update(attributes)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def png(i: int) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS[i]).save(stream, "PNG")
    return stream.getvalue()


def picture(i: int) -> Image.Image:
    return Image.fromarray(PIXELS[i])


FORMS: dict[str, Callable[[int], Any]] = {
    "pair": lambda i: (picture(i), i % 3),
    "list": lambda i: [picture(i), i % 3],
    "path after": lambda i: (picture(i), i % 3, f"{i}.png"),
    "index before": lambda i: (f"{i}", picture(i), i % 3),
    "label first": lambda i: (i % 3, picture(i)),
    "box after": lambda i: (picture(i), i % 3, np.zeros((4, 4))),
    "named": lambda i: Row(picture(i), i % 3, "x"),
    "dict": lambda i: {"image": picture(i), "label": i % 3},
    "cifar100": lambda i: {"img": picture(i), "fine_label": i % 3, "coarse_label": 0},
    "other keys": lambda i: {"scan": PIXELS[i], "diagnosis": i % 3},
    "bytes": lambda i: {"image": {"bytes": png(i), "path": None}, "label": i % 3},
    "raw bytes": lambda i: (png(i), i % 3),
    "tensor label": lambda i: (picture(i), torch.tensor([i % 3])),
    "numpy label": lambda i: (picture(i), np.int16(i % 3)),
    "float label": lambda i: (picture(i), float(i % 3)),
    "one-hot": lambda i: (picture(i), torch.eye(3)[i % 3]),
    "tensor": lambda i: (torch.from_numpy(PIXELS[i]).permute(2, 0, 1), i % 3),
    "tensor, channels last": lambda i: (torch.from_numpy(PIXELS[i]), i % 3),
    "array, channels first": lambda i: (PIXELS[i].transpose(2, 0, 1), i % 3),
}


@pytest.mark.parametrize("form", FORMS)
def test_items_of_any_form(form: str) -> None:
    data = open_data(Items([FORMS[form](i) for i in range(6)]))
    (batch,) = batches(data, RAW, batch_size=6)
    assert batch.faults == []
    assert np.array_equal(batch.images.numpy(), PIXELS)
    assert batch.labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (True, 1),
        (np.uint8(7), 7),
        (2.0, 2),
        (torch.tensor(4), 4),
        (torch.tensor([[5]]), 5),
        ([0, 0, 1], 2),
        (np.array([[0.0, 1.0, 0.0]]), 1),
        ("dog", 1),
    ],
)
def test_one_label(value: Any, expected: int) -> None:
    assert label_of(value, {"cat": 0, "dog": 1}) == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (0.5, "0.5, expected an integer"),
        ([1, 1, 0], "a vector of 3 numbers with 2 ones, expected one class"),
        ([0.2, 0.8], "a vector of 2 numbers with 0 ones"),
        (np.ones((2, 2)), r"an array of shape \(2, 2\), expected one class"),
        ("emu", "'emu', expected one of cat, dog and so on"),
        (None, "None, expected an integer"),
    ],
)
def test_what_is_no_label(value: Any, message: str) -> None:
    with pytest.raises(NoLabelError, match=message):
        label_of(value, {"cat": 0, "dog": 1})


def test_a_hugging_face_data_set(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    for i in range(6):
        picture(i).save(tmp_path / f"{i}.png")
    names = ["emu", "ant", "cow"]
    found = datasets.Dataset.from_dict(
        {"image": [str(tmp_path / f"{i}.png") for i in range(6)], "label": [0, 1, 2] * 2},
        features=datasets.Features(
            {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
        ),
    )
    for spec in (found, datasets.DatasetDict({"train": found})):
        data = open_data(spec)
        assert data.class_names == tuple(names)
        assert data.labels is not None
        assert data.labels.tolist() == [0, 1, 2, 0, 1, 2]
        assert np.array_equal(read(data, RAW, 4).values.numpy(), PIXELS[4])
    both = datasets.DatasetDict({"train": found, "test": found})
    with pytest.raises(InputError, match=r"is 2 data sets \(train, test\): give one of them, such"):
        open_data(both)


def test_the_samples_own_labels_count() -> None:
    pairs = [(picture(i), i % 3) for i in range(6)]
    data = open_data(Items(pairs, targets=[i % 3 + 1 for i in range(6)]))
    assert [read(data, RAW, i).label for i in range(6)] == [0, 1, 2, 0, 1, 2]
    assert data.labels is None
    (note,) = data.notes
    assert note.startswith("the data set's own list of labels differs from what its samples say")
    words = open_data(Items(pairs, labels=["emu", "ant", "cow"] * 2))
    assert words.class_names is None  # in which order the words count is not said
    assert [read(words, RAW, i).label for i in range(6)] == [0, 1, 2, 0, 1, 2]
    in_order = open_data(Items(pairs, labels=["ant", "cow", "emu"] * 2))
    assert in_order.class_names == ("ant", "cow", "emu")


def test_words_in_samples_need_their_order() -> None:
    pairs = [(picture(i), ("emu", "ant", "cow")[i % 3]) for i in range(6)]
    with pytest.raises(InputError, match="'emu', a word: give the data set an attribute `classes`"):
        check_data(open_data(Items(pairs)), RAW)
    data = open_data(Items(pairs, classes=["emu", "ant", "cow"]))
    assert [read(data, RAW, i).label for i in range(3)] == [0, 1, 2]


def test_synonyms_and_other_orders() -> None:
    pairs = [(picture(i), i % 3) for i in range(6)]
    data = open_data(Items(pairs, classes=[("cat", "puss"), ("dog", "hound"), ("emu",)]))
    assert data.class_names == ("cat", "dog", "emu")
    assert align_classes(4, data, given=["emu", "x", "cat", "dog"]).names == (
        "emu",
        "x",
        "cat",
        "dog",
    )
    assert [read(data, RAW, i).label for i in range(3)] == [2, 3, 0]
    again = pickle.loads(pickle.dumps(data))
    assert [read(again, RAW, i).label for i in range(3)] == [2, 3, 0]


def test_a_subset_keeps_names_and_labels() -> None:
    pairs = [(picture(i), i % 3) for i in range(6)]
    whole = Items(pairs, classes=["cat", "dog", "emu"], targets=[0, 1, 2, 0, 1, 2])
    data = open_data(Subset(whole, [5, 1]))  # type: ignore[arg-type]
    assert data.class_names == ("cat", "dog", "emu")
    assert data.labels is not None
    assert data.labels.tolist() == [2, 1]


def test_a_data_loader_is_read_sample_by_sample() -> None:
    pairs = [(torch.from_numpy(PIXELS[i]), i % 3) for i in range(6)]
    data = open_data(DataLoader(Items(pairs), batch_size=4, shuffle=True))  # type: ignore[arg-type]
    assert np.array_equal(read(data, RAW, 3).values.numpy(), PIXELS[3])
    odd = DataLoader(Items(pairs), collate_fn=list)  # type: ignore[arg-type, var-annotated]
    with pytest.raises(InputError, match="a DataLoader with a collate_fn of its own: give its"):
        open_data(odd)


def test_the_shape_that_was_given_is_quoted() -> None:
    strange = torch.zeros((5, 32, 32), dtype=torch.uint8)
    data = open_data(Items([(strange, 0)]))
    with pytest.raises(InputError, match=r"is a tensor of uint8 and shape \(5, 32, 32\), expected"):
        check_data(data, RAW)


def test_a_dict_of_arrays(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=PIXELS, y=np.eye(3)[[0, 1, 2] * 2])
    data = open_data(dict(np.load(tmp_path / "x.npz")))
    (batch,) = batches(data, RAW, batch_size=6)
    assert np.array_equal(batch.images.numpy(), PIXELS)
    assert batch.labels.tolist() == [0, 1, 2, 0, 1, 2]


@pytest.mark.parametrize("kind", ["array", "tensor"])
@pytest.mark.parametrize("first", [False, True])
def test_arrays_with_their_channels_anywhere(kind: str, first: bool) -> None:
    images: Any = np.ascontiguousarray(PIXELS.transpose(0, 3, 1, 2)) if first else PIXELS
    images = images if kind == "array" else torch.from_numpy(images)
    (batch,) = batches(open_data((images, [0] * 6)), RAW, batch_size=6)
    assert np.array_equal(batch.images.numpy(), PIXELS)


def test_samples_that_change_are_said() -> None:
    class Random(Items):
        def __getitem__(self, index: int) -> Any:
            return np.random.randint(0, 256, (4, 4, 3), dtype=np.uint8), 0  # noqa: NPY002

    data = open_data(Random([0] * 5))
    assert any("change from one look to the next" in note for note in data.notes)
    assert data.fingerprint == open_data(Random([0] * 5)).fingerprint


def test_a_fingerprint_is_of_labels_and_pictures() -> None:
    def made(label: int, seed: int) -> str:
        values = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
        return open_data(Items([(values, label)] * 3)).fingerprint

    assert made(0, 0) == made(0, 0)
    assert len({made(0, 0), made(1, 0), made(0, 1)}) == 3
