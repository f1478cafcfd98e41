"""Images in folders and zips of class folders: listed compactly, opened one by one."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image

from penult.data.archive import ArchiveEntry, list_zip
from penult.data.folders import class_folders
from penult.data.image import (
    MAX_BYTES,
    ImageData,
    ImageFaultError,
    damaged_reason,
    described_as,
    extension,
    open_image,
    printable,
    read_file,
)
from penult.data.listing import HEAD, Listing, list_folder, may_be_image, nfc, unreadable
from penult.data.tars import ENDINGS as TAR_ENDINGS
from penult.errors import InputError
from penult.text import some

# How much of the contents a folder's fingerprint covers: all of it, or an even sample of files.
WHOLE_BYTES = 1 << 28
WHOLE_FILES = 20_000
SAMPLED_FILES = 1_000
SAMPLED_BYTES = 1 << 16


class FileImages(ImageData):
    """Images in files below one root; their names are held as one block of bytes.

    The classes are the folders at the root, in alphabetical order; where one folder holds all of
    them, those inside it. Folders inside a class folder belong to that class. Hidden files and
    folders and those that programs make for themselves (`@eaDir`) are passed over. A picture that
    cannot be read, or whose name says that it is none, is a sample that is a fault; other files
    are counted in `n_ignored`. Names are in Unicode's composed form.
    """

    kind: str
    named_by_folders = True

    def __init__(self, path: Path, listing: Listing, labelled: bool) -> None:
        self.path = path
        columns = np.asarray(listing.columns, dtype=np.int64)
        self._table = columns.reshape(max(1, len(listing.names)), -1)
        self._keep_names(listing.names)
        kept, self._unreadable, ignored = self._told_apart()
        if not kept:
            names = listing.names
            others = f"only {some([printable(nfc(n)) for n in names], 3)}" if names else "nothing"
            raise InputError(
                f"{path} holds no images (found {others}): expected one folder of images per class"
                + (f", or give {other} as DATA" if (other := self._other_form(names)) else "")
            )
        kept.sort(key=lambda i: nfc(listing.names[i]).replace("/", "\0"))
        self._keep_names([listing.names[i] for i in kept])
        self._table = self._table[kept]
        self._unreadable = {
            at: self._unreadable[i] for at, i in enumerate(kept) if i in self._unreadable
        }
        self.n_ignored = ignored.total()
        self.notes = (*_ignored_notes(ignored), *listing.notes())
        self.labelled = labelled
        self.labels = self.class_names = None
        names = [nfc(self._name(i)) for i in range(len(self))]
        if labelled:
            folders = {nfc(name).rpartition("/")[0] for name in listing.names}
            folders |= set(map(nfc, listing.folders))
            found = class_folders(path, names, folders, self._other_form(listing.names))
            self.labels, self.class_names = found.labels, found.names
        digest = hashlib.blake2b(f"{self.kind} {labelled} ".encode(), digest_size=16)
        for name in names:
            digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
        for part in self._contents():
            digest.update(part)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._ends)

    def id(self, index: int) -> str:
        """Path below the root, with forward slashes; control characters are shown as escapes."""
        return printable(nfc(self._name(index)))

    def load(self, index: int) -> Image.Image:
        """Open an image; it is decoded when first used."""
        index = range(len(self))[index]
        id = self.id(index)
        if (reason := self._unreadable.get(index)) is not None:
            raise ImageFaultError(id, reason)
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
            **described_as(self.kind, self),
            "path": str(self.path),
            "n_ignored": self.n_ignored,
        }

    def _other_form(self, names: list[str]) -> str | None:
        """What else could be given as data, by the tables and archives among the files."""
        return None

    def _keep_names(self, names: list[str]) -> None:
        encoded = [name.encode("utf-8", "surrogateescape") for name in names]
        self._names = b"".join(encoded)
        self._ends = np.cumsum([len(name) for name in encoded], dtype=np.int64)

    def _name(self, index: int) -> str:
        index = range(len(self))[index]
        start = int(self._ends[index - 1]) if index else 0
        return self._names[start : int(self._ends[index])].decode("utf-8", "surrogateescape")

    def _told_apart(self) -> tuple[list[int], dict[int, str], Counter[str]]:
        """Files that are pictures, why some of these cannot be read, and endings of the others."""
        kept: list[int] = []
        reasons: dict[int, str] = {}
        ignored: Counter[str] = Counter()
        for i in range(len(self)):
            name = self._name(i)
            is_image = may_be_image(name)
            if is_image is None:
                reason = unreadable(name, self._head(i))
                is_image = reason != ""
                if reason:
                    reasons[i] = reason
            if is_image:
                kept.append(i)
            else:
                ignored[extension(name) or "without an ending"] += 1
        return kept, reasons, ignored

    def _head(self, index: int) -> bytes:
        """How a file begins; nothing where it cannot be read."""
        try:
            return self._begin(index, HEAD)
        except (OSError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError):
            return b""

    def _sampled(self) -> Iterator[bytes]:
        """Sizes, and the contents of all files or of an even sample."""
        sizes = self._table[:, 0]
        yield sizes.tobytes()
        whole = len(self) <= WHOLE_FILES and int(sizes.sum()) <= WHOLE_BYTES
        n, limit = (len(self), -1) if whole else (SAMPLED_FILES, SAMPLED_BYTES)
        for index in np.unique(np.linspace(0, len(self) - 1, n).astype(int)):
            try:
                found = self._begin(int(index), limit)
            except OSError:  # one image, which will be a fault
                found = b""
            yield hashlib.blake2b(found, digest_size=16).digest()

    @abstractmethod
    def _read(self, index: int) -> bytes: ...

    @abstractmethod
    def _begin(self, index: int, limit: int) -> bytes: ...

    @abstractmethod
    def _contents(self) -> Iterator[bytes]:
        """What tells the contents of all files from others."""


class FolderImages(FileImages):
    """Images of a folder.

    Its fingerprint covers names, sizes and contents: a copy is the same data. Of more than 256 MiB
    or 20,000 files the contents of 1,000 files, spread evenly, stand for all. A file that is
    written after it was listed is refused when it is read.
    """

    kind = "folder"

    def __init__(self, path: Path, labelled: bool) -> None:
        try:
            listing = list_folder(os.fspath(path))
        except OSError as error:
            raise InputError(f"{error.filename} cannot be listed: {error.strerror}") from None
        super().__init__(path, listing, labelled)

    def _other_form(self, names: list[str]) -> str | None:
        endings = (".csv", ".tsv", ".jsonl", ".parquet", *TAR_ENDINGS, ".zip")
        for ending in endings:
            found = sorted(name for name in names if name.lower().endswith(ending))
            if len(found) == 1:
                return printable(f"{self.path}/{found[0]}")
            if found:
                folder = (self.path / found[0]).parent
                return printable(f"'{folder}/*{ending}'")
        return None

    def _read(self, index: int) -> bytes:
        path = self.path / self._name(index)
        raw = read_file(path)
        status, listed = path.stat(), tuple(map(int, self._table[index]))
        if any(listed) and (status.st_size, status.st_mtime_ns) != listed:
            raise InputError(
                f"{path} changed while the images were read: let no other program write them, and "
                "repeat the command with --overwrite"
            )
        return raw

    def _begin(self, index: int, limit: int) -> bytes:
        return read_file(self.path / self._name(index), limit)

    def _contents(self) -> Iterator[bytes]:
        return self._sampled()


class ZipImages(FileImages):
    """Images of a zip archive, read in place. Its fingerprint covers names, sizes and checksums.

    Only numbers are kept of the archive's table of contents, and every process opens the file for
    itself when it first reads, so that this can be sent to workers.

    Args:
        path: the archive.
        labelled: whether the folders are classes.
        inside: only what is in this folder of the archive.
    """

    kind = "zip"

    def __init__(self, path: Path, labelled: bool, inside: str = "") -> None:
        self._file: BinaryIO | None = None
        self._pid = 0
        self._archive = path
        super().__init__(path / inside, list_zip(path, inside), labelled)

    def _read(self, index: int) -> bytes:
        entry = ArchiveEntry(*map(int, self._table[index]))
        if entry.size > entry.may_hold:
            raise zipfile.BadZipFile(
                f"its {entry.compressed:,} bytes would inflate to {entry.size:,}: pack it anew, "
                "without compression"
            )
        return entry.read(self._opened())

    def _begin(self, index: int, limit: int) -> bytes:
        return ArchiveEntry(*map(int, self._table[index])).begin(self._opened(), limit)

    def _contents(self) -> Iterator[bytes]:
        yield self._table[:, :2].tobytes()

    def _opened(self) -> BinaryIO:
        if self._file is None or self._pid != os.getpid():
            # A file handle from before a fork shares its position with the other process.
            self.close()
            self._file, self._pid = self._archive.open("rb"), os.getpid()
        return self._file

    def close(self) -> None:
        """Close the archive; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}


def _ignored_notes(ignored: Counter[str]) -> list[str]:
    if not ignored:
        return []
    n = ignored.total()
    files = "file that is no image is" if n == 1 else "files that are no images are"
    return [f"{n:,} {files} passed over ({some([e for e, _ in ignored.most_common()])})"]
