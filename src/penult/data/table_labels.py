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
from penult.data.words import SampleLabelError, is_whole, meant_as_numbers
from penult.errors import InputError
from penult.text import some

# What programs write where there is no label, and what they write where there is no number.
NO_LABEL = frozenset({"nan", "<na>", "#n/a", "n/a", "na", "null"})
NO_NUMBER = frozenset({"none", "?", "-"})


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

    Rows without one are left out, and counted: empty cells and what programs write for none.

    Args:
        table: from `read_table`.
        name: the column.
        multi_label: whether rows may have several classes; None to tell by the cells.

    Raises:
        InputError: no row has a label, or one that is none.
    """
    values, written = _given(table.column(name))
    rows = np.flatnonzero([value is not None for value in values])
    there = [value for value in values if value is not None]
    where = f"{table.path}, column {name!r}"
    if not there:
        raise InputError(f"{table.path}: no row has a label in the column {name!r}")
    for row, value in zip(rows, there, strict=True):
        if isinstance(value, Mapping):
            raise InputError(
                f"{where}: row {row + 1} holds an object of {some(list(map(str, value)))}, "
                "expected a word or a number"
            )
    several, known = multi_label, table.class_names(name)
    texts = [value for value in there if isinstance(value, str)]
    try:
        if len(texts) == len(there) and (mark := separator_of(texts, multi_label)) is not None:
            there = [[part.strip() for part in text.split(mark) if part.strip()] for text in texts]
            several = True
        elif not any(map(is_several, there)) and known is None:
            there = meant_as_numbers(there)
            if len(texts) < len(there) and isinstance(there[0], str):
                word = next(i for i, text in enumerate(there) if not is_whole(text))
                raise SampleLabelError(
                    word, f"the word {there[word]:.40}, where others are numbers: expected either"
                )
        labels, names = labels_of(there, len(there), known, several)
    except SampleLabelError as error:
        raise InputError(f"{where}: {error.of(f'row {rows[error.index] + 1}')}") from None
    except InputError as error:
        raise InputError(f"{where}: {error}") from None
    notes = several_notes(labels)
    if n_empty := len(values) - len(rows):
        have = "row has no label" if n_empty == 1 else "rows have no label"
        shown = f" ({some([*map(repr, sorted(written))], 3)})" if written else ""
        left = "is" if n_empty == 1 else "are"
        first = next(row for row, value in enumerate(values, 1) if value is None)
        notes += (f"{n_empty:,} {have}{shown} and {left} left out, the first is row {first}",)
    return TableLabels(labels, names, rows, notes)


def _given(values: Sequence[Any]) -> tuple[list[Any], set[str]]:
    """Labels as they are meant, None for none, and what stands for none in their place."""
    found = [None if value == "" else _meant(value) for value in values]
    words = [value.casefold() for value in found if isinstance(value, str)]
    unknown = NO_LABEL | NO_NUMBER
    others = [word for word in words if word not in unknown]
    any_number = others or any(not isinstance(value, str | None) for value in found)
    nothing = unknown if any_number and all(map(is_whole, others)) else NO_LABEL
    written = {value for value in found if isinstance(value, str) and value.casefold() in nothing}
    return [None if isinstance(v, str) and v in written else v for v in found], written


def _meant(value: Any) -> Any:
    """A label without what file formats make of it: words as bytes, booleans."""
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    return value


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
