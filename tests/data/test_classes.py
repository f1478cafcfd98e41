from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from penult.data.class_list import ClassList, class_list
from penult.data.classes import align_classes
from penult.data.open import ArrayImages, ImageData, open_data
from penult.errors import InputError

TEN = list("abcdefghij")
IMAGENETTE = ["n01440764", "n02102040", "n02979186", "n03000684", "n03028079"]


def folder(root: Path, names: list[str], empty: tuple[str, ...] = ()) -> ImageData:
    for i, name in enumerate([*names, *empty]):
        (root / name).mkdir(parents=True)
        if name not in empty:
            Image.new("RGB", (4, 4), (i, 0, 0)).save(root / name / f"{i}.png")
    return open_data(root)


def placed(data: ImageData) -> dict[int, str]:
    """Number of each sample's class, by the folder that it lies in."""
    assert data.labels is not None
    return {int(label): data.id(i).split("/")[0] for i, label in enumerate(data.labels)}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.json", json.dumps(TEN)),
        ("id2label.json", json.dumps({str(i): n for i, n in enumerate(TEN)}, indent=1)),
        ("shuffled.json", json.dumps({str(i): TEN[i] for i in (3, 1, 2, 0, 9, 8, 7, 6, 5, 4)})),
        ("config.json", json.dumps({"model_type": "vit", "id2label": dict(enumerate(TEN))})),
        ("class_to_idx.json", json.dumps({n: i for i, n in enumerate(TEN)})),
        ("index.json", json.dumps({str(i): [f"n0144076{i}", n] for i, n in enumerate(TEN)})),
        ("coco.json", json.dumps([{"id": i, "name": n} for i, n in enumerate(TEN)])),
        ("synonyms.json", json.dumps([[n, n.upper()] for n in TEN])),
        ("lines.txt", "\n".join(TEN)),
        ("windows.txt", "\r\n".join(TEN) + "\r\n\r\n"),
        ("numbered.txt", "\n".join(f"{i} {n}" for i, n in enumerate(TEN))),
        ("from_one.txt", "\n".join(f"{i + 1}: {n}" for i, n in enumerate(TEN))),
        ("mixed.txt", "\n".join(f"{i}\t{TEN[i]}" for i in (9, 8, 7, 6, 5, 4, 3, 2, 1, 0))),
        ("last.csv", "\n".join(f"{n},{i}" for i, n in enumerate(TEN))),
        ("wordnet.txt", "\n".join(f"n0144076{i} {n}, other" for i, n in enumerate(TEN))),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_class_names_in_any_usual_file(name: str, text: str, encoding: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding=encoding)
    data = folder(tmp_path / "img", ["c", "b", "j"])
    assert align_classes(10, data, given=class_list(tmp_path / name)).names == tuple(TEN)
    assert placed(data) == {1: "b", 2: "c", 9: "j"}


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        (["7", "8", "9"], ("7", "8", "9")),
        (["1 cent", "2 cent"], ("1 cent", "2 cent")),
        (["class 1", "class 2"], ("class 1", "class 2")),
        (["3 cats", "5 dogs"], ("3 cats", "5 dogs")),
        (["great white shark", "hen"], ("great white shark", "hen")),
    ],
)
def test_numbers_that_belong_to_names(
    lines: list[str], names: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "names.txt").write_text("\n".join(lines))
    assert class_list(tmp_path / "names.txt").names == names


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff\xfe\x00", "is no text in UTF-8 or UTF-16: save it as UTF-8"),
        (b"caf\xe9", "is no text in UTF-8 or UTF-16: save it as UTF-8"),
        (b"[1, 2]", "expected a JSON list of names, found '1' in it"),
        (b'{"a": 0, "b": 2}', "from number to name, from name to number"),
        (b"[1,", "is no JSON"),
        (b"{}", "expected a JSON dict"),
    ],
)
def test_files_that_say_nothing(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "names").write_bytes(content)
    with pytest.raises(InputError, match=message):
        class_list(tmp_path / "names")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        class_list(tmp_path / "absent")


def test_folders_in_the_order_in_which_a_person_counts(tmp_path: Path) -> None:
    data = folder(tmp_path / "img", [str(i) for i in range(1, 11)])
    with pytest.warns(UserWarning, match="give --class-names natural"):
        assert align_classes(10, data).names[1] == "10"
    data = open_data(tmp_path / "img")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = align_classes(10, data, given=class_list("natural")).names
    assert names == tuple(str(i) for i in range(1, 11))
    assert placed(data) == {i: str(i + 1) for i in range(10)}


