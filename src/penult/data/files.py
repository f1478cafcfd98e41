"""Images in folders and zips of class folders: listed compactly, opened one by one."""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zipfile
import zlib
from abc import abstractmethod
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from penult.data.image import (
    ImageData,
    ImageFaultError,
    damaged_reason,
    extension,
    formats,
    open_image,
    printable,
)
from penult.errors import InputError
from penult.text import some

MAX_BYTES = 1 << 29

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_CLIMBS = re.compile(r"[/\\]|[A-Za-z]:[/\\]|(.*[/\\])?\.\.([/\\]|$)", re.DOTALL)


class FileImages(ImageData):
    """Images in files below one root; their names are held as one block of bytes.

    The classes are the folders at the root, in alphabetical order; where one folder holds all of
    them, those inside it. Folders inside a class folder belong to that class. Hidden files and
    folders are passed over, and other files that are no images are counted in `n_ignored`.
    """

    kind: str
    n_stamps: int

    def __init__(self, path: Path, listing: Listing, labelled: bool) -> None:
        names = listing.names
        kept = [i for i, name in enumerate(names) if extension(name) in formats()]
        if not kept:
            others = f"only {some(names, 3)}" if names else "nothing"
            raise InputError(
                f"{path} holds no images (found {others}): expected one folder of images per class"
            )
        kept.sort(key=lambda i: names[i].replace("/", "\0"))
        self.path = path
        self.n_ignored = len(names) - len(kept)
        self.labelled = labelled
        self.labels = self.class_names = None
        if labelled:
            folders = {*listing.folders, *(name.rpartition("/")[0] for name in names)}
            self.labels, self.class_names = _classes(path, [names[i] for i in kept], folders)
        encoded = [names[i].encode("utf-8", "surrogateescape") for i in kept]
        self._names = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        self._table = np.asarray(listing.columns, dtype=np.int64).reshape(len(names), -1)[kept]
        digest = hashlib.blake2b(f"{self.kind} {labelled} ".encode(), digest_size=16)
        digest.update(self._names)
        digest.update(self._ends.tobytes())
        digest.update(self._table[:, : self.n_stamps].tobytes())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._ends)

    def id(self, index: int) -> str:
        """Path below the root, with forward slashes; control characters are shown as escapes."""
        return printable(self._name(index))

    def load(self, index: int) -> Image.Image:
        """Open an image; it is decoded when first used."""
        id = self.id(index)
        if self._table[index, 0] > MAX_BYTES:
            raise ImageFaultError(
                id, f"is a file of more than {MAX_BYTES >> 20} MiB: scale it down"
            )
        try:
            raw = self._read(index)
        except OSError as error:
            raise ImageFaultError(id, f"cannot be read ({error.strerror or error})") from error
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
            raise ImageFaultError(id, damaged_reason(error)) from error
        return open_image(raw, id)

    def describe(self) -> dict[str, Any]:
        """Kind, path, numbers and fingerprint."""
        return {
            "kind": self.kind,
            "path": str(self.path),
            "n_samples": len(self),
            "n_classes": None if self.class_names is None else len(self.class_names),
            "n_ignored": self.n_ignored,
            "fingerprint": self.fingerprint,
        }

    def _name(self, index: int) -> str:
        index = range(len(self))[index]
        start = int(self._ends[index - 1]) if index else 0
        return self._names[start : int(self._ends[index])].decode("utf-8", "surrogateescape")

    @abstractmethod
    def _read(self, index: int) -> bytes: ...


class FolderImages(FileImages):
    """Images of a folder. Its fingerprint covers names, sizes and times of change."""

    kind = "folder"
    n_stamps = 2

    def __init__(self, path: Path, labelled: bool) -> None:
        listing = Listing()
        try:
            _walk(os.fspath(path), "", frozenset(), listing)
        except OSError as error:
            raise InputError(f"{error.filename} cannot be listed: {error.strerror}") from None
        super().__init__(path, listing, labelled)

    def _read(self, index: int) -> bytes:
        return (self.path / self._name(index)).read_bytes()


