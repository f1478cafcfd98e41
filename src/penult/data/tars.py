"""Tar archives: their files listed, and read in place."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

from penult.data.image import printable
from penult.errors import InputError
from penult.text import described

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_RATIO = 200  # a compressed archive inflates to no more than this many times its size
FREE_BYTES = 1 << 26
BLOCK = 512  # zeros that mark the end
PIECE = 1 << 20


@dataclass(frozen=True)
class Member:
    """A file in a tar archive.

    Attributes:
        name: with forward slashes.
        start: where its bytes begin in the (inflated) archive.
        size: how many they are.
    """

    name: str
    start: int
    size: int


class TarFile:
    """A tar archive that is read in place, by any process that it is sent to.

    A compressed one is inflated once, into a temporary file that goes with the object.

    Args:
        path: the archive.

    Raises:
        InputError: it is no tar archive, or inflates beyond all measure.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._plain = path
        self._file: BinaryIO | None = None
        self._pid = 0
        if not _is_tar_file(path):
            raise InputError(f"{path} is no tar archive: expected one, or a folder or zip")
        if _is_compressed(path):
            self._plain = _inflated(path)
            weakref.finalize(self, _remove, self._plain, os.getpid())

    def members(self) -> Iterator[Member]:
        """The files in it, in their order; links and devices are left out.

        Raises:
            InputError: it ends in the middle of a file, or a name climbs out of it.
        """
        end = self._plain.stat().st_size
        try:
            with tarfile.open(self._plain, "r:") as archive:
                for info in archive:
                    name = info.name.removeprefix("./")
                    if name.startswith("/") or ".." in name.split("/"):
                        raise InputError(
                            f"{self.path} holds {printable(name)!r}, which climbs out of the "
                            "archive: pack it with relative names"
                        )
                    if info.offset_data + info.size > end:
                        raise InputError(self._cut(f"{printable(name)} lies past its end"))
                    if info.isreg() and not info.issparse():
                        yield Member(name, info.offset_data, info.size)
                last = archive.offset
            if self.read(last, BLOCK) != bytes(BLOCK):  # tarfile itself stops without a word
                raise InputError(self._cut("the mark of its end is missing"))
        except (tarfile.TarError, OSError, EOFError) as error:
            raise InputError(self._cut(described(error))) from None

    def read(self, start: int, size: int) -> bytes:
        """Some of its bytes."""
        file = self._opened()
        file.seek(start)
        return file.read(size)

    def close(self) -> None:
        """Close the file; reading opens it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _opened(self) -> BinaryIO:
        if self._file is None or self._pid != os.getpid():
            # A file handle from before a fork shares its position with the other process.
            self.close()
            self._file, self._pid = self._plain.open("rb"), os.getpid()
        return self._file

    def _cut(self, why: str) -> str:
        return f"{self.path} is a truncated or damaged tar archive ({why}): copy it again"

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_file": None}

    def __del__(self) -> None:
        self.close()


def is_tar(path: Path) -> bool:
    """Whether a file's name says that it is a tar archive."""
    return path.name.lower().endswith(ENDINGS)


def _is_tar_file(path: Path) -> bool:
    try:
        return tarfile.is_tarfile(path)
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InputError(
            f"{path} is a truncated or damaged tar archive ({described(error)}): copy it again"
        ) from None


def _is_compressed(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:"):
            return False
    except tarfile.TarError:
        return True


def _inflated(path: Path) -> Path:
    """The archive without its compression, in a temporary file."""
    most = FREE_BYTES + MAX_RATIO * path.stat().st_size
    handle, name = tempfile.mkstemp(suffix=".tar", prefix="penult-")
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, _decompressed(path) as raw:
            while piece := raw.read(PIECE):
                file.write(piece)
                if file.tell() > most:
                    raise InputError(
                        f"{path} inflates to more than {MAX_RATIO} times its size: unpack it, or "
                        "pack it anew without compression"
                    )
    except InputError:
        made.unlink()
        raise
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        made.unlink()
        if isinstance(error, OSError) and error.errno is not None:
            free = shutil.disk_usage(made.parent).free >> 20
            raise InputError(
                f"{path} cannot be inflated into {made.parent}, which has {free:,} MiB left "
                f"({described(error)}): unpack it yourself, or set TMPDIR to another folder"
            ) from None
        raise InputError(
            f"{path} is a truncated or damaged tar archive ({described(error)}): copy it again"
        ) from None
    return made


def _decompressed(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        head = file.read(6)
    if head.startswith(b"\x1f\x8b"):
        return cast(IO[bytes], gzip.open(path))
    if head.startswith(b"BZh"):
        return bz2.open(path)
    if head.startswith(b"\xfd7zXZ\x00"):
        return lzma.open(path)
    raise InputError(f"{path} is compressed in a way that is not known: unpack it, or use gzip")


def _remove(path: Path, pid: int) -> None:
    """Delete a temporary file; only the process that made it does."""
    if os.getpid() == pid:
        with suppress(OSError):
            path.unlink()
