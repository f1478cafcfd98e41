"""Tar archives: their files listed, and read in place."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import posixpath
import shutil
import tarfile
import tempfile
import weakref
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Self

from penult.data.archive import FREE_BYTES, MAX_RATIO
from penult.data.image import printable
from penult.errors import InputError
from penult.text import described

ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
BLOCK = 512  # zeros that mark the end
PIECE = 1 << 20
MOST_LINKS = 20  # that lead from one to the next
MOST_HEADER = 1 << 20  # bytes of a header that holds a long name or further properties

_MAGIC, _MAGIC_AT, _ZIP = b"ustar", 257, b"PK\x03\x04"

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
        self._listed: list[Member] | None = None
        self._left_out: list[str] = []
        if (opener := _compression(path)) is not None:
            self._plain = _inflated(path, opener)
            weakref.finalize(self, _remove, self._plain, os.getpid())
        if not _is_tar_file(self._plain):
            raise InputError(f"{path} is no tar archive: expected one, or a folder or zip")

    def members(self) -> list[Member]:
        """The files in it, in their order, then links to them; devices are left out.

        Raises:
            InputError: it ends in the middle of a file, or a name climbs out of it.
        """
        if self._listed is None:
            links: dict[str, str] = {}
            try:
                self._listed = list(self._read_headers(links))
            # Each of a chain of headers is read within the one before.
            except (tarfile.TarError, OSError, EOFError, RecursionError) as error:
                raise InputError(self._cut(described(error))) from None
            self._listed += self._linked(self._listed, links)
        return self._listed

    def notes(self) -> list[str]:
        """What of it was left out, for people; after `members`."""
        if not self._left_out:
            return []
        n, first = len(self._left_out), printable(self._left_out[0])
        are = "entry is a link that leads" if n == 1 else "entries are links that lead"
        return [f"{n:,} {are} to no file of the archive, or no plain file: {first}"]

    def _read_headers(self, links: dict[str, str]) -> Iterator[Member]:
        """The files; `links` is filled with names and what they stand for."""
        end = self._plain.stat().st_size
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
                elif info.islnk():
                    links[name] = posixpath.normpath(info.linkname)
                elif info.issym():
                    folder = posixpath.dirname(name)
                    links[name] = posixpath.normpath(posixpath.join(folder, info.linkname))
                elif not info.isdir():
                    self._left_out.append(name)
            last = archive.offset
        if self.read(last, BLOCK) != bytes(BLOCK):  # tarfile itself stops without a word
            raise InputError(self._cut("the mark of its end is missing"))

    def _linked(self, members: Sequence[Member], links: Mapping[str, str]) -> list[Member]:
        """The links as the files that they stand for."""
        places = {posixpath.normpath(one.name): one for one in members} if links else {}
        found = []
        for name, target in links.items():
            for _ in range(MOST_LINKS):  # a link may stand for a link
                if target in places or target not in links:
                    break
                target = links[target]
            if target in places:
                found.append(replace(places[target], name=name))
            else:
                self._left_out.append(name)
        return found

    def read(self, start: int, size: int) -> bytes:
        """Some of its bytes."""
        file = self._opened()
        file.seek(start)
        return file.read(size)

    def forget(self) -> None:
        """Keep its list of files no longer; it is read again when asked for."""
        self._listed = None

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
        return {**self.__dict__, "_file": None, "_listed": None}

    def __del__(self) -> None:
        self.close()


def is_tar(path: Path) -> bool:
    """Whether a file's name says that it is a tar archive, or its content where the name lies."""
    if not path.name.lower().endswith(ENDINGS):
        return _starts(path, _MAGIC_AT, len(_MAGIC)) == _MAGIC
    return _starts(path, 0, len(_ZIP)) != _ZIP


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


def _starts(path: Path, at: int, n: int) -> bytes:
    """Some bytes of a file; fewer where it ends before, none where it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(at)
            return file.read(n)
    except OSError:
        return b""


def _compression(path: Path) -> Opener | None:
    """What opens a compressed file; None for one that is not."""
    head = _starts(path, 0, 6)
    return next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), None)


def _remove(path: Path, pid: int) -> None:
    """Delete a temporary file; only the process that made it does."""
    if os.getpid() == pid:
        with suppress(OSError):
            path.unlink()