class ZipImages(FileImages):
    """Images of a zip archive, read in place. Its fingerprint covers names, sizes and checksums.

    Only numbers are kept of the archive's table of contents, and every process opens the file for
    itself when it first reads, so that this can be sent to workers.
    """

    kind = "zip"
    n_stamps = 2

    def __init__(self, path: Path, labelled: bool) -> None:
        self._file: BinaryIO | None = None
        self._pid = 0
        super().__init__(path, _list_zip(path), labelled)

    def _read(self, index: int) -> bytes:
        size, crc, start, compressed, method = map(int, self._table[index])
        if self._file is None or self._pid != os.getpid():
            # A file handle from before a fork shares its position with the other process.
            self.close()
            self._file, self._pid = self.path.open("rb"), os.getpid()
        self._file.seek(start)
        header = self._file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise zipfile.BadZipFile("no entry where the table of contents says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        self._file.seek(name_length + extra_length, os.SEEK_CUR)
        info = zipfile.ZipInfo(self._name(index))
        info.file_size, info.CRC = size, crc
        info.compress_size, info.compress_type = compressed, method
        with zipfile.ZipExtFile(self._file, "r", info) as entry:
            return entry.read()

    def close(self) -> None:
        """Close the archive; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


@dataclass
class Listing:
    """Visible files below a root: names, folders, and numbers per file, one after the other."""

    names: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    columns: array[int] = field(default_factory=lambda: array("q"))


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]], found: Listing) -> None:
    """List a folder and those in it; a link to a folder that holds it is passed over."""
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if _is_hidden(entry.name):
                continue
            if entry.is_dir():
                found.folders.append(name)
                _walk(entry.path, name + "/", above | {here}, found)
            elif entry.is_file():
                status = entry.stat()
                found.names.append(name)
                found.columns.extend((status.st_size, status.st_mtime_ns))
            elif entry.is_symlink():  # broken: kept, so that the one image is reported
                found.names.append(name)
                found.columns.extend((0, 0))


def _list_zip(path: Path) -> Listing:
    """Check an archive's table of contents and take from it what reading needs."""
    found = Listing()
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            if len(infos) != len(archive.NameToInfo):
                _refuse_doubles(path, infos)
    except zipfile.BadZipFile as error:
        with path.open("rb") as file:
            cut = file.read(4) == b"PK\x03\x04"
        if cut:
            raise InputError(
                f"{path} is a truncated zip archive ({error}): copy it again"
            ) from None
        raise InputError(
            f"{path} is no zip archive ({error}): expected a folder or zip of class folders"
        ) from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    end = path.stat().st_size
    for info in infos:
        _check_entry(path, info, end)
        parts = [part for part in info.filename.split("/") if part not in ("", ".")]
        if any(map(_is_hidden, parts)):
            continue
        if info.is_dir():
            found.folders.append("/".join(parts))
            continue
        found.names.append("/".join(parts))
        found.columns.extend(
            (info.file_size, info.CRC, info.header_offset, info.compress_size, info.compress_type)
        )
    return found


def _refuse_doubles(path: Path, infos: list[zipfile.ZipInfo]) -> None:
    counts = Counter(info.filename for info in infos if not info.is_dir())
    doubles = [printable(name) for name, count in counts.items() if count > 1]
    if doubles:
        raise InputError(f"{path} holds two files of the same name: {some(doubles)}; pack it again")


def _check_entry(path: Path, info: zipfile.ZipInfo, end: int) -> None:
    if _CLIMBS.match(info.filename):
        raise InputError(
            f"{path} holds {printable(info.filename)!r}, which climbs out of the archive: pack it "
            "with relative names"
        )
    if info.flag_bits & 1:
        raise InputError(
            f"{path} is encrypted ({printable(info.filename)}): unpack it, or pack it without a "
            "password"
        )
    if info.header_offset + info.compress_size > end:
        raise InputError(
            f"{path} is a truncated zip archive ({printable(info.filename)} lies past its end): "
            "copy it again"
        )


def _classes(
    path: Path, images: list[str], folders: set[str]
) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    """Labels of the images and the names of their classes, by the folders at the root."""
    skip = 0
    while True:
        tops = sorted({_top(name, skip) for name in folders if len(name) > skip})
        if len(tops) != 1 or any(name.count("/", skip) < 2 for name in images):
            break
        skip += len(tops[0]) + 1
    loose = [printable(name) for name in images if "/" not in name[skip:]]
    if loose:
        raise InputError(
            f"{path} holds {len(loose)} images outside of class folders ({some(loose, 3)}): put "
            "each class's images in a folder of its own, or use the network's own predictions as "
            "labels with --labels predicted"
        )
    numbers = {name: number for number, name in enumerate(tops)}
    labels = np.fromiter((numbers[_top(name, skip)] for name in images), np.int64, len(images))
    counts = np.bincount(labels, minlength=len(tops))
    empty = [printable(tops[i]) for i in np.flatnonzero(counts == 0)]
    if empty:
        raise InputError(
            f"{path} has class folders without images: {some(empty)}: add images or remove "
            "the folders"
        )
    return labels, tuple(map(printable, tops))


def _top(name: str, skip: int) -> str:
    return name[skip:].split("/", 1)[0]


def _is_hidden(part: str) -> bool:
    return part.startswith(".") or part == "__MACOSX"
