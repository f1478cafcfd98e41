"""Read a groups file: CSV, Parquet or JSON lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from penult.data.tables import read_table, text_of
from penult.errors import InputError
from penult.features.groups import GroupsTable, coded
from penult.text import some

NAMING = ("row", "id", "sample", "image", "image_id", "path", "file", "filename", "file_name")


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
    table = read_table(path)
    columns = {name: [text_of(value) for value in table.column(name)] for name in table.names}
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
