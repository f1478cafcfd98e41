from __future__ import annotations

import gc
import io
import os
import pickle
import shutil
import stat
import struct
import sys
import tracemalloc
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from penult.data.image import noted_lines
from penult.data.open import (
    ArrayImages,
    Batch,
    ImageData,
    ImageFaultError,
    batches,
    check_data,
    open_data,
    read,
)
from penult.data.transform import Transform
from penult.errors import InputError
from penult.extras import import_torchvision

RAW = Transform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
ODD_NAMES = [
    "<script>alert(1)</script>.png".replace("/", "\N{DIVISION SLASH}"),
    'it\'s "quoted".png',
    "x" * 196 + ".png",
    "صورة قطة.png",
    "猫 \N{GRINNING FACE}.PNG",
    "a b&c%20;$(d).png",
]


def pixels(seed: int, height: int = 6, width: int = 8) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def png(seed: int, height: int = 6, width: int = 8) -> bytes:
    return encoded(Image.fromarray(pixels(seed, height, width)))


def forged_png(width: int, height: int) -> bytes:
    """The header of an enormous image, and next to nothing after it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + chunk(b"IDAT", zlib.compress(b"\0" * 9))
        + chunk(b"IEND", b"")
    )


def write_folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_zip(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write(kind: str, tmp_path: Path, files: dict[str, bytes]) -> Path:
    if kind == "folder":
        return write_folder(tmp_path / "data", files)
    return write_zip(tmp_path / "data.zip", files)


def ids(data: ImageData) -> list[str]:
    return [data.id(i) for i in range(len(data))]


def classes(data: ImageData) -> list[str]:
    assert data.labels is not None
    assert data.class_names is not None
    return [data.class_names[label] for label in data.labels]


def all_faults(found: list[Batch]) -> dict[str, str]:
    return {fault.id: fault.reason for batch in found for fault in batch.faults}


def assert_same(found: Batch, expected: Batch) -> None:
    assert torch.equal(found.images, expected.images)
    assert found.images.dtype == expected.images.dtype
    assert torch.equal(found.labels, expected.labels)
    assert (found.ids, found.faults, found.converted, found.positions) == (
        expected.ids,
        expected.faults,
        expected.converted,
        expected.positions,
    )


both = pytest.mark.parametrize("kind", ["folder", "zip"])


# Listing


@both
def test_classes_are_the_folders_in_alphabetical_order(kind: str, tmp_path: Path) -> None:
    files = {name: png(i) for i, name in enumerate(["b/2.png", "b/10.png", "B/1.png", "a/x.png"])}
    data = open_data(write(kind, tmp_path, files))
    assert data.class_names == ("B", "a", "b")
    assert ids(data) == ["B/1.png", "a/x.png", "b/10.png", "b/2.png"]
    assert data.labels is not None
    assert data.labels.dtype == np.int64
    assert data.labels.tolist() == [0, 1, 2, 2]
    assert data.labelled
    for index, name in enumerate(ids(data)):
        loaded = data.load(index)
        assert isinstance(loaded, Image.Image)
        assert np.array_equal(np.asarray(loaded), pixels(list(files).index(name)))


@both
def test_what_is_passed_over_and_what_is_counted(kind: str, tmp_path: Path) -> None:
    files = {
        "cat/1.png": png(1),
        "cat/deep/2.JPG": encoded(Image.fromarray(pixels(2)), "JPEG"),
        "dog/3.webp": encoded(Image.fromarray(pixels(3)), "WEBP"),
        "dog/Thumbs.db": b"x",
        "dog/notes.txt": b"x",
        "README": b"x",
        ".hidden/4.png": png(4),
        "cat/.5.png": png(5),
        "__MACOSX/cat/._1.png": b"x",
    }
    data = open_data(write(kind, tmp_path, files))
    assert ids(data) == ["cat/1.png", "cat/deep/2.JPG", "dog/3.webp"]
    assert classes(data) == ["cat", "cat", "dog"]
    described = data.describe()
    assert described["n_ignored"] == 2
    assert described["notes"] == [
        "2 files that are no images are passed over (.txt, without an ending)",
        "folders that a program made for itself are passed over: __MACOSX",
    ]
    assert (described["kind"], described["n_samples"], described["n_classes"]) == (kind, 3, 2)


@both
def test_one_folder_that_holds_everything_is_stepped_into(kind: str, tmp_path: Path) -> None:
    files = {"set/train/a/1.png": png(1), "set/train/b/2.png": png(2), "set/about.txt": b"x"}
    data = open_data(write(kind, tmp_path, files))
    assert data.class_names == ("a", "b")
    assert ids(data) == ["set/train/a/1.png", "set/train/b/2.png"]


@both
def test_a_single_class_is_not_stepped_into(kind: str, tmp_path: Path) -> None:
    data = open_data(write(kind, tmp_path, {"cat/1.png": png(1), "cat/more/2.png": png(2)}))
    assert data.class_names == ("cat",)


@both
def test_odd_names_are_kept(kind: str, tmp_path: Path) -> None:
    names = [f"<b> & 'c'/{name}" for name in ODD_NAMES] + ["ü/1.png"]
    data = open_data(write(kind, tmp_path, {name: png(i) for i, name in enumerate(names)}))
    assert ids(data) == sorted(names)
    assert data.class_names == ("<b> & 'c'", "ü")
    (batch,) = batches(data, RAW, batch_size=10)
    assert batch.ids == sorted(names)
    assert batch.faults == []


@both
def test_control_characters_stay_on_their_line(kind: str, tmp_path: Path) -> None:
    data = open_data(write(kind, tmp_path, {"a\nb/\x1b[31m\u202egnp.png": b""}))
    assert ids(data) == [r"a\nb/\x1b[31m\u202egnp.png"]
    assert data.class_names == (r"a\nb",)
    with pytest.raises(ImageFaultError, match=r"^a\\nb/\\x1b\[31m\\u202egnp.png: is empty"):
        data.load(0)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    folder = os.fsencode(tmp_path / "a")
    with open(folder + b"/\xff.png", "wb") as file:  # noqa: PTH123  # a Path takes no bytes
        file.write(png(7))
    data = open_data(tmp_path)
    assert ids(data) == [r"a/\udcff.png"]
    loaded = data.load(0)
    assert np.array_equal(np.asarray(loaded), pixels(7))


def test_folder_agrees_with_torchvision(tmp_path: Path) -> None:
    rgb, grey = Image.fromarray(pixels(1, 20, 31)), Image.fromarray(pixels(2, 33, 18)).convert("L")
    alpha = rgb.copy()
    alpha.putalpha(128)
    write_folder(
        tmp_path,
        {
            "cat/rgb.png": encoded(rgb),
            "cat/grey.png": encoded(grey),
            "cat/alpha.webp": encoded(alpha, "WEBP"),
            "dog/cmyk.jpg": encoded(rgb.convert("CMYK"), "JPEG"),
            "dog/palette.gif": encoded(rgb.quantize(16), "GIF"),
            "dog/bit.png": encoded(grey.convert("1")),
        },
    )
    v1, torchvision = import_torchvision().transforms, import_torchvision()
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    steps = [v1.Resize(16), v1.CenterCrop(13), v1.ToTensor(), v1.Normalize(mean, std)]
    extensions = (".png", ".webp", ".jpg", ".gif")
    theirs = torchvision.datasets.DatasetFolder(
        str(tmp_path), torchvision.datasets.folder.pil_loader, extensions, v1.Compose(steps)
    )

    data = open_data(tmp_path)
    transform = Transform(16, 13, mean, std)
    (batch,) = batches(data, transform, batch_size=10)

    assert data.class_names == tuple(theirs.classes)
    assert batch.labels.tolist() == theirs.targets
    assert batch.ids == [Path(path).relative_to(tmp_path).as_posix() for path, _ in theirs.samples]
    expected = torch.stack([image for image, _ in theirs])
    torch.testing.assert_close(transform.normalise(batch.images), expected, rtol=0, atol=1e-6)
    assert batch.converted == {"greyscale": 2, "transparent": 1, "CMYK": 1, "palette": 1}


def test_unlabelled_images_lie_as_they_like(tmp_path: Path) -> None:
    files = {"3.png": png(3), "a/1.png": png(1), "a/b/c/2.png": png(2)}
    data = open_data(write_folder(tmp_path, files), labelled=False)
    assert ids(data) == ["3.png", "a/1.png", "a/b/c/2.png"]
    assert (data.labels, data.class_names, data.labelled) == (None, None, False)
    (batch,) = batches(data, RAW, batch_size=5)
    assert batch.labels.tolist() == [-1, -1, -1]


def test_links_to_folders_are_followed_once(tmp_path: Path) -> None:
    elsewhere = write_folder(tmp_path / "elsewhere", {"1.png": png(1)})
    root = write_folder(tmp_path / "data", {"a/2.png": png(2)})
    (root / "b").symlink_to(elsewhere)
    (root / "a" / "loop").symlink_to(root)
    (root / "a" / "gone.png").symlink_to(tmp_path / "nothing")
    os.mkfifo(root / "a" / "pipe.png")
    data = open_data(root)
    assert ids(data) == ["a/2.png", "a/gone.png", "b/1.png"]
    (batch,) = batches(data, RAW, batch_size=5)
    assert all_faults([batch]) == {"a/gone.png": "cannot be read (No such file or directory)"}


# Refused before the work starts


@both
def test_images_outside_of_class_folders(kind: str, tmp_path: Path) -> None:
    flat = write(kind, tmp_path, {"1.png": png(1), "2.png": png(2)})
    with pytest.raises(
        InputError,
        match=r"data.* holds 2 images outside of class folders \(1.png, 2.png\): put each class's "
        r"images in a folder of its own, or use .* predictions as labels with --labels predicted$",
    ):
        open_data(flat)
    assert len(open_data(flat, labelled=False)) == 2


@both
def test_a_loose_image_beside_class_folders(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path, {"a/1.png": png(1), "stray.png": png(2)})
    with pytest.raises(InputError, match=r"1 images outside of class folders \(stray.png\)"):
        open_data(path)


@both
def test_empty_class_folders_are_classes(kind: str, tmp_path: Path) -> None:
    files = {"cat/1.png": png(1), "dog/readme.txt": b"x", "cow/x.db": b"", "emu/2.png": png(2)}
    data = open_data(write(kind, tmp_path, files))
    assert data.class_names == ("cat", "cow", "dog", "emu")
    assert classes(data) == ["cat", "emu"]


def test_an_empty_class_folder_without_files(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"cat/1.png": png(1)})
    (root / "dog").mkdir()
    (root / "dog" / ".keep").touch()
    assert open_data(root).class_names == ("cat", "dog")
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        archive.writestr("cat/1.png", png(1))
        archive.writestr("dog/", b"")
    assert open_data(tmp_path / "data.zip").class_names == ("cat", "dog")


@both
def test_no_images_at_all(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path, {"cat/1.txt": b"x", "cat/2.csv": b"x"})
    with pytest.raises(InputError, match=r"holds no images \(found only cat/1.txt, cat/2.csv\)"):
        open_data(path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no images \(found nothing\): expected one folder"):
        open_data(tmp_path)


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "cifar10").mkdir()
    with pytest.raises(
        InputError,
        match=r"cifar_10 is not there \(did you mean cifar10\?\): expected a folder, zip",
    ):
        open_data(tmp_path / "cifar_10")
    with pytest.raises(InputError, match=r"^no/such/place is not there: expected"):
        open_data("no/such/place")


def test_what_is_no_zip(tmp_path: Path) -> None:
    path = tmp_path / "notes.zip"
    path.write_text("hello")
    with pytest.raises(
        InputError, match=r"notes.zip is no zip archive \(.*\): expected a folder or"
    ):
        open_data(path)


@pytest.mark.parametrize("missing", [1, 30, 200])
def test_a_truncated_zip(missing: int, tmp_path: Path) -> None:
    whole = write_zip(tmp_path / "whole.zip", {f"a/{i}.png": png(i) for i in range(4)})
    cut = tmp_path / "cut.zip"
    cut.write_bytes(whole.read_bytes()[:-missing])
    with pytest.raises(
        InputError, match=r"cut.zip is a truncated zip archive \(.*\): copy it again"
    ):
        open_data(cut)


def test_a_zip_whose_entry_lies_past_its_end(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {"a/1.png": png(1)})
    content = bytearray(path.read_bytes())
    size = content.index(b"PK\x01\x02") + 20
    content[size : size + 4] = struct.pack("<I", 2 * len(content))
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"truncated zip archive \(a/1.png lies past its end\): copy"
    ):
        open_data(path)


def test_an_encrypted_zip(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {"a/1.png": png(1)})
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(
        InputError, match=r"is encrypted \(a/1.png\): unpack it, or pack it without"
    ):
        open_data(path)


@pytest.mark.parametrize(
    "name",
    ["../a/1.png", "a/../../1.png", "/a/1.png", "C:\\a\\1.png", "a\\..\\1.png", "..", "a/.."],
)
def test_a_zip_that_climbs_out(name: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {"a/0.png": png(0), name: png(1)})
    with pytest.raises(InputError, match="which climbs out of the archive: pack it with relative"):
        open_data(path)


def test_dots_in_names_do_not_climb(tmp_path: Path) -> None:
    files = {"./a/1..png": png(1), "a/2...jpg.png": png(2), "a..b/c.png": png(3)}
    assert len(open_data(write_zip(tmp_path / "data.zip", files))) == 3


def test_a_zip_with_a_name_twice(tmp_path: Path) -> None:
    path = tmp_path / "data.zip"
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")
        for seed in range(2):
            archive.writestr("a/1.png", png(seed))
    with pytest.raises(InputError, match=r"two files of the same name: a/1.png; pack it again"):
        open_data(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser reads everything")
@both
def test_data_that_may_not_be_read(kind: str, tmp_path: Path) -> None:
    path = write(kind, tmp_path, {"a/1.png": png(1)})
    path.chmod(0)
    try:
        with pytest.raises(InputError, match="cannot be (listed|read): Permission denied"):
            open_data(path)
    finally:
        path.chmod(stat.S_IRWXU)


# Zips


@pytest.mark.parametrize(
    "method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
)
def test_every_compression_is_read(method: int, tmp_path: Path) -> None:
    files = {f"a/{i}.bmp": encoded(Image.fromarray(pixels(i)), "BMP") for i in range(5)}
    path = write_zip(tmp_path / "data.zip", files, method)
    # Whatever is put before an archive shifts all of its entries.
    path.write_bytes(b"#!/bin/sh\n" + path.read_bytes())
    (batch,) = batches(open_data(path), RAW, batch_size=5)
    assert np.array_equal(batch.images.numpy(), np.stack([pixels(i) for i in range(5)]))


def test_a_damaged_entry_is_one_fault(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "data.zip", {f"a/{i}.png": png(i) for i in range(3)})
    content = bytearray(path.read_bytes())
    content[content.index(png(1)) + 60] ^= 0xFF
    second = content.index(b"PK\x03\x04", content.index(png(0)) + len(png(0)) + 5)
    content[second : second + 4] = b"XXXX"
    path.write_bytes(content)
    (batch,) = batches(open_data(path), RAW, batch_size=5)
    assert batch.ids == ["a/0.png"]
    found = all_faults([batch])
    assert found["a/1.png"] == "is truncated or damaged (BadZipFile: Bad CRC-32)"
    assert "no entry where the table of contents says" in found["a/2.png"]


def test_the_list_of_a_large_zip_stays_small(tmp_path: Path) -> None:
    n_samples = 10_000
    path = tmp_path / "data.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for i in range(n_samples):
            archive.writestr(zipfile.ZipInfo(f"class_{i % 10}/image_number_{i:07d}.png"), b"x")
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        data = open_data(path)
        gc.collect()
        lasting = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(data) == n_samples
    assert lasting < 10e6 * n_samples / 50_000


# Faults and conversions


def test_each_bad_image_is_a_fault_of_its_own(tmp_path: Path) -> None:
    image = Image.fromarray(pixels(0, 64, 64))
    jpeg = encoded(image, "JPEG")
    deep = Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000)
    floats = Image.fromarray(np.ones((6, 8), np.float32))
    files = {
        "a/00 good.png": encoded(image),
        "a/cut.jpg": jpeg[: len(jpeg) // 2],
        "a/cut.png": encoded(image)[:200],
        "a/cut.webp": encoded(image, "WEBP", lossless=True)[:900],
        "a/text.png": b"this is no image\n" * 9,
        "a/zero.png": b"",
        "a/bomb.png": forged_png(30_000, 30_000),
        "a/large.png": forged_png(12_000, 9_000),
        "a/deep.png": encoded(deep),
        "a/float.tiff": encoded(floats, "TIFF"),
        "a/script.png": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n9 9\n",
    }
    # Pillow would hand it to Ghostscript, a program of its own.
    assert Image.open(io.BytesIO(files["a/script.png"])).format == "EPS"
    found = list(batches(open_data(write_folder(tmp_path, files)), RAW, batch_size=4))

    assert [name for batch in found for name in batch.ids] == ["a/00 good.png"]
    reasons = all_faults(found)
    assert set(reasons) == set(files) - {"a/00 good.png"}
    assert reasons["a/zero.png"] == "is empty (0 bytes)"
    assert reasons["a/text.png"] == "is damaged or no image that Pillow reads"
    assert reasons["a/script.png"] == "is damaged or no image that Pillow reads"
    for name in ("a/cut.jpg", "a/cut.png"):
        assert reasons[name].startswith("is truncated or damaged (OSError: image file is truncated")
    assert "damaged" in reasons["a/cut.webp"]
    for name in ("a/bomb.png", "a/large.png"):
        assert reasons[name] == "has more than 100 million pixels: scale it down"
    for name in ("a/deep.png", "a/float.tiff"):
        assert reasons[name].startswith("has 16-bit, 32-bit or floating-point pixels (mode ")
        assert reasons[name].endswith("): convert to 8 bits")
    assert not any("\n" in reason for reason in reasons.values())
    empty = [batch for batch in found if not batch.ids]
    assert [tuple(batch.images.shape) for batch in empty] == [(0, 64, 64, 3)] * 2
    assert [tuple(batch.labels.shape) for batch in empty] == [(0,)] * 2


CONVERTED: dict[str, tuple[str, Callable[[Image.Image], bytes]]] = {
    "grey.png": ("greyscale", lambda i: encoded(i.convert("L"))),
    "bit.png": ("greyscale", lambda i: encoded(i.convert("1"))),
    "palette.png": ("palette", lambda i: encoded(i.quantize(8))),
    "clear.png": ("transparent", lambda i: encoded(i.quantize(8), transparency=b"\x00\x80\xff")),
    "rgba.png": ("transparent", lambda i: encoded(i.convert("RGBA"))),
    "la.png": ("transparent", lambda i: encoded(i.convert("LA"))),
    "cmyk.jpg": ("CMYK", lambda i: encoded(i.convert("CMYK"), "JPEG")),
}


@pytest.mark.parametrize("name", list(CONVERTED))
def test_conversions_are_counted_and_are_pils_own(name: str, tmp_path: Path) -> None:
    kind, encode = CONVERTED[name]
    raw = encode(Image.fromarray(pixels(3, 16, 12)))
    data = open_data(write_folder(tmp_path, {f"a/{name}": raw, "a/plain.png": png(1, 16, 12)}))
    (batch,) = batches(data, RAW, batch_size=2)
    assert batch.converted == {kind: 1}
    assert batch.faults == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(Image.open(io.BytesIO(raw)).convert("RGB"))
    assert np.array_equal(batch.images[batch.ids.index(f"a/{name}")].numpy(), expected)


def test_no_warning_of_pillow_reaches_the_user(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    clear = CONVERTED["clear.png"][1](Image.fromarray(pixels(3)))
    with warnings.catch_warnings(record=True) as loud:
        warnings.simplefilter("always")
        Image.open(io.BytesIO(clear)).convert("RGB")
        Image.open(io.BytesIO(forged_png(12_000, 9_000)))
    assert len(loud) == 2
    write_folder(tmp_path, {"a/0.png": clear, "a/1.png": forged_png(12_000, 9_000)})
    data = open_data(tmp_path)
    check_data(data, RAW)
    list(batches(data, RAW, batch_size=2))
    read(data, RAW, 0)
    assert list(recwarn) == []


def test_colour_becomes_grey_for_a_grey_network(tmp_path: Path) -> None:
    data = open_data(write_folder(tmp_path, {"a/0.png": png(0), "a/1.png": png(1)}))
    (batch,) = batches(data, Transform(mean=(0.5,), std=(0.5,)), batch_size=2)
    assert batch.images.shape == (2, 6, 8, 1)
    assert batch.converted == {"colour": 2}


def test_an_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((6, 8, 3), value, np.uint8)) for value in (10, 200)]
    gif = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    webp = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    data = open_data(write_folder(tmp_path, {"a/0.gif": gif, "a/1.webp": webp}))
    (batch,) = batches(data, RAW, batch_size=2)
    assert batch.faults == []
    assert torch.equal(batch.images, torch.full((2, 6, 8, 3), 10, dtype=torch.uint8))


def test_a_format_that_the_name_does_not_say(tmp_path: Path) -> None:
    raw = encoded(Image.fromarray(pixels(5)), "BMP")
    data = open_data(write_folder(tmp_path, {"a/photo.jpg": raw}))
    (batch,) = batches(data, RAW, batch_size=2)
    assert np.array_equal(batch.images[0].numpy(), pixels(5))


def test_a_file_of_absurd_length_is_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/0.png": png(0)})
    with (tmp_path / "a" / "1.bmp").open("wb") as file:
        file.truncate((1 << 29) + 1)
    (batch,) = batches(open_data(tmp_path), RAW, batch_size=2)
    assert all_faults([batch]) == {"a/1.bmp": "is a file of more than 512 MiB: scale it down"}


def test_another_size_is_a_fault_where_none_is_set(tmp_path: Path) -> None:
    write_folder(tmp_path, {"a/0.png": b"", "a/1.png": png(1), "b/2.png": png(2, 9, 8)})
    data = open_data(tmp_path)
    found = list(batches(data, RAW, batch_size=1))
    assert all_faults(found)["b/2.png"] == (
        "gives 9 × 8 pixels (height × width), expected 6 × 8 pixels (height × width) as a/1.png "
        "gives: set a size with --size"
    )
    # The expected size does not depend on the batch that a resumed pass starts with.
    (last,) = batches(data, RAW, batch_size=1, start_batch=2)
    assert last.faults == found[2].faults
    (sized,) = batches(data, Transform(resize=(5, 5)), batch_size=3)
    assert sized.ids == ["a/1.png", "b/2.png"]


def test_strict_stops_at_the_first_fault(tmp_path: Path) -> None:
    data = open_data(write_folder(tmp_path, {"a/0.png": png(0), "a/1.png": b"", "a/2.png": b"x"}))
    for workers in (0, 1):
        loader = iter(batches(data, RAW, batch_size=1, strict=True, workers=workers))
        assert next(loader).ids == ["a/0.png"]
        with pytest.raises(InputError, match=r"^a/1.png: is empty \(0 bytes\)$"):
            next(loader)


def test_no_usable_image_at_all(tmp_path: Path) -> None:
    data = open_data(write_folder(tmp_path, {"a/0.png": b"", "a/1.png": b"x"}))
    with pytest.raises(InputError, match=r"^no image can be used: the first, a/0.png, is empty"):
        batches(data, RAW, batch_size=1)
    with pytest.raises(
        InputError, match="none of 2 images looked at can be used; the first, a/0.png, is empty"
    ):
        check_data(data, RAW)


def test_check_data_finds_several_sizes(tmp_path: Path) -> None:
    files = {f"a/{i:03}.png": png(i) for i in range(40)}
    data = open_data(write_folder(tmp_path, {**files, "a/999.png": png(99, 12, 8)}))
    with pytest.raises(
        InputError,
        match=r"images differ in size: a/000.png gives 6 × 8 pixels \(height × width\), a/999.png "
        r"12 × 8 pixels \(height × width\); give one size for all, such as --size 224",
    ):
        check_data(data, RAW)
    check_data(data, Transform(resize=4, crop=4))
    with pytest.raises(InputError, match="a/000.png gives 4 × 5 .* a/999.png 6 × 4"):
        check_data(data, Transform(resize=4))


def test_check_data_looks_at_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = open_data(write_folder(tmp_path, {f"a/{i:03}.png": png(i) for i in range(100)}))
    seen: list[int] = []
    load = data.load

    def watched(index: int) -> Any:
        seen.append(index)
        return load(index)

    monkeypatch.setattr(data, "load", watched)
    check_data(data, RAW)
    assert len(seen) == 32
    assert (seen[0], seen[-1]) == (0, 99)


# Batches


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """23 images, some of which cannot be used, as a zip."""
    files = {f"{'ab'[i % 2]}/{i:02}.png": png(i) for i in range(23)}
    files |= {"a/04.png": b"", "a/06.png": b"", "b/05.png": png(5)[:60], "b/21.png": png(1, 9, 9)}
    files["b/11.png"] = encoded(Image.fromarray(pixels(11)).convert("L"))
    return write_zip(tmp_path_factory.mktemp("mixed") / "mixed.zip", files)


def test_batches_cover_fixed_positions(mixed: Path) -> None:
    data = open_data(mixed)
    loader = batches(data, RAW, batch_size=5)
    found = list(loader)
    assert len(loader) == len(found) == 5
    for number, batch in enumerate(found):
        window = [data.id(i) for i in range(number * 5, min(number * 5 + 5, 23))]
        assert [*batch.ids, *(f.id for f in batch.faults)] == sorted(
            window, key=lambda name: (name in all_faults([batch]), window.index(name))
        )
        assert batch.ids == [data.id(i) for i in batch.positions]
        assert data.labels is not None
        assert batch.labels.tolist() == data.labels[batch.positions].tolist()
        assert batch.labels.dtype == torch.int64
        assert batch.images.shape == (len(batch.ids), 6, 8, 3)
    assert sum(len(batch.ids) for batch in found) == 19
    assert sum((batch.converted.get("greyscale", 0) for batch in found), 0) == 1


@settings(max_examples=15, deadline=None)
@given(batch_size=st.integers(1, 30), start=st.integers(0, 25))
def test_a_resumed_pass_meets_the_same_batches(mixed: Path, batch_size: int, start: int) -> None:
    data = open_data(mixed)
    whole = list(batches(data, RAW, batch_size=batch_size))
    resumed = batches(open_data(mixed), RAW, batch_size=batch_size, start_batch=start)
    assert len(resumed) == len(whole[start:])
    for found, expected in zip(resumed, whole[start:], strict=True):
        assert_same(found, expected)


def test_a_batch_holds_at_least_one(mixed: Path) -> None:
    with pytest.raises(InputError, match="batch_size must be at least 1, found 0"):
        batches(open_data(mixed), RAW, batch_size=0)


def test_workers_change_nothing(mixed: Path) -> None:
    data = open_data(mixed)
    data.load(0)  # leaves the archive open in this process, with a position of its own
    alone = list(batches(data, RAW, batch_size=4, start_batch=1))
    helped = list(batches(data, RAW, batch_size=4, start_batch=1, workers=2))
    for found, expected in zip(helped, alone, strict=True):
        assert_same(found, expected)


def test_iterating_leaves_the_random_state_alone(mixed: Path) -> None:
    state = torch.get_rng_state()
    list(batches(open_data(mixed), RAW, batch_size=9))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_loader_can_be_iterated_again(mixed: Path) -> None:
    loader = batches(open_data(mixed), RAW, batch_size=9)
    for found, expected in zip(loader, loader, strict=True):
        assert_same(found, expected)


def test_data_travel_to_another_process(mixed: Path, tmp_path: Path) -> None:
    module = tmp_path / "mine.py"
    module.write_text(
        "from PIL import Image\n"
        "class Own:\n"
        "    def __len__(self): return 2\n"
        "    def __getitem__(self, i): return Image.new('RGB', (3, 2), (i, 0, 0)), i\n"
    )
    folder = write_folder(tmp_path / "folder", {"a/0.png": png(0)})
    for spec in (
        mixed,
        folder,
        "digits:test",
        f"{module}:Own",
        (np.zeros((2, 4, 4, 3), np.uint8), [0, 1]),
    ):
        data = open_data(spec)
        data.load(0)
        written = pickle.dumps(data)
        # Another process knows nothing of a user's file that was loaded in this one.
        for name in [name for name in sys.modules if name.startswith("penult_file_")]:
            del sys.modules[name]
        copy = pickle.loads(written)
        assert (copy.fingerprint, len(copy), ids(copy)) == (data.fingerprint, len(data), ids(data))
        assert torch.equal(read(copy, RAW, 0).values, read(data, RAW, 0).values)


def test_a_fault_travels_to_another_process() -> None:
    fault = pickle.loads(pickle.dumps(ImageFaultError("a/1.png", "is empty")))
    assert (fault.id, fault.reason, str(fault)) == ("a/1.png", "is empty", "a/1.png: is empty")


# Fingerprints


def test_a_fingerprint_tells_data_apart(tmp_path: Path) -> None:
    files = {"a/1.png": png(1), "b/2.png": png(2)}
    folder = write_folder(tmp_path / "data", files)
    first = open_data(folder).fingerprint
    assert open_data(folder).fingerprint == first
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    assert open_data(moved).fingerprint == first
    assert open_data(folder, labelled=False).fingerprint != first

    seen = {first}
    os.utime(folder / "a/1.png", ns=(1, 1))
    assert open_data(folder).fingerprint == first
    content = bytearray(png(1))
    content[-1] ^= 1  # of the same length
    (folder / "a/1.png").write_bytes(content)
    seen.add(open_data(folder).fingerprint)
    (folder / "a/1.png").rename(folder / "a/0.png")
    seen.add(open_data(folder).fingerprint)
    (folder / "a/3.png").write_bytes(png(3))
    seen.add(open_data(folder).fingerprint)
    assert len(seen) == 4


def test_a_zips_fingerprint_is_of_its_content(tmp_path: Path) -> None:
    files = {"a/1.png": png(1), "b/2.png": png(2)}
    first = open_data(write_zip(tmp_path / "1.zip", files)).fingerprint
    packed = open_data(write_zip(tmp_path / "2.zip", files, zipfile.ZIP_DEFLATED)).fingerprint
    assert packed == first
    changed = bytearray(png(2))
    changed[-1] ^= 1
    other = {**files, "b/2.png": bytes(changed)}
    assert open_data(write_zip(tmp_path / "3.zip", other)).fingerprint != first


def test_a_fingerprint_tells_where_a_name_ends(tmp_path: Path) -> None:
    one = write_zip(tmp_path / "1.zip", {"a/1.png": b"", "a/2.pngb/3.png": b""})
    two = write_zip(tmp_path / "2.zip", {"a/1.pnga/2.png": b"", "b/3.png": b""})
    first, second = (open_data(path, labelled=False) for path in (one, two))
    assert "".join(ids(first)) == "".join(ids(second))
    assert first.fingerprint != second.fingerprint


# Arrays, data sets and functions


def test_digits() -> None:
    whole, train, test = (open_data(f"digits{part}") for part in ("", ":train", ":test"))
    assert (len(whole), len(train), len(test)) == (1797, 1437, 360)
    assert whole.class_names == tuple("0123456789")
    assert set(ids(train)) | set(ids(test)) == set(ids(whole))
    assert not set(ids(train)) & set(ids(test))
    assert ids(train) == sorted(ids(train))
    for part in (train, test):
        assert part.labels is not None
        assert whole.labels is not None
        shares = np.bincount(part.labels) / len(part)
        assert np.abs(shares - np.bincount(whole.labels) / len(whole)).max() < 0.002
    assert ids(open_data("digits:test")) == ids(test)
    assert open_data("digits:test").fingerprint == test.fingerprint

    from sklearn.datasets import load_digits

    transform = Transform(mean=(0.0,), std=(1.0,))
    (batch,) = batches(whole, transform, batch_size=1797)
    assert batch.images.shape == (1797, 8, 8, 1)
    grey = transform.normalise(batch.images)[:, 0].numpy() * 16
    assert np.abs(grey - load_digits().images).max() < 0.04
    assert np.array_equal(np.rint(grey), load_digits().images)
    assert batch.labels.tolist() == load_digits().target.tolist()

    assert open_data("digits", labelled=False).labels is None
    with pytest.raises(
        InputError, match=r"digits:val is not there: expected digits, digits:train, d"
    ):
        open_data("digits:val")


@pytest.mark.parametrize(
    "images",
    [
        np.stack([pixels(i) for i in range(4)]),
        torch.from_numpy(np.stack([pixels(i) for i in range(4)])).permute(0, 3, 1, 2),
    ],
)
def test_arrays_of_pixels(images: Any) -> None:
    data = open_data((images, [2, 0, 1, 2]))
    (batch,) = batches(data, RAW, batch_size=4)
    assert np.array_equal(batch.images.numpy(), np.stack([pixels(i) for i in range(4)]))
    assert batch.labels.tolist() == [2, 0, 1, 2]
    assert batch.ids == ["0", "1", "2", "3"]
    assert open_data((images, [2, 0, 1, 1])).fingerprint != data.fingerprint
    assert open_data((images[:, :, ::2], [2, 0, 1, 2])).fingerprint != data.fingerprint


def test_grey_arrays() -> None:
    grey = np.stack([pixels(i)[:, :, 0] for i in range(2)])
    transform = Transform(mean=(0.5,), std=(0.5,))
    for images in (
        grey,
        grey[:, :, :, None],
        torch.from_numpy(grey),
        torch.from_numpy(grey)[:, None],
    ):
        (batch,) = batches(open_data((images, [0, 1])), transform, batch_size=2)
        assert np.array_equal(batch.images[:, :, :, 0].numpy(), grey)


def test_float_tensors_go_to_the_network_untouched() -> None:
    ready = torch.randn(3, 2, 5, 4, dtype=torch.float64)
    transform = Transform(resize=32, crop=8)
    for spec in ((ready, [0, 1, 1]), TensorDataset(ready, torch.tensor([0, 1, 1]))):
        (batch,) = batches(open_data(spec), transform, batch_size=3)
        assert torch.equal(transform.normalise(batch.images), ready.float())
        assert batch.labels.tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            (np.zeros((2, 4, 4), np.float32), [0, 1]),
            r"images are float32 of shape \(2, 4, 4\), exp",
        ),
        (
            (np.zeros((4, 4), np.uint8), [0] * 4),
            r"images are uint8 of shape \(4, 4\), expected uint8",
        ),
        ((torch.zeros(2, 4, 4), [0, 1]), "or a float tensor .n_samples, channels, height, width"),
        ((np.zeros((0, 4, 4), np.uint8), []), r"shape \(0, 4, 4\): there are no samples"),
        ((np.zeros((2, 4, 4), np.uint8), [0]), r"labels have the shape \(1,\), expected \(2,\)"),
        ((np.zeros((2, 4, 4), np.uint8), [[0, 1], [1, -1]]), "labels of sample 1 have -1, exp"),
        ((np.zeros((2, 4, 4), np.uint8), [0, -3]), "label of sample 1 is -3, expected at least 0"),
        (
            (np.zeros((2, 4, 4), np.uint8), [0, 0.5]),
            "label of sample 1 is 0.5, expected an integer",
        ),
        ((np.zeros((2, 4, 4), np.uint8), [0, 2**70]), "label of sample 1 is 1180.*, expected an"),
        ((np.zeros((2, 4, 4), np.uint8), ["a", 1]), "label of sample 0 is 'a', a word: give the"),
        ((np.zeros((2, 4, 4), np.uint8), torch.rand(2)), r"label of sample 0 is 0\.\d+, expected"),
        (
            np.zeros((2, 4, 4), np.uint8),
            r"the data has no labels: give \(images, labels\), or use .*",
        ),
        (3, "the data is 3, expected a map-style data set: with a length, and items"),
        ({"a": 1}, r"the data is \{'a': 1\}, expected a map-style data set"),
        ([], "the data is empty: it has no samples"),
    ],
)
def test_objects_that_are_no_data(spec: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_data(spec)


def test_labels_beyond_the_class_names() -> None:
    with pytest.raises(
        InputError, match=r"label of sample 1 is 2, expected an integer in \[0, 2\)"
    ):
        ArrayImages(np.zeros((2, 4, 4), np.uint8), [0, 2], ("a", "b"))


def test_open_data_leaves_open_data_alone() -> None:
    data = open_data("digits:test")
    assert open_data(data) is data


class Listed:
    """A data set with a list of its labels."""

    classes = ("cat", "dog")

    def __init__(self, items: list[Any], targets: Any = None) -> None:
        self.items = items
        if targets is not None:
            self.targets = targets

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        item = self.items[index]
        if isinstance(item, Exception):
            raise item
        return item


def test_a_data_set_with_a_list_of_its_labels() -> None:
    items = [(Image.fromarray(pixels(i)), i % 2) for i in range(3)]
    data = open_data(Listed(items, [0, 1, 0]))
    assert data.class_names == ("cat", "dog")
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 0]
    assert data.describe()["n_classes"] == 2
    assert np.array_equal(np.asarray(data.load(2)), pixels(2))
    assert data.notes == ()
    words = open_data(Listed(items, ["cat", "dog", "cat"]))
    assert words.labels is not None
    assert words.labels.tolist() == [0, 1, 0]
    assert open_data(Subset(Listed(items), [0, 1])).labels is None  # type: ignore[arg-type]


def test_faults_of_a_data_set() -> None:
    image = Image.fromarray(pixels(0))
    items = [
        (image, 0),
        KeyError("nowhere"),
        (image, 2),
        (image, -1),
        (image, "cat"),
        (image, torch.tensor(0.5)),
        image,
        ("path.png", 0),
        (pixels(0).astype(np.float32), 0),
        (np.zeros((3, 4), np.int32), 0),
        (torch.zeros(4, 4), 0),
        (torch.zeros(3, 6, 8), 0),
        (image, torch.tensor(1)),
        (pixels(0), np.int32(1)),
        (image, 1),
    ]
    targets = [0] * 12 + [1, 1, 0]
    (batch,) = batches(open_data(Listed(items, targets)), RAW, batch_size=99)
    assert batch.positions == [0, 4, 12, 13, 14]
    assert batch.labels.tolist() == [0, 0, 1, 1, 1]
    expected = {
        "1": "cannot be loaded (KeyError: 'nowhere')",
        "2": "has the label 2, expected an integer in [0, 2)",
        "3": "has the label -1, expected an integer in [0, 2)",
        "5": "has the label 0.5, expected an integer",
        "6": "is an Image, expected (image, label)",
        "7": "(path.png) cannot be read (No such file or directory)",
    }
    reasons = all_faults([batch])
    assert {key: reasons[key] for key in expected} == expected
    assert reasons["8"].startswith("is an array of float32 and shape (6, 8, 3), expected uint8")
    assert reasons["9"].startswith("is an array of int32 and shape (3, 4), expected uint8")
    assert reasons["10"] == "is a tensor of shape (4, 4), expected (channels, height, width)"
    assert reasons["11"].startswith(
        "gives a float tensor of shape (3, 6, 8), expected 6 × 8 pixels"
    )
    assert set(reasons) == set(map(str, range(12))) - {"0", "4"}


def test_an_unlabelled_data_set_may_give_images_alone() -> None:
    image = Image.fromarray(pixels(0))
    data = open_data(Listed([image, (image, "anything")]), labelled=False)
    (batch,) = batches(data, RAW, batch_size=2)
    assert batch.labels.tolist() == [-1, -1]
    assert batch.faults == []


def test_a_function_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "sets.py"
    file.write_text(
        "import numpy as np\n"
        "def arrays(): return np.arange(96, dtype=np.uint8).reshape(2, 4, 4, 3), [0, 1]\n"
        "def pairs(): return [(np.full((4, 4), i, np.uint8), i % 2) for i in range(3)]\n"
        "def number(): return 7\n"
        "def broken(): raise RuntimeError('no disk')\n"
    )
    (batch,) = batches(open_data(f"{file}:arrays"), RAW, batch_size=2)
    assert batch.images.flatten().tolist() == list(range(96))
    data = open_data(f"{file}:pairs")
    assert [read(data, RAW, i).label for i in range(3)] == [0, 1, 0]
    assert data.describe()["source"] == f"{file}:pairs"
    before = data.fingerprint
    file.write_text(file.read_text() + "# changed\n")
    assert open_data(f"{file}:pairs").fingerprint != before
    with pytest.raises(
        InputError, match=r"what .*sets.py:number returned is 7, expected a map-style"
    ):
        open_data(f"{file}:number")
    with pytest.raises(InputError, match=r"sets.py:broken failed, line 5: RuntimeError: no disk"):
        open_data(f"{file}:broken")
    with pytest.raises(InputError, match=r"has no function 'pair': did you mean pairs\?"):
        open_data(f"{file}:pair")
    with pytest.raises(InputError, match="nowhere.py not found"):
        open_data(f"{tmp_path}/nowhere.py:pairs")


# The real thing


@pytest.mark.real
def test_cifar(shared_data: Path) -> None:
    data = open_data(shared_data / "cifar10" / "test.zip")
    assert data.labels is not None
    assert data.class_names is not None
    assert np.bincount(data.labels).tolist() == [1000] * 10
    assert (data.class_names[0], data.class_names[-1]) == ("airplane", "truck")
    transform = Transform()
    batch = next(iter(batches(data, transform, batch_size=50, start_batch=30)))
    v1 = import_torchvision().transforms
    steps = v1.Compose([v1.ToTensor(), v1.Normalize(transform.mean, transform.std)])
    with zipfile.ZipFile(shared_data / "cifar10" / "test.zip") as archive:
        names = sorted(archive.namelist())[1500:1550]
        images: list[Tensor] = [steps(Image.open(io.BytesIO(archive.read(n)))) for n in names]
    assert batch.ids == names
    found = transform.normalise(batch.images)
    torch.testing.assert_close(found, torch.stack(images), rtol=0, atol=1e-6)


def test_images_on_their_side_are_said_before_the_work(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = encoded(Image.fromarray(pixels(1)), "JPEG", exif=exif)
    data = open_data(write_folder(tmp_path / "data", {"a/1.jpg": turned, "a/2.png": png(2)}))
    with pytest.warns(UserWarning, match="1 of 2 images looked at have an EXIF orientation, which"):
        check_data(data, RAW)
    (batch,) = batches(data, RAW, batch_size=2)
    assert noted_lines(batch.converted, "train") == [
        "1 images of train have an EXIF orientation, which is not applied, as torchvision and timm "
        "do not either: give --upright if the network saw them upright"
    ]
    upright = replace(RAW, upright=True, resize=(6, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_data(data, upright)
    assert read(data, upright, 0).noted == ("EXIF orientation applied",)


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("content", [b"longer than before", None])
def test_an_image_that_is_written_after_it_was_listed_is_refused(
    tmp_path: Path, content: bytes | None, workers: int
) -> None:
    for i in range(3):
        path = tmp_path / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (i, 0, 0)).save(path)
    data = open_data(tmp_path)
    path = tmp_path / "b" / "1.png"
    path.write_bytes(path.read_bytes() if content is None else path.read_bytes() + content)
    os.utime(path, (1, 1))
    with pytest.raises(InputError, match=rf"^{path} changed while the images were read: .*overw"):
        list(batches(data, Transform(), batch_size=2, workers=workers))
    (tmp_path / "b" / "1.png").unlink()
    (batch,) = batches(data, Transform(), batch_size=8)
    assert [fault.id for fault in batch.faults] == ["b/1.png"]
