"""Texts that a table lists, each with a label."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from penult.data.image import ImageData, described_as, printable
from penult.data.items import TEXT_KEYS
from penult.data.listing import nfc
from penult.data.table_images import (
    LABEL_NAMES,
    columns_named,
    holds_images,
    label_column_of,
    parts_notes,
)
from penult.data.table_labels import from_column, from_columns
from penult.data.tables import JoinedTable, Table, text_of
from penult.errors import InputError
from penult.text import some

ID_NAMES = ("id", "text_id", "sentence_id", "sample", "idx", "uid", "guid", "key")
TEXT_LABELS = (*LABEL_NAMES, "sentiment", "intent", "topic", "emotion", "stars", "rating")
WORDS = 3  # in the mean, from which a column holds texts


class TableTexts(ImageData):
    """The texts of a table's rows, in their order.

    One column holds the texts, another the labels: words, or numbers from 0. Both are found by
    their names and contents, which `notes` says, or named. Rows without a label are left out, and
    counted in `notes`. A sample is named by a column such as `id`, or by its row, from 0.

    Args:
        table: from `read_table`.
        labelled: False passes over labels.
        text_column, label_column: by default found.
        label_columns, multi_label: see `TableImages`.

    Raises:
        InputError: no such column, or none or several that could be meant; labels that are none.
    """

    def __init__(
        self,
        table: Table,
        labelled: bool = True,
        text_column: str | None = None,
        label_column: str | None = None,
        label_columns: Sequence[str] | None = None,
        multi_label: bool | None = None,
    ) -> None:
        self._table = table
        self.path = table.path
        self.labelled = labelled
        self.labels = self.class_names = None
        self._joined = isinstance(table, JoinedTable)
        self._column = _text_column(table, text_column, label_column)
        self._label_column: str | None = None
        rows = np.arange(table.n_rows)
        notes = [f"the texts are in the column {self._column!r}"]
        if labelled:
            if label_columns:
                found = from_columns(table, label_columns, multi_label)
                notes[0] += f" and the labels in {some([*map(repr, label_columns)])}"
            else:
                self._label_column = label_column_of(
                    table, self._column, label_column, "texts", TEXT_LABELS
                )
                found = from_column(table, self._label_column, multi_label)
                notes[0] += f" and the labels in {self._label_column!r}"
            rows, self.labels, self.class_names = found.rows, found.labels, found.class_names
            self.multi_label = found.labels.ndim == 2
            notes += found.notes
        notes += parts_notes(table)
        self._options = {
            "text_column": self._column,
            "label_column": self._label_column,
            "texts": True,
            **({"label_columns": list(label_columns)} if label_columns else {}),
            **({} if multi_label is None else {"multi_label": multi_label}),
        }
        values = table.column(self._column)
        self._texts = [_whole(values[int(row)]) for row in rows]
        self._rows = rows
        self._ids = self._names(table, rows)
        self.notes = tuple(notes)
        self.fingerprint = self._digest()

    def __len__(self) -> int:
        return len(self._texts)

    def id(self, index: int) -> str:
        """What names the row, or its number."""
        return self._ids[index]

    def load(self, index: int) -> str:
        """A text, which may be empty."""
        return self._texts[index]

    def column(self, name: str) -> list[Any]:
        """What a column holds for each sample."""
        values = self._table.column(name)
        return [values[int(row)] for row in self._rows]

    def describe(self) -> dict[str, Any]:
        """Kind, path, columns, numbers and fingerprint."""
        where = "shards" if self._joined else "path"
        return {**described_as("texts", self), where: str(self.path), "options": self._options}

    def _names(self, table: Table, rows: Any) -> list[str]:
        for key in columns_named(table, ID_NAMES):
            if key in (self._column, self._label_column):
                continue
            column = table.column(key)
            names = [text_of(column[int(row)]) for row in rows]
            if None not in names and len(set(names)) == len(names):
                return [printable(nfc(str(name))) for name in names]
        return [str(row) for row in rows]

    def _digest(self) -> str:
        digest = hashlib.blake2b(f"texts {self.labelled} ".encode(), digest_size=16)
        for part in (*self._ids, *(self.class_names or ()), *self._texts):
            raw = part.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "little") + raw)
        digest.update(b"" if self.labels is None else self.labels.tobytes())
        return digest.hexdigest()


def text_columns(table: Table) -> list[str]:
    """Columns that hold texts, by what they are called or hold; the likeliest first."""
    named = [name for name in columns_named(table, TEXT_KEYS) if _holds_text(table, name, 0)]
    others = [name for name in table.names if _holds_text(table, name, WORDS)]
    return list(dict.fromkeys([*named, *others]))


def _text_column(table: Table, given: str | None, label: str | None) -> str:
    if given is not None:
        if given == label:
            raise InputError(f"the column {given!r} cannot hold both the texts and the labels")
        return table.require(given)
    named = [
        name
        for name in columns_named(table, TEXT_KEYS)
        if name != label and _holds_text(table, name, 0)
    ]
    found = named or [name for name in text_columns(table) if name != label]
    if named or len(found) == 1:
        return found[0]
    which = f"{some(found)} could be meant" if found else "none of them holds texts"
    images = [name for name in table.names if holds_images(table, name)]
    if images and not found:
        which += f" ({images[0]} names images, and the network takes texts)"
    raise InputError(
        f"{table.path}: which column holds the texts? It has {some(table.names, 20)}, and {which}: "
        "give it with --text-column"
    )


def _holds_text(table: Table, name: str, n_words: int) -> bool:
    """Whether a column holds text of so many words in the mean, and no paths of images."""
    values = table.examples(name)
    if not values or not all(isinstance(value, str) for value in values):
        return False
    if holds_images(table, name):
        return False
    return sum(len(value.split()) for value in values) >= n_words * len(values)


def _whole(value: Any) -> str:
    """A value as it stands; nothing for what stands for none."""
    return value if isinstance(value, str) else text_of(value) or ""
