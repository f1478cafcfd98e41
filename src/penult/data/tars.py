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
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from penult.data.image import printable
from penult.errors import InputError
from penult.text import described

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
MAX_RATIO = 200  # a compressed archive inflates to no more than this many times its size
FREE_BYTES = 1 << 26
BLOCK = 512  # zeros that mark the end
PIECE = 1 << 20
MOST_HEADER = 1 << 20  # bytes of a header that holds a long name or further properties

Opener = Callable[[Path], Any]
_OPENERS: dict[bytes, Opener] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\x00": lzma.open,
}
_LONG = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)


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
        if (opener := _compression(path)) is not None:
            self._plain = _inflated(path, opener)
            weakref.finalize(self, _remove, self._plain, os.getpid())
        if not _is_tar_file(self._plain):
            raise InputError(f"{path} is no tar archive: expected one, or a folder or zip")

    def members(self) -> Iterator[Member]:
        """The files in it, in their order; links and devices are left out.

        Raises:
            InputError: it ends in the middle of a file, or a name climbs out of it.
        """
        end = self._plain.stat().st_size
        try:
            with tarfile.open(self._plain, "r:", tarinfo=_Info) as archive:
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
        # Each of a chain of headers is read within the one before.
        except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
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


class _Info(tarfile.TarInfo):
    """A header; one that would fill the memory is refused before it is read."""

    @classmethod
    def frombuf(cls, buf: Any, encoding: str, errors: str) -> Self:
        """See `tarfile.TarInfo`."""
        found = super().frombuf(buf, encoding, errors)
        if found.type in _LONG and found.size > MOST_HEADER:
            raise InputError(
                f"the tar archive has a header of {found.size:,} bytes, expected at most "
                f"{MOST_HEADER:,}: pack it anew"
            )
        return found


def _is_tar_file(path: Path) -> bool:
    try:
        with tarfile.open(path, "r:", tarinfo=_Info):
            return True
    except (tarfile.TarError, OSError, EOFError):
        return False
    except RecursionError:  # a chain of headers, which `members` refuses
        return True


def _inflated(path: Path, opener: Opener) -> Path:
    """The archive without its compression, in a temporary file."""
    most = FREE_BYTES + MAX_RATIO * path.stat().st_size
    handle, name = tempfile.mkstemp(suffix=".tar", prefix="penult-")
    made = Path(name)
    try:
        with os.fdopen(handle, "wb") as file, opener(path) as raw:
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


def _compression(path: Path) -> Opener | None:
    """What opens a compressed file; None for one that is not."""
    with path.open("rb") as file:
        head = file.read(6)
    return next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)


def _remove(path: Path, pid: int) -> None:
    """Delete a temporary file; only the process that made it does."""
    if os.getpid() == pid:
        with suppress(OSError):
            path.unlink()
