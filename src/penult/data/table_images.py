"""Images that a table lists: paths of files or the files' bytes, each with a label."""

from __future__ import annotations

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from penult.data.files import SAMPLED_BYTES, SAMPLED_FILES, WHOLE_BYTES, WHOLE_FILES
from penult.data.folders import is_part
from penult.data.image import (
    ImageData,
    ImageFaultError,
    Loaded,
    described_as,
    digest_of,
    extension,
    formats,
    printable,
    read_file,
)
from penult.data.items import IMAGE_KEYS, LABEL_KEYS, TEXT_KEYS, is_image, opened
from penult.data.listed_files import FilesPlace, files_place, slashed
from penult.data.listing import nfc
from penult.data.table_labels import from_column, from_columns
from penult.data.tables import JoinedTable, Table, text_of
from penult.errors import InputError
from penult.text import some

PATH_KEYS: tuple[str, ...] = ("file_name", "filename", "file", "path", "filepath", "file_path")
PATH_KEYS += (
    "image_path",
    "image_file",
    "image_name",
    "image_id",
    "img_path",
    "img_name",
    "id",
    "name",
)
ID_KEYS = ("id", "image_id", "sample", *PATH_KEYS)
LABEL_NAMES = (*LABEL_KEYS, "species", "diagnosis", "dx")
PART_KEYS = ("split", "set", "subset", "partition", "part", "phase")
_ADDRESS = re.compile(r"(?!file://)[A-Za-z][A-Za-z0-9+.-]+://")
_MOST_CLASSES = 0.5  # distinct values per row in a column that can be guessed to be the label


