from __future__ import annotations

import io
import unicodedata
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from penult.data.folders import natural_order, order_warning
from penult.data.open import batches, open_data
from penult.data.transform import Transform
from penult.errors import InputError

RAW = Transform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
HEIC = b"\0\0\0\x18ftypheic" + bytes(40)


def picture(kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (4, 3), (200, 10, 60)).save(stream, kind)
    return stream.getvalue()


def write(kind: str, root: Path, files: dict[str, bytes]) -> Path:
    if kind == "zip":
        with zipfile.ZipFile(root.with_suffix(".zip"), "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return root.with_suffix(".zip")
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


both = pytest.mark.parametrize("kind", ["folder", "zip"])


@both
@pytest.mark.parametrize(
    "parts",
    [
        ("train", "val"),
        ("Training", "Validation", "test"),
        ("train_set", "test_set"),
        ("valid", "train2017"),
        ("dev", "test"),
        ("seg_train", "seg_test"),
        ("images-train", "images-val"),
        ("fold1", "fold2", "fold3"),
    ],
)
def test_parts_of_a_data_set_are_no_classes(
    kind: str, parts: tuple[str, ...], tmp_path: Path
) -> None:
    files = {f"{part}/{name}/1.png": picture() for part in parts for name in ("cat", "dog")}
    path = write(kind, tmp_path / "set", files)
    with pytest.raises(InputError, match=r"of a data set and not its classes: give .*/(\S+) as D"):
        open_data(path)
    first = next((part for part in parts if "train" in part.lower()), parts[0])
    with pytest.raises(InputError, match=f"give {path}/{first} as DATA"):
        open_data(path)
    assert open_data(path / first).class_names == ("cat", "dog")  # what it says does work


@both
def test_parts_with_images_of_their_own(kind: str, tmp_path: Path) -> None:
    files = {"train/cat/1.png": picture(), "train/dog/2.png": picture(), "test/3.png": picture()}
    path = write(kind, tmp_path / "kaggle", files)
    with pytest.raises(InputError, match=r"give .*/train as DATA$"):  # test has no classes
        open_data(path)
    flat = write(kind, tmp_path / "flat", {"train/1.png": picture(), "val/2.png": picture()})
    with pytest.raises(InputError, match="holds the parts train, val"):
        open_data(flat)
    assert len(open_data(flat, labelled=False)) == 2


@both
@pytest.mark.parametrize("names", [("bus", "car", "train"), ("test", "train", "wagon")])
def test_a_train_may_be_a_class(kind: str, names: tuple[str, ...], tmp_path: Path) -> None:
    path = write(kind, tmp_path / "set", {f"{name}/1.png": picture() for name in names})
    assert open_data(path).class_names == names


@both
def test_folders_of_programs_are_no_classes(kind: str, tmp_path: Path) -> None:
    files = {
        "cat/1.png": picture(),
        "dog/2.png": picture(),
        "@eaDir/x/SYNOPHOTO_THUMB_M.jpg": picture("JPEG"),
        "cat/@eaDir/1.png/THUMB.jpg": picture("JPEG"),
        ".thumbnails/1.png": picture(),
        "__MACOSX/cat/1.png": picture(),
        "dog/Thumbs.db": b"x",
    }
    data = open_data(write(kind, tmp_path / "set", files))
    assert data.class_names == ("cat", "dog")
    assert len(data) == 2
    assert data.notes == (
        "folders that a program made for itself are passed over: @eaDir, __MACOSX",
    )


@both
def test_names_and_contents_that_disagree(kind: str, tmp_path: Path) -> None:
    files = {
        "a/0.png": picture(),
        "a/1": picture("JPEG"),
        "a/n0144.18": picture("GIF"),
        "a/2.png_": picture(),
        "a/3.heic": HEIC,
        "a/4.jpg": HEIC,
        "a/5.heic": picture(),
        "a/6.cr2": picture("TIFF"),
        "a/7.bak": picture("BMP"),
        "a/8.svg": b"<svg/>",
        "a/9.png": b"no image",
        "a/labels.csv": b"1,2",
        "a/notes": b"text",
    }
    data = open_data(write(kind, tmp_path / "set", files))
    (batch,) = batches(data, RAW, batch_size=99)
    assert batch.ids == ["a/0.png", "a/1", "a/n0144.18"]
    assert {fault.id: fault.reason.split(":")[0] for fault in batch.faults} == {
        "a/2.png_": "is a PNG image whose name ends in .png_",
        "a/3.heic": "is a picture of the kind HEIF, which Pillow does not read",
        "a/4.jpg": "is a picture of the kind HEIF, which Pillow does not read",
        "a/5.heic": "is a PNG image whose name ends in .heic",
        "a/6.cr2": "is a camera's raw picture (.cr2)",
        "a/7.bak": "is a BMP image whose name ends in .bak",
        "a/8.svg": "is no image that Pillow reads (.svg)",
        "a/9.png": "is damaged or no image that Pillow reads",
    }
    assert data.describe()["n_ignored"] == 2
    with pytest.raises(InputError, match="to use it, or take it out of the folder"):
        list(batches(data, RAW, batch_size=99, strict=True))


@both
def test_composed_and_decomposed_names_are_the_same(kind: str, tmp_path: Path) -> None:
    found = []
    for form in ("NFC", "NFD"):
        name = unicodedata.normalize(form, "école")
        files = {f"{name}/é{form[:0]}.png": picture(), "zoo/1.png": picture()}
        files = {unicodedata.normalize(form, key): value for key, value in files.items()}
        data = open_data(write(kind, tmp_path / form, files))
        image = data.load(0)
        assert isinstance(image, Image.Image)
        assert image.size == (4, 3)
        found.append((data.class_names, data.id(0), data.id(1), data.fingerprint))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("names", "natural"),
    [
        (["1", "10", "2"], ["1", "2", "10"]),
        (["class1", "class10", "class9"], ["class1", "class9", "class10"]),
        (["B", "a", "c"], ["a", "B", "c"]),
        (["cat", "dog"], ["cat", "dog"]),
        (["01", "02", "10"], ["01", "02", "10"]),
        (["n01440764", "n02102040"], ["n01440764", "n02102040"]),
    ],
)
def test_natural_order(names: list[str], natural: list[str]) -> None:
    assert natural_order(names) == natural
    assert natural_order(natural[::-1]) == natural
    warning = order_warning(names)
    assert (warning is None) == (names == natural)
    if warning is not None:
        assert f"alphabetical order ({', '.join(names)})" in warning
        assert f"in the order {', '.join(natural)}, give --class-names natural" in warning


