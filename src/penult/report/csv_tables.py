"""What a run found as CSV tables, for spreadsheets and other programs."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from penult.edit.effects import said
from penult.errors import InputError
from penult.explain.choice import choose_head
from penult.features.shards import Block
from penult.heads.sparse_head import SparseHead
from penult.intervals import accuracy_interval
from penult.network.head import Head
from penult.runs.run import Run
from penult.storage import read_json, write_atomically

PREDICTIONS = (
    "image",
    "label",
    "network",
    "network_probability",
    "network_right",
    "sparse",
    "sparse_probability",
    "sparse_right",
)
TABLES = ("predictions.csv", "mistakes.csv", "classes.csv", "measures.csv")
CLASSES = ("class", "n_analysed", "n_judged", "n_right", "accuracy", "low", "high")

Row = Sequence[object]


def write_csv_tables(
    run: Run, folder: Path, *, k: int | None = None, select: str | None = None
) -> list[Path]:
    """Write what a run found as CSV files, in UTF-8 with a header line each.

    `predictions.csv` has a row for each image of the evaluation data, of the analysed data where
    the run has no other: its label, what the network and a sparse head say of it, with which
    probability, and whether they are right (1 or 0); of multi-label data a row for each image and
    class, whose label and calls are the class, or `not` and its name. `mistakes.csv` holds those
    rows in which one of the two is wrong. `classes.csv` has the network's accuracy in each class
    with its 95 % interval, `measures.csv` every number of `penult measure` if that was run.

    Args:
        run: a finished one.
        folder: made where absent; files of these names are replaced.
        k, select: the sparse head, as for `penult.explain.choice.choose_head`.

    Returns:
        The files that were written.

    Raises:
        InputError: the run holds no such head, or `folder` is a file.
        NotWrittenError: the folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file: expected a folder for the tables")
    rows = list(_predictions(run, k, select))
    right = (PREDICTIONS.index("network_right"), PREDICTIONS.index("sparse_right"))
    wrong = [row for row in rows if not all(row[column] for column in right)]
    tables: dict[str, tuple[Row, Iterable[Row]]] = {
        "predictions.csv": (PREDICTIONS, rows),
        "mistakes.csv": (PREDICTIONS, wrong),
        "classes.csv": (CLASSES, _classes(run.summary())),
    }
    if run.measures_file.is_file():
        measures = ("measure", "value"), _numbers(read_json(run.measures_file))
        tables["measures.csv"] = measures
    for name, (header, lines) in tables.items():
        _write(folder / name, header, lines)
    return [folder / name for name in tables]


def _predictions(run: Run, k: int | None, select: str | None) -> Iterator[Row]:
    sparse = choose_head(run, k, select).head
    features = run.evaluation()
    dense, names = features.require_head(), features.names()
    for block in features.blocks():
        if features.multi_label:
            yield from _decisions(block, dense, sparse, names)
            continue
        logits, kept = dense(block.features), sparse(block.features)
        # What the network itself said, where it was recorded: rounding may decide between classes.
        called, kept_called = block.dense_classes(dense), kept.argmax(1)
        chances = torch.softmax(logits.double(), 1).gather(1, called[:, None])[:, 0]
        kept_chances = torch.softmax(kept.double(), 1).amax(1)
        columns = (
            block.ids,
            [names[c] for c in block.labels],
            [names[c] for c in called],
            [f"{p:.6f}" for p in chances.tolist()],
            (called == block.labels).int().tolist(),
            [names[c] for c in kept_called],
            [f"{p:.6f}" for p in kept_chances.tolist()],
            (kept_called == block.labels).int().tolist(),
        )
        yield from zip(*columns, strict=True)


def _decisions(
    block: Block, dense: Head, sparse: SparseHead, names: Sequence[str]
) -> Iterator[Row]:
    """A row for each sample and class of multi-label data."""
    right = block.labels.tolist()
    calls = [block.dense_classes(dense).tolist(), (sparse(block.features) > 0).tolist()]
    chances = [head(block.features).double().sigmoid().tolist() for head in (dense, sparse)]
    for i, sample in enumerate(block.ids):
        for c, name in enumerate(names):
            row: list[object] = [sample, said(name, right[i][c])]
            for call, chance in zip(calls, chances, strict=True):
                given = call[i][c]
                likely = chance[i][c] if given else 1 - chance[i][c]
                row += [said(name, given), f"{likely:.6f}", int(given == right[i][c])]
            yield row


def _classes(summary: Mapping[str, Any]) -> Iterator[Row]:
    """A row for each class, those with images first, as everywhere."""
    dense, analysed = summary["dense"], summary["class_counts"]
    order = sorted(
        range(summary["n_classes"]), key=lambda c: not (analysed[c] or dense["n_samples"][c])
    )
    for c in order:
        n, n_right = dense["n_samples"][c], dense["n_right"][c]
        shares = (n_right / n, *accuracy_interval(n_right, n)) if n else ("", "", "")
        yield (summary["class_names"][c], analysed[c], n, n_right, *shares)


def _numbers(document: Any, path: str = "") -> Iterator[Row]:
    """Every number and text of a document, called by the names on the way to it."""
    if isinstance(document, Mapping):
        items: Iterable[tuple[object, Any]] = document.items()
    elif isinstance(document, list):
        items = enumerate(document)
    else:
        yield path, "" if document is None else document
        return
    for name, value in items:
        yield from _numbers(value, f"{path}.{name}" if path else str(name))


def _harmless(value: object) -> object:
    """A text that a spreadsheet would compute, with an apostrophe before it; else as it is."""
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def _write(path: Path, header: Row, rows: Iterable[Row]) -> None:
    def write(made: Path) -> None:
        with made.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(header)
            writer.writerows([_harmless(value) for value in row] for row in rows)

    write_atomically(path, write)
