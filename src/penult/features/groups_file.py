"""Read a groups file: CSV, Parquet or JSON lines."""

from __future__ import annotations

import csv
import importlib
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.extras import import_extra
from penult.features.groups import GroupsTable, coded
from penult.text import described, one_line, some

NAMING = ("row", "id", "sample", "image", "image_id", "path", "file", "filename", "file_name")

Columns = dict[str, list[str | None]]


def read_groups(
    path: str | Path,
    *,
    id_column: str | None = None,
    attributes: Sequence[str] = (),
    bins: Mapping[str, int] | None = None,
) -> GroupsTable:
    """Read the attributes of samples.

    Args:
        path: .csv or .tsv, .parquet, or .jsonl; one column names the sample, each other column is
            an attribute.
        id_column: the column that names the sample; where None, the first that is called one of
            `NAMING`, else the first of all. A column `row` counts the samples from 0.
        attributes: the columns to take; all where empty.
        bins: columns of numbers to be cut, and into how many ranges.

    Raises:
        InputError: no such file or column, rows that do not fit, too many values.
    """
    path, bins = Path(path), dict(bins or {})
    columns = _read(path)
    if id_column is None:
        id_column = next((name for name in columns if name.lower() in NAMING), next(iter(columns)))
    for name in (id_column, *attributes, *bins):
        if name not in columns:
            raise InputError(f"{path} has no column {name!r}; it has {some([*columns], 20)}")
    keys = columns.pop(id_column)
    empty = next((i for i, key in enumerate(keys) if key is None), None)
    if empty is not None:
        raise InputError(f"{path}: row {empty + 1} names no sample in column {id_column!r}")
    taken = list(attributes) or [name for name in columns if name != id_column]
    taken += [name for name in bins if name not in taken]
    if not taken:
        raise InputError(f"{path} has no column but {id_column!r}: expected attributes beside it")
    found = {name: coded(str(path), name, columns[name], bins.get(name)) for name in taken}
    named = [key for key in keys if key is not None]
    return GroupsTable(str(path), named, id_column.lower() == "row", found)


def _read(path: Path) -> Columns:
    if not path.is_file():
        raise InputError(f"{path} does not exist: expected a groups file, such as groups.csv")
    readers = {
        ".csv": _read_csv,
        ".tsv": _read_csv,
        ".txt": _read_csv,
        ".parquet": _read_parquet,
        ".jsonl": _read_json_lines,
        ".ndjson": _read_json_lines,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: expected a groups file of {', '.join(readers)}")
    columns = reader(path)
    if not columns or not next(iter(columns.values())):
        raise InputError(f"{path} has no rows")
    return columns


def _read_csv(path: Path) -> Columns:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {described(error)}") from error
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    names = [name.strip() for name in next(rows, [])]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has two columns {twice!r}: expected different names")
    columns: Columns = {name: [] for name in names}
    for number, row in enumerate(rows, 1):
        if not row:
            continue
        if len(row) != len(names):
            raise InputError(
                f"{path}: row {number} has {len(row)} fields, expected {len(names)} as in the "
                f"first line ({one_line(some(names), 80)})"
            )
        for name, value in zip(names, row, strict=True):
            columns[name].append(_text(value))
    return columns


def _read_parquet(path: Path) -> Columns:
    import_extra("pyarrow", "tables")
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        table = parquet.read_table(path)
    except (OSError, ValueError) as error:  # pyarrow's own errors are ValueErrors
        raise InputError(f"{path} is no readable Parquet file: {described(error)}") from error
    return {
        name: [_text(value) for value in table.column(name).to_pylist()]
        for name in table.column_names
    }


def _read_json_lines(path: Path) -> Columns:
    rows: list[dict[str, Any]] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read as UTF-8 text: {described(error)}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise InputError(
                f"{path}: line {number}: expected a JSON object, found {one_line(line, 40)}"
            )
        rows.append(found)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [_text(row.get(name)) for row in rows] for name in names}


def _text(value: Any) -> str | None:
    """A value as text; None for an empty one."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = str(value).strip()
    return text or None
