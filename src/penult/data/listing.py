"""Files below a folder or in an archive: listed, and told apart by their names and contents."""

from __future__ import annotations

import mimetypes
import os
import unicodedata
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from penult.data.image import content_of, extension, formats
from penult.text import some

HEAD = 32
# Folders that programs make beside the user's own: thumbnails, previews, waste.
_OF_PROGRAMS = frozenset(
    {
        "@eadir",
        "__macosx",
        "$recycle.bin",
        "#recycle",
        "@recycle",
        "system volume information",
        "lost+found",
        "__pycache__",
    }
)
_FILES_OF_PROGRAMS = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"})
# What cameras write holds a TIFF header and no picture that is ready to be seen.
_RAW = frozenset({".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"})
_KNOWN_TYPES = mimetypes.MimeTypes()


@dataclass
class Listing:
    """Visible files below a root: names, folders, and numbers per file, one after the other.

    Attributes:
        names: paths with forward slashes, as they are there.
        folders: likewise.
        columns: the same count of numbers for every file; its size first.
        of_programs: how many files lay in folders that programs make for themselves.
    """

    names: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    columns: array[int] = field(default_factory=lambda: array("q"))
    of_programs: Counter[str] = field(default_factory=Counter)

    def passes_over(self, parts: list[str]) -> bool:
        """Whether a file or folder is hidden or not the user's own; those are counted."""
        for part in parts:
            if part.casefold() in _OF_PROGRAMS:
                self.of_programs[part] += 1
                return True
            if part.startswith(".") or part.casefold() in _FILES_OF_PROGRAMS:
                return True
        return False

    def notes(self) -> list[str]:
        """What was passed over, for people."""
        if not self.of_programs:
            return []
        found = some(sorted(self.of_programs), 3)
        return [f"folders that a program made for itself are passed over: {found}"]


def list_folder(root: str) -> Listing:
    """List a folder and those in it; a link to a folder that holds it is passed over.

    Raises:
        OSError: a folder cannot be listed.
    """
    found = Listing()
    _walk(root, "", frozenset(), found)
    return found


def _walk(folder: str, prefix: str, above: frozenset[tuple[int, int]], found: Listing) -> None:
    status = Path(folder).stat()
    here = (status.st_dev, status.st_ino)
    if here in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            name = prefix + entry.name
            if found.passes_over([entry.name]):
                continue
            if entry.is_dir():
                found.folders.append(name)
                _walk(entry.path, name + "/", above | {here}, found)
            elif entry.is_file():
                found.names.append(name)
                status = entry.stat()
                found.columns.extend((status.st_size, status.st_mtime_ns))
            elif entry.is_symlink():  # broken: kept, so that the one image is reported
                found.names.append(name)
                found.columns.extend((0, 0))


def may_be_image(name: str) -> bool | None:
    """Whether a file's name says that it is an image; None where only its content can tell."""
    ending = extension(name)
    if ending in formats():
        return True
    kind = _KNOWN_TYPES.guess_type("x" + ending)[0] if ending else None
    if kind is not None and not kind.startswith("image/"):
        return False
    return None


def unreadable(name: str, head: bytes) -> str | None:
    """Why a file whose name does not say that it is an image is none that can be read.

    Args:
        name: the file's.
        head: its first `HEAD` bytes.

    Returns:
        None where it can: a readable image whose name has no ending. An empty text where it is
        no picture at all, and otherwise the reason.
    """
    kind, ending = content_of(head), extension(name)
    if ending in _RAW:
        return f"is a camera's raw picture ({ending}): convert it to PNG"
    if kind is None:
        is_picture = (_KNOWN_TYPES.guess_type("x" + ending)[0] or "").startswith("image/")
        return f"is no image that Pillow reads ({ending}): convert it to PNG" if is_picture else ""
    if kind not in formats().values():
        return f"is a picture of the kind {kind}, which Pillow does not read: convert it to PNG"
    if not ending or ending[1:].isdecimal():
        return None
    return (
        f"is a {kind} image whose name ends in {ending}: rename it to .{kind.lower()} to use it, "
        "or take it out of the folder"
    )


def nfc(name: str) -> str:
    """A name in Unicode's composed form: some file systems keep the decomposed one."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)