class TableImages(ImageData):
    """The images of a table's rows, in their order.

    One column holds the images: paths from the table's folder, or from the one folder beside it
    that holds them, or the bytes of image files. Another holds the labels: words, or numbers from
    0. Both are found by their names and contents, which `notes` says, or named. Rows without a
    label are left out, and counted in `notes`. A sample is named by its path as it stands in the
    table; images given as bytes by a column such as `id`, or by their row.

    Args:
        table: from `read_table`.
        labelled: False passes over labels.
        image_column, label_column: by default found.
        label_columns: instead, columns of 0 and 1, one for each class.
        multi_label: whether rows may have several classes; None to tell by the labels.

    Raises:
        InputError: no such column, or none or several that could be meant; two rows of one image;
            paths none of which leads anywhere; labels that are none.
    """

    def __init__(
        self,
        table: Table,
        labelled: bool = True,
        image_column: str | None = None,
        label_column: str | None = None,
        label_columns: Sequence[str] | None = None,
        multi_label: bool | None = None,
    ) -> None:
        self._table = table
        self.path = table.path
        if nameless := [name for name in table.names if _names_image(name)]:
            raise InputError(
                f"{table.path}: the first line holds {printable(nameless[0])} and no names of "
                "columns: write a line such as path,label above it, and commas in the others"
            )
        own = label_columns or ([] if label_column is None else [label_column])
        self._column = _image_column(table, image_column, [table.require(name) for name in own])
        self.labelled = labelled
        self.labels = self.class_names = None
        self.label_column: str | None = None
        self._rows = np.arange(table.n_rows)
        notes = [f"the images are in the column {self._column!r}"]
        if labelled:
            if label_columns:
                notes[0] += f" and the labels in {some([*map(repr, label_columns)])}"
                found = from_columns(table, label_columns, multi_label)
            else:
                self.label_column = label_column_of(table, self._column, label_column)
                notes[0] += f" and the labels in {self.label_column!r}"
                found = from_column(table, self.label_column, multi_label)
            self.labels, self.class_names = found.labels, found.class_names
            self.multi_label, self._rows = found.labels.ndim == 2, found.rows
            notes += found.notes
        notes += parts_notes(table)
        self._options = {
            "image_column": self._column,
            "label_column": self.label_column,
            **({"label_columns": list(label_columns)} if label_columns else {}),
            **({} if multi_label is None else {"multi_label": multi_label}),
        }
        self._place = FilesPlace(table.path.parent)
        self._paths: list[str] | None = None
        if not any(map(is_image, table.examples(self._column))):
            notes += self._take_paths([text_of(value) for value in table.column(self._column)])
        self._ids = self._names()
        _refuse_doubles(table, self._ids, self._rows)
        sizes = np.zeros(0, np.int64)
        if self._paths is not None:
            sizes, said = self._sizes(self._paths)
            notes += said
        self.notes = tuple(notes)
        self.fingerprint = self._digest(sizes)

    def __len__(self) -> int:
        return len(self._rows)

    def id(self, index: int) -> str:
        """The path as it stands in the table, or what else names the row."""
        return self._ids[index]

    def load(self, index: int) -> Loaded:
        """Open an image; it is decoded when first used."""
        index = range(len(self))[index]
        if self._paths is None:
            value = self._table.value(self._column, int(self._rows[index]))
            if value is None:
                raise ImageFaultError(self.id(index), "has no image in its row")
            return opened(value, self.id(index))
        return opened(self._place.file(self._paths[index]), self.id(index))

    def column(self, name: str) -> list[Any]:
        """What a column holds for each sample."""
        values = self._table.column(name)
        return [values[int(row)] for row in self._rows]

    def describe(self) -> dict[str, Any]:
        """Kind, path, columns, numbers and fingerprint."""
        where = "shards" if isinstance(self._table, JoinedTable) else "path"
        about = {where: str(self.path), "options": self._options}
        return {**described_as("table", self), **about}

    def _take_paths(self, values: Sequence[str | None]) -> list[str]:
        """Leave out rows that name no image; gives what is to be said of that."""
        there = np.array([values[int(row)] is not None for row in self._rows], dtype=bool)
        if not there.any():
            raise InputError(f"{self.path}: no row names an image in the column {self._column!r}")
        left_out = self._rows[~there]
        self._rows = self._rows[there]
        if self.labels is not None:
            self.labels = self.labels[there]
        self._paths = [path for row in self._rows if (path := values[int(row)]) is not None]
        if not len(left_out):
            return []
        name = "row names no image and is" if len(left_out) == 1 else "rows name no image and are"
        return [f"{len(left_out):,} {name} left out, the first is row {left_out[0] + 1}"]

    def _names(self) -> list[str]:
        if self._paths is not None:
            return [printable(nfc(posixpath.normpath(slashed(path)))) for path in self._paths]
        keys = [key for key in columns_named(self._table, ID_KEYS) if key != self.label_column]
        columns = [self._table.column(key) for key in keys if key != self._column]
        for column in (self._table.inner(self._column, "path"), *columns):
            names = [text_of(column[int(row)]) for row in self._rows] if column is not None else []
            if names and None not in names and len(set(names)) == len(names):
                return [printable(nfc(str(name))) for name in names]
        return [str(row) for row in self._rows]

    def _sizes(self, paths: Sequence[str]) -> tuple[np.ndarray[Any, Any], list[str]]:
        """Bytes of each file, -1 where there is none, and what is to be said of that."""
        addresses = [path for path in paths if _ADDRESS.match(path)]
        if addresses:
            raise InputError(
                f"{self.path} names addresses such as {printable(addresses[0])}, which are not "
                "fetched: download the images and list their files"
            )
        self._place = files_place(self.path.parent, paths)
        notes = self._place.notes(paths)
        sizes = np.fromiter(map(self._place.size, paths), np.int64, len(paths))
        missing = np.flatnonzero(sizes < 0)
        if len(missing) == len(paths):
            texts = columns_named(self._table, TEXT_KEYS)
            hint = f" ({texts[0]} holds texts, and the network takes images)" if texts else ""
            raise InputError(
                f"none of the {len(paths):,} files that {self.path} lists is there, the first: "
                f"{printable(self._place.file(paths[0]))}{self._place.near(paths[0])}; paths start "
                "from the folder of the table: give the column of the paths with --image-column, "
                f"or move the table{hint}"
            )
        outside = [path for path in paths if not self._place.holds(path)]
        if outside:
            notes.append(
                f"{len(outside):,} of the files lie outside of the table's folder, the first: "
                f"{printable(outside[0])}"
            )
        if len(missing):
            first = self._ids[missing[0]]
            files = "file is" if len(missing) == 1 else "files are"
            notes.append(f"{len(missing):,} listed {files} not there, the first: {first}")
        return sizes, notes

    def _digest(self, sizes: np.ndarray[Any, Any]) -> str:
        labels = b"" if self.labels is None else self.labels.tobytes()
        digest = hashlib.blake2b(f"table {self.labelled} ".encode(), digest_size=16)
        for part in (*self._ids, *(self.class_names or ())):
            digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
        digest.update(labels + sizes.tobytes())
        whole = len(self) <= WHOLE_FILES and 0 < int(sizes.sum()) <= WHOLE_BYTES
        n, limit = (len(self), -1) if whole else (min(len(self), SAMPLED_FILES), SAMPLED_BYTES)
        for index in np.unique(np.linspace(0, len(self) - 1, n).astype(int)):
            digest.update(digest_of(self._raw(int(index), limit)).encode())
        return digest.hexdigest()

    def _raw(self, index: int, limit: int) -> bytes:
        """The first bytes of an image's file; nothing where it cannot be read."""
        if self._paths is None:
            value = self._table.value(self._column, int(self._rows[index]))
            raw = value.get("bytes") if isinstance(value, Mapping) else value
            return bytes(raw[:limit] if limit > 0 else raw) if isinstance(raw, bytes) else b""
        try:
            return read_file(self._place.file(self._paths[index]), limit)
        except OSError:  # one image, which will be a fault
            return b""


