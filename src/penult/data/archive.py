"""Zip archives: their table of contents checked, entries inflated no further than they may be."""

from __future__ import annotations

import bz2
import lzma
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from penult.data.image import MAX_BYTES, printable
from penult.data.listing import Listing, nfc
from penult.errors import InputError
from penult.text import some

# What an entry may inflate to: no image needs more, and a bomb stays small.
FREE_BYTES = 1 << 26
MAX_RATIO = 200

PIECE = 1 << 16

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LZMA_HEADER = struct.Struct("<2xHBI")
_MADE_ON_WINDOWS = 0


@dataclass(frozen=True)
class ArchiveEntry:
    """Where an archive keeps a file: what its table of contents says.

    Attributes:
        size: bytes of the file.
        crc: its CRC-32.
        start: where its local header begins.
        compressed: bytes in the archive.
        method: number of the compression.
    """

    size: int
    crc: int
    start: int
    compressed: int
    method: int

    @property
    def may_hold(self) -> int:
        """Bytes that are inflated of it at most."""
        return min(MAX_BYTES, FREE_BYTES + MAX_RATIO * self.compressed)

    def read(self, file: BinaryIO) -> bytes:
        """The whole file.

        Raises:
            zipfile.BadZipFile: it is not what the table of contents says.
            NotImplementedError: an unknown compression.
        """
        found = self.begin(file, self.size + 1)
        if len(found) != self.size:
            more = "more" if len(found) > self.size else "less"
            raise zipfile.BadZipFile(f"it holds {more} than the {self.size} bytes it should")
        if zlib.crc32(found) != self.crc:
            raise zipfile.BadZipFile("Bad CRC-32")
        return found

    def begin(self, file: BinaryIO, limit: int) -> bytes:
        """The first `limit` bytes of the file, unchecked; nothing beyond them is inflated."""
        file.seek(self.start)
        header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\x03\x04"):
            raise zipfile.BadZipFile("no entry where the table of contents says")
        _, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        file.seek(name_length + extra_length, 1)
        found = bytearray()
        for piece in self._inflated(file, limit):
            found += piece
            if len(found) >= limit:
                break
        return bytes(found[:limit])

    def _inflated(self, file: BinaryIO, limit: int) -> Iterator[bytes]:
        """Pieces of at most `PIECE` bytes."""
        left = self.compressed
        if self.method == zipfile.ZIP_LZMA:
            left -= _LZMA_HEADER.size
        inflate = self._inflater(file, limit)
        while left > 0 and (raw := file.read(min(PIECE, left))):
            left -= len(raw)
            yield from inflate(raw)

    def _inflater(self, file: BinaryIO, limit: int) -> Callable[[bytes], Iterator[bytes]]:
        if self.method == zipfile.ZIP_STORED:
            return lambda raw: iter((raw,))
        if self.method == zipfile.ZIP_DEFLATED:
            return _deflate()
        if self.method == zipfile.ZIP_BZIP2:
            return _with_input(bz2.BZ2Decompressor())
        if self.method == zipfile.ZIP_LZMA:
            return _with_input(_lzma_decompressor(file, limit))
        raise NotImplementedError(f"compression method {self.method}")


def list_zip(path: Path, inside: str) -> Listing:
    """Check an archive's table of contents and take from it what reading needs.

    Args:
        path: the archive.
        inside: a folder in it, without slashes around it; what lies elsewhere is left out.
    """
    found = Listing()
    infos = _infos(path)
    names = _names(infos)
    end = path.stat().st_size
    _refuse_doubles(path, names)
    for info, name in zip(infos, names, strict=True):
        _check_entry(path, info, end)
        parts = [part for part in nfc(name).split("/") if part not in ("", ".")]
        parts = _below(parts, inside.split("/") if inside else [])
        if not parts or found.passes_over(parts):
            continue
        if name.endswith("/"):
            found.folders.append("/".join(parts))
            continue
        found.names.append("/".join(parts))
        found.columns.extend(
            (info.file_size, info.CRC, info.header_offset, info.compress_size, info.compress_type)
        )
    if inside and not (found.names or found.folders):
        raise InputError(f"{path} has no folder {inside}: it has {_tops(names)}")
    return found


