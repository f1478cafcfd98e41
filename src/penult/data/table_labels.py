"""Labels of a table: one column of classes or of several, or a column of 0 and 1 for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penult.data.labels import labels_of
from penult.data.multi_hot import is_several, separator_of, several_notes, zero_or_one
from penult.data.tables import Table
from penult.data.words import meant_as_numbers
from penult.errors import InputError
from penult.text import some


@dataclass(frozen=True, eq=False)
class TableLabels:
    """The labels of a table's rows.

    Attributes:
        labels: (n_rows,) int64, or (n_rows, n_classes) bool where rows have several.
        class_names: None where classes are numbers.
        rows: (n_rows,) int64, the rows of the table that have a label.
        notes: what is to be said of them.
    """

    labels: NDArray[Any]
    class_names: tuple[str, ...] | None
    rows: NDArray[np.int64]
    notes: tuple[str, ...]


def from_column(table: Table, name: str, multi_label: bool | None) -> TableLabels:
    """Labels of one column: a class for each row, or several as a list or as text ("cat;dog").

    Args:
        table: from `read_table`.
        name: the column.
        multi_label: whether rows may have several classes; None to tell by the cells.

    Raises:
        InputError: no row has a label, or one that is none.
    """
    values = [None if value == "" else value for value in table.column(name)]
    empty = [row for row, value in enumerate(values) if value is None]
    there = [value for value in values if value is not None]
    if not there:
        raise InputError(f"{table.path}: no row has a label in the column {name!r}")
    for row, value in enumerate(values):
        if isinstance(value, Mapping):
            raise InputError(
                f"{table.path}, column {name!r}: row {row + 1} holds an object of "
                f"{some(list(map(str, value)))}, expected a word or a number"
            )
    several = multi_label
    texts = [value for value in there if isinstance(value, str)]
    if len(texts) == len(there) and (mark := separator_of(texts, multi_label)) is not None:
        there = [[part.strip() for part in text.split(mark) if part.strip()] for text in texts]
        several = True
    elif any(map(is_several, there)):
        several = multi_label
    else:
        there = meant_as_numbers(there)
    try:
        labels, names = labels_of(there, len(there), None, several)
    except InputError as error:
        raise InputError(f"{table.path}, column {name!r}: {error}") from None
    rows = np.delete(np.arange(len(values)), empty)
    notes = several_notes(labels)
    if empty:
        have = "row has no label and is" if len(empty) == 1 else "rows have no label and are"
        notes += (f"{len(empty):,} {have} left out, the first is row {empty[0] + 1}",)
    return TableLabels(labels, names, rows, notes)


def from_columns(table: Table, names: Sequence[str], multi_label: bool | None) -> TableLabels:
    """Labels of several columns of 0 and 1, whose names are the classes.

    Args:
        table: from `read_table`.
        names: the columns.
        multi_label: whether rows may have several classes; None to tell by the cells.

    Raises:
        InputError: a cell that is neither; names its row and column.
    """
    matrix = np.zeros((table.n_rows, len(names)), dtype=bool)
    for c, name in enumerate(names):
        for row, value in enumerate(table.column(name)):
            found = zero_or_one(value)
            if found is None:
                shown = "nothing" if value is None or value == "" else f"{value!r:.40}"
                raise InputError(
                    f"{table.path}: row {row + 1} has {shown} in the column {name!r} of "
                    "--label-columns, expected 0 or 1"
                )
            matrix[row, c] = found
    labels, _ = labels_of(matrix, table.n_rows, tuple(names), multi_label)
    return TableLabels(labels, tuple(names), np.arange(table.n_rows), several_notes(labels))
