"""Tables: CSV, TSV, JSON lines and Parquet, read by columns."""

from __future__ import annotations

import importlib
import json
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from penult.data.archive import FREE_BYTES, MAX_RATIO
from penult.data.class_list import first_name
from penult.data.text_tables import csv_columns, json_columns, require_different
from penult.errors import InputError
from penult.extras import import_extra
from penult.text import described, some

LOOKED_AT = 16  # rows by which the meaning of a column is told
FREE_ROWS, ROWS_PER_BYTE = 1 << 20, 8  # of a Parquet file, whatever its size, and for its size
MOST_DICTIONARY = 1 << 30  # bytes of a column in a group of rows


class Table:
    """A table in a file: its columns' names, and their values when they are asked for.

    Attributes:
        path: the file.
        names: of the columns.
        n_rows: how many rows there are.
    """

    def __init__(self, path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
        self.path = path
        self.names = tuple(columns)
        self.n_rows = len(next(iter(columns.values()), ()))
        self._columns = columns

    def column(self, name: str) -> Sequence[Any]:
        """All values of a column: text, numbers or whatever the file holds; None for no value.

        Raises:
            InputError: there is no such column; names those that there are.
        """
        return self._values(self.require(name))

    def require(self, name: str) -> str:
        """The name of a column that there is.

        Raises:
            InputError: there is none of this name.
        """
        if name not in self.names:
            raise InputError(f"{self.path} has no column {name!r}; it has {some(self.names, 20)}")
        return name

    def examples(self, name: str) -> list[Any]:
        """A few values of a column, of the first rows that hold any."""
        n = LOOKED_AT
        while True:
            found = [value for value in self._first(name, n) if value is not None]
            if found or n >= self.n_rows:
                return found[:LOOKED_AT]
            n *= 8

    def class_names(self, name: str) -> tuple[str, ...] | None:
        """The names of the classes that a column of numbers stands for, where the file has them."""
        return None

    def value(self, name: str, row: int) -> Any:
        """One value."""
        return self._columns[name][row]

    def inner(self, name: str, key: str) -> Sequence[Any] | None:
        """One entry of the objects in a column; None where they have no such entry."""
        values = [v.get(key) if isinstance(v, Mapping) else None for v in self._values(name)]
        return values if any(value is not None for value in values) else None

    def _values(self, name: str) -> Sequence[Any]:
        return self._columns[name]

    def _first(self, name: str, n: int) -> Sequence[Any]:
        return self._columns[name][:n]


class ParquetTable(Table):
    """A Parquet file: columns are read one by one, single values by groups of rows.

    It can be sent to other processes, each of which opens the file for itself.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: Any = None
        self._held: tuple[int, str, Any] | None = None
        self._dictionaries: list[str] = []
        try:
            metadata = self._opened().metadata
            self._most = FREE_BYTES + MAX_RATIO * path.stat().st_size
            self._require_bounded(metadata)
            self._dictionaries, self._file = _dictionaries(metadata), None
            self.names = tuple(self._opened().schema_arrow.names)
            require_different(path, list(self.names))
        except InputError:
            raise
        except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
            raise _damaged(path, error) from error
        self.n_rows = metadata.num_rows
        self._starts = [0]
        for group in range(metadata.num_row_groups):
            self._starts.append(self._starts[-1] + metadata.row_group(group).num_rows)

    def value(self, name: str, row: int) -> Any:
        """One value; the group of rows around it is kept for the next one."""
        group = bisect_right(self._starts, row) - 1
        if self._held is None or self._held[:2] != (group, name):
            try:
                column = self._opened().read_row_group(group, columns=[name]).column(0)
            except (OSError, ValueError) as error:
                raise _damaged(self.path, error) from error
            self._held = (group, name, column)
        return self._held[2][row - self._starts[group]].as_py()

    def inner(self, name: str, key: str) -> Sequence[Any] | None:
        """One entry of the objects in a column, read without the others."""
        try:
            found = self._opened().read(columns=[f"{name}.{key}"])
        except (OSError, ValueError) as error:
            raise _damaged(self.path, error) from error
        if not found.num_columns:
            return None
        return [value and value[key] for value in found.column(0).to_pylist()]

    def _values(self, name: str) -> Sequence[Any]:
        try:
            found = self._opened().read(columns=[name]).column(0)
            if _n_bytes(found) > self._most:
                raise InputError(self._too_much(f"the column {name!r}"))
            values: list[Any] = found.to_pylist()
        except InputError:
            raise
        except (OSError, ValueError) as error:
            raise _damaged(self.path, error) from error
        return [_known(value) for value in values]

    def _require_bounded(self, metadata: Any) -> None:
        """Refuse more rows, or more to inflate, than such a file can honestly hold."""
        groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
        if metadata.num_rows > FREE_ROWS + ROWS_PER_BYTE * self.path.stat().st_size:
            raise InputError(self._too_much(f"a table of {metadata.num_rows:,} rows"))
        if sum(group.total_byte_size for group in groups) > self._most:
            raise InputError(self._too_much("what it inflates to"))

    def _too_much(self, what: str) -> str:
        return (
            f"{self.path}: {what} is beyond all measure for a file of "
            f"{self.path.stat().st_size:,} bytes: write it anew, without compression"
        )

    def _first(self, name: str, n: int) -> Sequence[Any]:
        return [self.value(name, row) for row in range(min(self.n_rows, n))]

    def class_names(self, name: str) -> tuple[str, ...] | None:
        """The names of a `ClassLabel`, as the data sets of Hugging Face keep them."""
        metadata = self._opened().schema_arrow.metadata or {}
        try:
            found = json.loads(metadata[b"huggingface"])["info"]["features"][name]
            found = found.get("feature", found)  # of a list of classes
            names = found["names"]
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            return None
        return tuple(map(first_name, names)) if isinstance(names, list) and names else None

    def _opened(self) -> Any:
        if self._file is None:
            import_extra("pyarrow", "tables")
            parquet = importlib.import_module("pyarrow.parquet")
            self._file = parquet.ParquetFile(
                self.path, memory_map=True, read_dictionary=self._dictionaries
            )
        return self._file

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None, "_held": None}


class JoinedTable(Table):
    """Several tables of the same columns, one after the other."""

    def __init__(self, path: Path, tables: Sequence[Table]) -> None:
        self.path = path
        self.names = tables[0].names
        self._tables = list(tables)
        self._starts = [0]
        for table in tables:
            self._starts.append(self._starts[-1] + table.n_rows)
            if missing := set(self.names) - set(table.names):
                raise InputError(f"{table.path} lacks the columns {some(sorted(missing))}")
        self.n_rows = self._starts[-1]

    def value(self, name: str, row: int) -> Any:
        """One value."""
        at = bisect_right(self._starts, row) - 1
        return self._tables[at].value(name, row - self._starts[at])

    def inner(self, name: str, key: str) -> Sequence[Any] | None:
        """One entry of the objects in a column; None where they have no such entry."""
        parts = [table.inner(name, key) for table in self._tables]
        return None if None in parts else [value for part in parts for value in part or ()]

    def _values(self, name: str) -> Sequence[Any]:
        return [value for table in self._tables for value in table.column(name)]

    def class_names(self, name: str) -> tuple[str, ...] | None:
        """The names that all of the tables have for the classes of a column."""
        found = {table.class_names(name) for table in self._tables}
        return found.pop() if len(found) == 1 else None

    def _first(self, name: str, n: int) -> Sequence[Any]:
        return self._tables[0]._first(name, n)


def is_table(path: Path) -> bool:
    """Whether a file's name says that it is a table."""
    return path.suffix.lower() in READERS


def read_table(path: Path) -> Table:
    """Open a table by its file's ending.

    Args:
        path: .csv, .tsv or .txt with commas, semicolons, tabs or bars and names in the first line;
            .jsonl or .ndjson with an object in each line; .parquet.

    Raises:
        InputError: no such file, another ending, rows that do not fit, no rows.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a table, such as {path.stem}.csv")
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: expected a table of {', '.join(READERS)}")
    table = reader(path)
    if not table.n_rows:
        raise InputError(f"{path} has no rows")
    return table


def text_of(value: Any) -> str | None:
    """A value as text; None for an empty one."""
    value = _known(value)
    return None if value is None else str(value).strip() or None


def _known(value: Any) -> Any:
    """The value, or None for what stands for none."""
    return None if isinstance(value, float) and math.isnan(value) else value


def _read_csv(path: Path) -> Table:
    return Table(path, csv_columns(path))


def _read_json_lines(path: Path) -> Table:
    columns = json_columns(path)
    return Table(path, {name: list(map(_known, column)) for name, column in columns.items()})


def _dictionaries(metadata: Any) -> list[str]:
    """Columns of texts or bytes, to be kept as they are stored: a value that is repeated once."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    return [
        column.path_in_schema
        for at in range(metadata.num_columns if groups else 0)
        if (column := groups[0].column(at)).physical_type == "BYTE_ARRAY"
        and "." not in column.path_in_schema  # in objects they cannot be kept so
        and max(group.column(at).total_uncompressed_size for group in groups) < MOST_DICTIONARY
    ]


def _n_bytes(column: Any) -> int:
    """Bytes of a column's texts, each value counted as often as it stands there."""
    compute = importlib.import_module("pyarrow.compute")
    total = 0
    for chunk in column.chunks:
        if hasattr(chunk, "indices"):
            lengths = compute.binary_length(chunk.dictionary)
            total += compute.sum(lengths.cast("int64").take(chunk.indices)).as_py() or 0
        else:
            total += chunk.nbytes
    return total


def _damaged(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is no readable Parquet file: {described(error)}")


READERS: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".txt": _read_csv,
    ".parquet": ParquetTable,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
}
