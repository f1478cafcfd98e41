"""Sample table: every sample of a comparison as a row, for FiftyOne, spreadsheets and notebooks."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from penult.diff.compare import TwoSides
from penult.diff.flips import SideReading
from penult.diff.pictures import Maps
from penult.diff.side import ROWS
from penult.extras import import_extra
from penult.storage import write_atomically

ENDINGS = (".csv", ".parquet")
STRONGEST = 3
SIDE_COLUMNS = ("class", "confidence", "evidence")
COLUMNS = (
    *("id", "old_id", "label", "flip", "moved_by"),
    *(f"{which}_{name}" for which in ("old", "new") for name in SIDE_COLUMNS),
    *("old_map", "new_map"),
)


def write_sample_table(path: Path, compared: TwoSides, maps: Maps | None = None) -> None:
    """Write a row for every sample that both sides have, as CSV or Parquet by the file's name.

    `id` is its name in the new run, `old_id` in the old one; `flip` is `negative` (right before,
    wrong now), `positive` or empty, and `moved_by` the features behind it. Of each side: the
    `class` it says, its `confidence` (0 to 1), and as `evidence` the three features that speak
    most for this class over the runner-up or against it, as a list of [feature, how much]. The
    maps are rows of numbers from -1 to 1; in CSV, lists are JSON.

    Args:
        path: ends in .csv or .parquet.
        compared: both sides.
        maps: heat maps of some samples.

    Raises:
        InputError: Parquet without pyarrow.
        NotWrittenError: it cannot be written.
    """
    rows = sample_rows(compared, maps or {})
    if path.suffix.lower() == ".parquet":
        pyarrow, parquet = (import_extra(name, "tables") for name in ("pyarrow", "pyarrow.parquet"))
        kept = [*rows]
        columns = {name: [row[name] for row in kept] for name in COLUMNS}
        types = _types(pyarrow)
        table = pyarrow.table({n: pyarrow.array(columns[n], types[n]) for n in COLUMNS})
        write_atomically(path, lambda file: parquet.write_table(table, file))
        return

    def write(file: Path) -> None:
        with file.open("w", encoding="utf-8", newline="") as out:
            writer = csv.writer(out)
            writer.writerow(COLUMNS)
            writer.writerows([_cell(row[name]) for name in COLUMNS] for row in rows)

    write_atomically(path, write)


def sample_rows(compared: TwoSides, maps: Maps) -> Iterator[dict[str, Any]]:
    """The rows of the table, in the order of the samples; a few thousand in memory at a time."""
    shared = compared.shared
    names = shared.class_names
    old_ids = compared.old.features.ids()
    flips = {
        (row["row_old"], row["row_new"]): row["features"]
        for kind in ("negative", "positive")
        for row in compared.document["flips"][kind]["samples"]
    }
    for start in range(0, shared.n_samples, ROWS):
        samples = torch.arange(start, min(start + ROWS, shared.n_samples))
        sides = {
            which: _side(reading, places, called[samples], samples)
            for which, reading, places, called in (
                ("old", compared.before, shared.old_places, shared.old),
                ("new", compared.after, shared.new_places, shared.new),
            )
        }
        for i, sample in enumerate(samples.tolist()):
            label, first, second = (int(x[sample]) for x in (shared.labels, shared.old, shared.new))
            key = int(shared.old_rows[sample]), int(shared.new_rows[sample])
            flip = "" if (first == label) == (second == label) else "negative"
            moved = [[f["old"], f["new"], f["after"] - f["before"]] for f in flips.get(key, [])]
            shown = maps.get(sample, (None, None))
            row: dict[str, Any] = {
                "id": shared.ids[sample],
                "old_id": old_ids[key[0]],
                "label": names[label],
                "flip": "positive" if flip and second == label else flip,
                "moved_by": moved,
                "old_map": shown[0],
                "new_map": shown[1],
            }
            for which, said in (("old", first), ("new", second)):
                confidence, evidence = sides[which][i]
                row |= {f"{which}_class": names[said], f"{which}_confidence": confidence}
                row[f"{which}_evidence"] = evidence
            yield row


def _side(
    reading: SideReading, places: torch.Tensor, called: torch.Tensor, samples: torch.Tensor
) -> list[tuple[float, list[list[float]]]]:
    """Of each sample the confidence in the class that a side says, and what speaks for it."""
    ((_, logits),) = reading.side.logits(reading.rows[samples])
    known = torch.full((len(samples), reading.weight.shape[0]), -torch.inf, dtype=torch.float64)
    known[:, places] = logits.double()
    confidence = known.softmax(1).gather(1, called[:, None])[:, 0]
    against = known.scatter(1, called[:, None], -torch.inf).argmax(1)
    parts = reading.margins(samples, called, against)
    order = parts.abs().topk(min(STRONGEST, parts.shape[1]), dim=1).indices
    values = parts.gather(1, order)
    return [
        (float(sure), [[j, x] for j, x in zip(js, xs, strict=True) if x])
        for sure, js, xs in zip(confidence, order.tolist(), values.tolist(), strict=True)
    ]


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return json.dumps(value, separators=(",", ":")) if isinstance(value, list) else value


def _types(pyarrow: Any) -> dict[str, Any]:
    pairs = pyarrow.list_(pyarrow.list_(pyarrow.float64()))
    lists = {name: pairs for name in COLUMNS if name.endswith(("_by", "_evidence", "_map"))}
    return {
        name: lists.get(
            name, pyarrow.float64() if name.endswith("_confidence") else pyarrow.string()
        )
        for name in COLUMNS
    }