def _image_column(table: Table, given: str | None, labels: Sequence[str]) -> str:
    if given is not None:
        return table.require(given)
    likely = [name for name in table.names if name not in labels and holds_images(table, name)]
    by_name = columns_named(table, (*IMAGE_KEYS, *PATH_KEYS))
    by_name = [name for name in by_name if name not in labels]
    best = [name for name in by_name if name in likely] or likely
    if not best:  # names without an ending, whose files have one
        best = [name for name in by_name if _holds_names(table, name)]
    if not best or (len(best) > 1 and not by_name):
        which = f"{some(best)} could be meant" if best else "none holds paths or bytes of images"
        if not best and (texts := columns_named(table, TEXT_KEYS)):
            which += f" ({texts[0]} holds texts, and the network takes images)"
        raise InputError(
            f"{table.path}: which column holds the images? It has {some(table.names, 20)}, and "
            f"{which}: give it with --image-column"
        )
    return best[0]


def label_column_of(
    table: Table,
    other: str,
    given: str | None,
    samples: str = "images",
    names: Sequence[str] = LABEL_NAMES,
) -> str:
    """The column of the labels, as given or found.

    Args:
        table: the table.
        other: the column of the samples.
        given: what the user says.
        samples: what the samples are, for the error.
        names: that columns of labels have.

    Raises:
        InputError: there is none, or several could be meant.
    """
    if given is not None:
        if given == other:
            raise InputError(f"the column {given!r} cannot hold both the {samples} and the labels")
        return table.require(given)
    named = [name for name in columns_named(table, names) if name != other]
    if named:
        return named[0]
    others = [name for name in table.names if name != other and _can_be_label(table, name)]
    if len(others) == 1:
        return others[0]
    which = f"{some(others)} could be meant" if others else "none looks like classes"
    raise InputError(
        f"{table.path}: which column holds the labels? It has {some(table.names, 20)}, and "
        f"{which}: give it with --label-column, or use the network's own predictions as labels "
        "with --labels predicted"
    )


def columns_named(table: Table, wanted: Sequence[str]) -> list[str]:
    """Columns by what they are called, in the order of `wanted`."""
    lower = {name.lower(): name for name in table.names}
    return [lower[key] for key in dict.fromkeys(wanted) if key in lower]


def holds_images(table: Table, name: str) -> bool:
    """Whether a column holds paths or bytes of images."""
    values = table.examples(name)
    if not values:
        return False
    if all(isinstance(value, str) for value in values):
        return all(extension(value.replace("\\", "/")) in formats() for value in values)
    return all(is_image(value) for value in values)


def _holds_names(table: Table, name: str) -> bool:
    values = [text_of(value) for value in table.examples(name)]
    return bool(values) and None not in values and len(set(values)) == len(values)


def _can_be_label(table: Table, name: str) -> bool:
    """Whether a column holds few different words or whole numbers."""
    if not all(isinstance(value, str | int) for value in table.examples(name)):
        return False
    values = [text_of(value) for value in table.column(name)]
    known = {value for value in values if value is not None}
    return 1 < len(known) <= max(2, _MOST_CLASSES * len(values))


def _refuse_doubles(table: Table, ids: Sequence[str], rows: Sequence[int] | Any) -> None:
    if len(set(ids)) == len(ids):
        return
    counts = Counter(ids)
    name = next(name for name in ids if counts[name] > 1)
    both = [int(rows[i]) + 1 for i, other in enumerate(ids) if other == name]
    n = sum(count > 1 for count in counts.values())
    raise InputError(
        f"{table.path} lists {n:,} {'image' if n == 1 else 'images'} more than once, such as "
        f"{name} in the rows {both[0]} and {both[1]}: expected one row for each"
    )


def _names_image(name: str) -> bool:
    """Whether the name of a column is rather an image's, and other things with it."""
    return any(extension(part) in formats() for part in name.split())


def parts_notes(table: Table) -> list[str]:
    """What to say of a column by which the rows are parts of a data set, such as train and test."""
    for name in columns_named(table, PART_KEYS):
        parts = sorted({text for value in table.column(name) if (text := text_of(value))})
        if len(parts) > 1 and sum(map(is_part, parts)) > 1:
            return [f"the column {name!r} says {some(parts)}: the rows of all of them are taken"]
    return []
