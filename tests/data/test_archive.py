from __future__ import annotations

import bz2
import io
import lzma
import resource
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from penult.data.archive import ArchiveEntry
from penult.data.open import batches, open_data
from penult.data.transform import Transform
from penult.errors import InputError

RAW = Transform(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), scale=1.0)
METHODS = [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
MB = 1 << 20


def png(seed: int) -> bytes:
    values = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, "PNG")
    return stream.getvalue()


def entry_of(path: Path, name: str) -> ArchiveEntry:
    with zipfile.ZipFile(path) as archive:
        found = archive.getinfo(name)
    return ArchiveEntry(
        found.file_size, found.CRC, found.header_offset, found.compress_size, found.compress_type
    )


def forged(path: Path, method: int, compressed: bytes, declared: int) -> Path:
    """A zip of one file whose table of contents says what it likes of its size."""
    name = b"a/bomb.bmp"
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, method, 0, 0, 0, 0, 0, len(name), 0)
    sizes = (0, len(compressed), declared)
    central = struct.pack(
        "<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, method, 0, 0, *sizes, len(name), 0, 0, 0, 0, 0, 0
    )
    body = local + name + compressed
    table = central + name
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(table), len(body), 0)
    path.write_bytes(body + table + end)
    return path


def bomb(method: int, size: int) -> bytes:
    zeros = bytes(MB)
    if method == zipfile.ZIP_LZMA:
        found = lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=0)
        raw = b"".join([found.compress(zeros) for _ in range(size // MB)]) + found.flush()
        # An .lzma file's header: properties, window, size.
        return struct.pack("<HH", 9, 5) + raw[:5] + raw[13:]
    other = zlib.compressobj(9, zlib.DEFLATED, -15) if method == 8 else bz2.BZ2Compressor()
    return b"".join([other.compress(zeros) for _ in range(size // MB)]) + other.flush()


@pytest.mark.parametrize("method", METHODS)
@settings(max_examples=30, deadline=None)
@given(data=st.one_of(st.binary(max_size=500), st.integers(0, 300_000).map(bytes)))
def test_entries_are_what_zipfile_reads(
    method: int, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("zip") / "x.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("first", b"1")
        archive.writestr("x", data)
    entry = entry_of(path, "x")
    with path.open("rb") as file:
        assert entry.read(file) == data
        assert entry.begin(file, 7) == data[:7]


def test_bombs_stay_small(tmp_path: Path) -> None:
    """Measured where it matters: in a process of its own, whatever the archive declares."""
    paths = [
        forged(tmp_path / f"{method}-{declared}.zip", method, packed, declared)
        for method in METHODS[1:]
        for packed in [bomb(method, 96 * MB)]
        for declared in (100, 1 << 28, 1 << 30)
    ]
    code = (
        "import resource, sys\n"
        "from penult.data.open import open_data\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in sys.argv[1:]:\n"
        "    try:\n        open_data(path).load(0)\n"
        "    except ValueError as error:\n        print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, paths)], capture_output=True, text=True, check=True
    )
    *said, more = done.stdout.splitlines()
    assert len(said) == len(paths)
    for path, line in zip(paths, said, strict=True):
        method, declared = path.stem.split("-")
        if declared == "100":
            assert "it holds more than the 100 bytes it should" in line
        elif declared == str(1 << 30):
            assert "is a file of more than 512 MiB" in line
        else:
            assert "would inflate to 268,435,456" in line, method
    assert int(more) * 1024 < 60 * MB


def test_what_no_image_needs_is_refused(tmp_path: Path) -> None:
    path = forged(tmp_path / "bomb.zip", zipfile.ZIP_BZIP2, bomb(zipfile.ZIP_BZIP2, MB), 1 << 28)
    with pytest.raises(InputError, match=r"its \d+ bytes would inflate to 268,435,456: pack it"):
        open_data(path).load(0)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_nonsense_is_one_fault(method: int, tmp_path: Path) -> None:
    for raw in (b"", b"x" * 3, b"x" * 90, b"\0\0\5\0\xff\xff\xff\xff\xff" + b"y" * 40):
        path = forged(tmp_path / "bad.zip", method, raw, 50)
        with pytest.raises(InputError, match="is truncated or damaged"):
            open_data(path).load(0)


def test_a_large_window_is_not_allocated(tmp_path: Path) -> None:
    raw = bytearray(bomb(zipfile.ZIP_LZMA, MB))
    raw[5:9] = b"\xff\xff\xff\xff"  # a dictionary of 4 GiB
    path = forged(tmp_path / "window.zip", zipfile.ZIP_LZMA, bytes(raw), MB)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match="CRC"):
        open_data(path).load(0)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 1024


def test_backslashes_are_slashes(tmp_path: Path) -> None:
    path = tmp_path / "windows.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("set\\cat\\1.png", "set\\dog\\2.png"):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, png(len(name)))
    data = open_data(path)
    assert data.class_names == ("cat", "dog")
    assert [data.id(i) for i in range(2)] == ["set/cat/1.png", "set/dog/2.png"]
    (batch,) = batches(data, RAW, batch_size=2)
    assert batch.faults == []


def test_a_folder_of_an_archive(tmp_path: Path) -> None:
    path = tmp_path / "both.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train/a/1.png", "train/b/2.png", "val/a/3.png", "val/b/4.png"):
            archive.writestr(name, png(1))
    with pytest.raises(InputError, match=r"holds the parts train, val of a data set and not its"):
        open_data(path)
    data = open_data(path / "train")
    assert data.class_names == ("a", "b")
    assert [data.id(i) for i in range(2)] == ["a/1.png", "b/2.png"]
    assert data.describe()["path"] == str(path / "train")
    assert data.fingerprint == open_data(str(path / "train")).fingerprint
    assert data.fingerprint != open_data(path / "val").fingerprint
    with pytest.raises(InputError, match="has no folder nowhere: it has train, val"):
        open_data(path / "nowhere")