def _below(parts: list[str], inside: list[str]) -> list[str]:
    """What is left of a name below a folder; nothing where it lies elsewhere."""
    n = len(inside)
    return parts[n:] if parts[:n] == inside else []


def _tops(names: list[str]) -> str:
    return some(sorted({printable(name.split("/")[0]) for name in names if "/" in name})) or "none"


def _infos(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError) as error:
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


def _names(infos: list[zipfile.ZipInfo]) -> list[str]:
    """Names with forward slashes: some programs of Windows write backslashes."""
    names = [info.filename for info in infos]
    slashes = any("/" in name for name in names)
    return [
        name.replace("\\", "/")
        if "\\" in name and (not slashes or info.create_system == _MADE_ON_WINDOWS)
        else name
        for info, name in zip(infos, names, strict=True)
    ]


def _refuse_doubles(path: Path, names: list[str]) -> None:
    counts = Counter(names) if len(set(names)) < len(names) else Counter()
    doubles = [printable(n) for n, count in counts.items() if count > 1 and not n.endswith("/")]
    if doubles:
        raise InputError(f"{path} holds two files of the same name: {some(doubles)}; pack it again")


def _check_entry(path: Path, info: zipfile.ZipInfo, end: int) -> None:
    name = info.filename
    climbs = name.startswith(("/", "\\")) or name[1:3] in (":/", ":\\")
    if climbs or ".." in name.replace("\\", "/").split("/"):
        raise InputError(
            f"{path} holds {printable(name)!r}, which climbs out of the archive: pack it "
            "with relative names"
        )
    if info.flag_bits & 1:
        raise InputError(
            f"{path} is encrypted ({printable(name)}): unpack it, or pack it without a password"
        )
    if info.header_offset + info.compress_size > end:
        raise InputError(
            f"{path} is a truncated zip archive ({printable(name)} lies past its end): "
            "copy it again"
        )


def _deflate() -> Callable[[bytes], Iterator[bytes]]:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)

    def inflate(raw: bytes) -> Iterator[bytes]:
        while raw and not inflater.eof:
            yield inflater.decompress(raw, PIECE)
            raw = inflater.unconsumed_tail
        # What is left in the window comes with the next input, or here at the end of all.
        while piece := inflater.decompress(b"", PIECE):
            yield piece

    return inflate


def _with_input(
    decompressor: bz2.BZ2Decompressor | lzma.LZMADecompressor,
) -> Callable[[bytes], Iterator[bytes]]:
    def inflate(raw: bytes) -> Iterator[bytes]:
        try:
            if not decompressor.eof:
                yield decompressor.decompress(raw, PIECE)
            while not decompressor.eof and not decompressor.needs_input:
                yield decompressor.decompress(b"", PIECE)
        except (OSError, lzma.LZMAError) as error:
            raise zipfile.BadZipFile(str(error)) from error

    return inflate


def _lzma_decompressor(file: BinaryIO, limit: int) -> lzma.LZMADecompressor:
    """By the properties in front of the data; its window no larger than what is asked for."""
    header = file.read(_LZMA_HEADER.size)
    if len(header) < _LZMA_HEADER.size:
        raise zipfile.BadZipFile("the data end too early")
    length, properties, window = _LZMA_HEADER.unpack(header)
    if length != 5 or properties >= 9 * 5 * 5:
        raise zipfile.BadZipFile("unknown LZMA properties")
    rest, lc = divmod(properties, 9)
    pb, lp = divmod(rest, 5)
    # liblzma allocates the whole window; one as large as the output is as good as a larger one.
    most = max(4096, min(window, limit))
    chain = {"id": lzma.FILTER_LZMA1, "lc": lc, "lp": lp, "pb": pb, "dict_size": most}
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[chain])
    except (ValueError, lzma.LZMAError) as error:
        raise zipfile.BadZipFile(f"unknown LZMA properties ({error})") from error
