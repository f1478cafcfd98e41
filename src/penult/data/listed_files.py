"""Where the files are that a table lists: its paths as they stand, or as they are meant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from pathlib import Path
from urllib.parse import unquote

import numpy as np

from penult.data.image import printable
from penult.text import nearest, some

ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp", ".JPG", ".JPEG", ".PNG")
LOOKED_AT = 16  # paths by which the place is found
MOST_FOLDERS = 200  # beside the table that are tried
MOST_DROPPED = 12
_FILE = "file://"


@dataclass(frozen=True)
class FilesPlace:
    """What makes files of a table's paths.

    Attributes:
        root: the folder of the table.
        folder: the paths start from this folder in it.
        ending: the files' names have it, the paths not.
        n_dropped: so many folders at the start of the paths are those of another machine.
    """

    root: Path
    folder: str = ""
    ending: str = ""
    n_dropped: int = 0

    def file(self, path: str) -> str:
        """The file of a path."""
        parts = slashed(path)
        if self.n_dropped:
            parts = "/".join(parts.split("/")[self.n_dropped :])
        return os.fspath(self.root / self.folder / (parts + self.ending))

    def size(self, path: str) -> int:
        """Bytes of the file of a path; -1 where there is none."""
        file = Path(self.file(path))
        try:
            return file.stat().st_size if file.is_file() else -1
        except (OSError, ValueError):
            return -1

    def holds(self, path: str) -> bool:
        """Whether the file of a path is below the table's folder, by its name."""
        inside = os.path.normpath(self.root.absolute()) + os.sep
        return os.path.normpath(Path(self.file(path)).absolute()).startswith(inside)

    def notes(self, paths: Sequence[str]) -> list[str]:
        """What a person should know of where the files were found."""
        said = []
        if self.folder or self.ending:
            where = f"in the folder {self.folder}" if self.folder else "beside the table"
            said.append(
                f"the files are {where}" + f", with the ending {self.ending}" * bool(self.ending)
            )
        if self.n_dropped:
            start = "/".join(slashed(paths[0]).split("/")[: self.n_dropped]) or "/"
            said.append(f"the table's paths are taken without {printable(start)} at their start")
        return said

    def near(self, path: str) -> str:
        """A hint at what may be meant by a path that leads nowhere; nothing where there is none."""
        file = Path(self.file(path))
        try:
            beside = [entry.name for entry in file.parent.iterdir()]
        except (OSError, ValueError):
            return ""
        near = nearest(file.name, beside)
        return f" (did you mean {printable(some(near[:1]))}?)" if near else ""


def files_place(root: Path, paths: Sequence[str]) -> FilesPlace:
    """The place with which most of a few paths lead to files: as they stand, if they do.

    Otherwise in a folder of the table's folder, or beside it, with one of the usual endings, or
    without the folders of another machine at their start.

    Args:
        root: the table's folder.
        paths: as they stand in the table, at least one.
    """
    spread = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, LOOKED_AT).astype(int))]

    def n_found(place: FilesPlace) -> int:
        return sum(place.size(path) >= 0 for path in spread)

    for places in _stages(FilesPlace(root), spread):
        best = max(places, key=n_found)
        if n_found(best):
            return best
    return FilesPlace(root)


def _stages(here: FilesPlace, paths: Sequence[str]) -> Iterator[list[FilesPlace]]:
    """Places to be tried together, the likelier ones before others."""
    yield _with_endings([here])
    beside = sorted(entry.name for entry in os.scandir(here.root) if entry.is_dir())[:MOST_FOLDERS]
    yield _with_endings([replace(here, folder=folder) for folder in (*beside, "..")])
    starts = zip(*(slashed(path).split("/")[:-1] for path in paths), strict=False)
    same = takewhile(lambda parts: len(set(parts)) == 1, starts)
    for n, _ in enumerate(islice(same, MOST_DROPPED), 1):
        folders = ("", *beside, "..")
        yield _with_endings([replace(here, folder=f, n_dropped=n) for f in folders])


def _with_endings(places: Sequence[FilesPlace]) -> list[FilesPlace]:
    return [replace(place, ending=ending) for place in places for ending in ENDINGS]


def slashed(path: str) -> str:
    """A path with forward slashes; that of an address of a file on this machine."""
    if path.startswith(_FILE):
        return unquote(path.removeprefix(_FILE).removeprefix("localhost"))
    return path.replace("\\", "/")
