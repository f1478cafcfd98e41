"""Tables in text files: CSV, TSV and JSON lines."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from penult.errors import InputError
from penult.text import described, one_line, some

MOST_TEXT = (1 << 31) - 1  # bytes of a table that is read as text
_DELIMITERS = ",;\t|"
_SAID = "sep="  # how Excel says the delimiter, in a line of its own above the names


def csv_columns(path: Path) -> dict[str, list[str | None]]:
    """The columns of a file with commas, semicolons, tabs or bars, its names in the first line.

    Raises:
        InputError: it cannot be read, a quoted text has no end, rows do not fit the names.
    """
    text = _text(path)
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    said = first.strip().strip('"')
    if said.startswith(_SAID) and len(said) == len(_SAID) + 1:
        delimiter, text = said[-1], text.partition("\n")[2]
    with _long_fields():
        rows = csv.reader(
            io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
        )
        at = 1
        try:
            names = [name.strip() for name in next(rows, [])]
            columns = _empty_columns(path, names)
            at = rows.line_num + 1
            for number, row in enumerate(rows, 1):
                at = rows.line_num + 1
                if row:
                    _add(path, columns, row, number)
        except csv.Error as error:
            why = "a quoted text has no end" if "end of data" in str(error) else str(error)
            raise InputError(f"{path}: line {at} is damaged: {why}") from None
    return columns


def json_columns(path: Path) -> dict[str, list[Any]]:
    """The columns of a file with a JSON object in each line; None where a line lacks one.

    Raises:
        InputError: it cannot be read, or a line is none.
    """
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise InputError(
                f"{path}: line {number}: expected a JSON object, found {one_line(line, 40)}"
            )
        rows.append(found)
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _empty_columns(path: Path, names: list[str]) -> dict[str, list[str | None]]:
    require_different(path, names)
    return {name: [] for name in names}


def require_different(path: Path, names: list[str]) -> None:
    """Refuse two columns of one name."""
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has two columns {twice!r}: expected different names")


def _add(path: Path, columns: dict[str, list[str | None]], row: list[str], number: int) -> None:
    if len(row) != len(columns):
        raise InputError(
            f"{path}: row {number} has {len(row)} fields, expected {len(columns)} as in the "
            f"first line ({one_line(some(list(columns)), 80)})"
        )
    for values, value in zip(columns.values(), row, strict=True):
        values.append(value.strip() or None)


@contextmanager
def _long_fields() -> Iterator[None]:
    """Let a field be as long as the file: a document, or an image written as text."""
    before = csv.field_size_limit(MOST_TEXT)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MOST_TEXT:
            raise InputError(f"{path} has more than 2 GiB of text: write it as Parquet")
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {described(error)}") from error
    # Excel writes "Unicode text" as UTF-16.
    encoding = "utf-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        line = 1 + raw.count(b"\n", 0, error.start)
        raise InputError(
            f"{path} is no text in UTF-8 or UTF-16 (line {line}): save it as UTF-8"
        ) from None