def test_a_copy_is_the_same_data(tmp_path: Path) -> None:
    files = {f"{name}/{i}.png": picture() for name in "ab" for i in range(3)}
    first = open_data(write("folder", tmp_path / "one", files))
    again = open_data(write("folder", tmp_path / "two", dict(reversed(files.items()))))
    assert first.fingerprint == again.fingerprint


def test_classes_that_are_called_like_parts_stay_classes(tmp_path: Path) -> None:
    files = {f"{name}/1.png": picture() for name in ("bullet_train", "test_tube", "crash_test")}
    data = open_data(write("folder", tmp_path / "things", files))
    assert data.class_names == ("bullet_train", "crash_test", "test_tube")


@pytest.mark.parametrize(
    ("files", "given"),
    [
        (["labels.csv", "1.png"], "give .*/labels.csv as DATA if it lists them"),
        (["data/train-0.parquet", "data/train-1.parquet"], r"give '.*/data/\*\.parquet' as DATA"),
        (["a-0.tar", "a-1.tar"], r"give '.*/\*\.tar' as DATA"),
        (["photos.zip"], r"give .*/photos\.zip as DATA"),
    ],
)
def test_what_lies_in_a_folder_without_classes_is_offered(
    files: list[str], given: str, tmp_path: Path
) -> None:
    contents = {name: picture() if name.endswith("png") else b"x" for name in files}
    with pytest.raises(InputError, match=given):
        open_data(write("folder", tmp_path / "set", contents))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("labels.json", "write a table as JSON lines"),
        ("labels.xlsx", "save it as CSV"),
        ("labels.csv.gz", "unpack it"),
        ("photos.7z", "unpack it, or pack it as zip or tar"),
        ("data.npz", r"returns \(images, labels\): file.py:FUNCTION"),
        ("data.py", r"give what a function of it returns, .*data.py:FUNCTION"),
        ("cat.jpg", "it is a single image: give a folder"),
    ],
)
def test_other_files_are_refused_with_what_to_do(name: str, remedy: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(InputError, match=f"is no data that penult reads: .*{remedy}"):
        open_data(tmp_path / name)
