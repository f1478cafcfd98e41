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
    data = folder(tmp_path / "img", ["n03028079", "n99999999"])  # the second is no one's
    (tmp_path / "names.json").write_text('{"n03028079": "church", "n99999999": "fish"}')
    said = class_list(tmp_path / "names.json")
    assert align_classes(2, data, given=said).names == ("church", "fish")
    (tmp_path / "lines.txt").write_text("n03028079 church, church building\n")
    data = open_data(tmp_path / "img")
    assert align_classes(2, data, given=class_list(tmp_path / "lines.txt")).names == (
        "church",
        "n99999999",
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


ORDER = {0: "tench", 1: "goldfish", 7: "cock", 404: "airliner", 999: "toilet tissue"}
IDS = {0: "n01440764", 1: "n01443537", 7: "n01514668", 404: "n02690373", 999: "n15075141"}


def words(names: list[str]) -> ImageData:
    return ArrayImages(np.zeros((len(names), 4, 4), np.uint8), np.array(names))


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_imagenets_classes_have_the_same_names_and_places_however_data_call_them() -> None:
    from penult.data.imagenet import every_name, usual_ids

    numbers = [404, 0, 7]
    ids = usual_ids(1000) or []
    assert {i: ids[i] for i in IDS} == IDS
    whole = words(ids)
    names = align_classes(1000, whole).names
    assert whole.labels is not None
    assert whole.labels.tolist() == list(range(1000))
    assert {i: names[i] for i in ORDER} == ORDER
    for called in (
        [IDS[i] for i in numbers],
        [ORDER[i] for i in numbers],
        [ORDER[i].upper().replace(" ", "_") for i in numbers],
        [every_name(IDS[i])[-1] for i in numbers],
    ):
        data = words(called)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="the classes are placed by their English")
            assert align_classes(1000, data).names == names, called
        assert data.labels is not None
        assert data.labels.tolist() == numbers, called
    with pytest.warns(UserWarning, match="placed by their English names among ImageNet's"):
        align_classes(1000, words(["tench", "cock"]))
    with pytest.raises(InputError, match=r"has 2 classes \(crane, tench\)"):  # there are two cranes
        align_classes(1000, words(["tench", "crane"]))


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_wordnet_ids_are_found_in_lists_of_english_names_in_any_order() -> None:
    from penult.data.imagenet import every_name, usual_ids

    ids = usual_ids(1000) or []
    order = np.random.default_rng(0).permutation(1000).tolist()
    for n_names in (1, None):
        listed = [", ".join(every_name(ids[i])[:n_names]) for i in order]
        data = words([IDS[i] for i in (404, 0, 7)])
        align_classes(1000, data, given=ClassList(tuple(listed)))
        assert data.labels is not None
        assert [order[i] for i in data.labels] == [404, 0, 7]
    cranes = words([ids[134], ids[517]])
    align_classes(1000, cranes, given=ClassList(tuple(every_name(key)[0] for key in ids)))
    assert cranes.labels is not None
    assert cranes.labels.tolist() == [134, 517]


@pytest.mark.skipif(find_spec("timm") is None, reason="timm is not installed")
def test_ids_that_fit_several_lists_of_one_length_are_refused() -> None:
    with pytest.raises(InputError, match="are in imagenet_a, imagenet_r, each of 200 classes"):
        align_classes(200, words(["n01498041", "n02007558", "n02077923"]))


def test_any_of_a_classs_names_means_it() -> None:
    listed = ClassList(("hen, biddy", "cock, rooster", "rooster fish"))
    data = words(["rooster", "biddy", "Rooster-Fish"])
    align_classes(3, data, given=listed)
    assert data.labels is not None
    assert data.labels.tolist() == [1, 0, 2]