def test_empty_folders_count_where_they_make_up_the_number(tmp_path: Path) -> None:
    data = folder(tmp_path / "one", ["a", "d"], empty=("b", "c"))
    assert align_classes(4, data).names == ("a", "b", "c", "d")
    assert placed(data) == {0: "a", 3: "d"}
    other = folder(tmp_path / "two", ["a", "d"], empty=("new folder",))
    assert align_classes(2, other).names == ("a", "d")
    assert placed(other) == {0: "a", 1: "d"}
    third = folder(tmp_path / "three", ["a", "d"], empty=("b",))
    with pytest.raises(InputError, match=r"has 2 classes \(a, d\) and the network 5: give --class"):
        align_classes(5, third)


def test_evaluation_is_placed_by_the_same_names(tmp_path: Path) -> None:
    data = folder(tmp_path / "train", ["a", "b", "c"])
    held_out = folder(tmp_path / "eval", ["c", "b"], empty=("x",))
    align_classes(3, data, held_out)
    assert placed(held_out) == {1: "b", 2: "c"}
    stranger = folder(tmp_path / "other", ["a", "z"])
    with pytest.raises(InputError, match="evaluation data has classes .* do not include: z"):
        align_classes(3, open_data(tmp_path / "train"), stranger)


def test_wordnet_folders_are_placed_among_imagenets_classes(tmp_path: Path) -> None:
    if find_spec("timm") is None:  # which takes long to import
        pytest.skip("timm is not installed")
    data = folder(tmp_path / "img", IMAGENETTE)
    names = align_classes(1000, data).names
    # The places are ImageNet's own, as published with Imagenette.
    assert placed(data) == dict(zip((0, 217, 482, 491, 497), IMAGENETTE, strict=True))
    assert names[0] == "tench"
    assert names[497].startswith("church")
    assert len(set(names)) == 1000
    known = [f"class {i}" for i in range(1000)]
    data = open_data(tmp_path / "img")
    assert align_classes(1000, data, known=known).names[497] == "class 497"
    assert placed(data)[497] == "n03028079"


def test_folders_are_called_what_people_read(tmp_path: Path) -> None:
    data = folder(tmp_path / "img", ["n01440764", "n03028079"])
    (tmp_path / "names.json").write_text('{"n03028079": "church", "n01440764": "fish"}')
    said = class_list(tmp_path / "names.json")
    assert align_classes(2, data, given=said).names == ("fish", "church")
    (tmp_path / "lines.txt").write_text("n03028079 church, church building\n")
    data = open_data(tmp_path / "img")
    assert align_classes(2, data, given=class_list(tmp_path / "lines.txt")).names == (
        "n01440764",
        "church",
    )


@pytest.mark.parametrize(
    ("folders", "known"),
    [
        (
            ["golden_retriever", "Great-White shark"],
            ["hen", "great white shark", "golden retriever"],
        ),
        (["tench"], ["hen", "tench, Tinca tinca", "cat"]),
        (["crane (1)"], ["hen", "crane", "crane"]),
    ],
)
def test_names_are_found_however_they_are_written(
    folders: list[str], known: list[str], tmp_path: Path
) -> None:
    data = folder(tmp_path / "img", folders)
    names = align_classes(3, data, known=known).names
    for number, name in placed(data).items():
        assert name.casefold()[:5] == names[number].casefold()[:5]


def test_labels_without_names_are_numbers() -> None:
    images = np.zeros((3, 4, 4), np.uint8)
    data = ArrayImages(images, [0, 1, 2])
    assert align_classes(3, data).names == ("0", "1", "2")
    assert align_classes(3, data, given=ClassList(tuple("xyz"))).names == ("x", "y", "z")
    with pytest.raises(InputError, match=r"sample 2 is 3, .*\[0, 3\): if they count from 1, sub"):
        align_classes(3, ArrayImages(images, [1, 2, 3]))


def test_words_are_placed_by_name() -> None:
    images: Any = np.zeros((3, 4, 4), np.uint8)
    data = ArrayImages(images, np.array(["dog", "cat", "dog"]))
    assert data.class_names == ("cat", "dog")
    align_classes(3, data, given=["dog", "emu", "cat"])
    assert data.labels is not None
    assert data.labels.tolist() == [0, 2, 0]
