"""Weights & Biases: a run as one of its runs."""

from __future__ import annotations

import json
from typing import Any

from penult.errors import InputError
from penult.extras import import_extra
from penult.text import described
from penult.trackers.record import Record

PROJECT = "penult"
MOST_BYTES = 1_500_000  # of a table's JSON: larger ones fail
COLUMNS = ("class", "n", "accuracy", "low", "high")


def to_wandb(record: Record, where: str | None, project: str | None) -> str:
    """Log a record as a run of Weights & Biases; with WANDB_MODE=offline into a folder.

    The page is shown as HTML, which may load no other file; it is also kept with the tables as an
    artifact. A table of very many classes is cut, because W&B refuses large ones.

    Args:
        record: of a run.
        where: folder of the local files; W&B's own setting if None.
        project: `penult` if None.

    Returns:
        Where it is.

    Raises:
        InputError: W&B is not installed, or refuses, as it does without a key.
    """
    wandb = import_extra("wandb", "wandb")
    try:
        run = wandb.init(
            project=project or PROJECT,
            name=record.name,
            dir=where,
            config=record.parameters,
            notes=record.text,
            settings=wandb.Settings(silent=True, console="off"),
        )
        with run:
            _log(wandb, run, record)
            return run.url or f"{run.dir} (wandb sync sends it)"
    except (wandb.errors.Error, OSError) as error:
        raise InputError(
            f"Weights & Biases does not take the run: {described(error)}; WANDB_MODE=offline "
            "keeps it in a folder"
        ) from error


def _log(wandb: Any, run: Any, record: Record) -> None:
    run.define_metric("k")
    run.define_metric("sparse/*", step_metric="k")
    ks = sorted({k for points in record.by_k.values() for k, _ in points})
    by_k = {name: dict(points) for name, points in record.by_k.items()}
    for k in ks:
        run.log({"k": k, **{name: points[k] for name, points in by_k.items() if k in points}})
    shown: dict[str, Any] = {plot.stem: wandb.Image(str(plot)) for plot in record.plots}
    rows = fitting([[row[key] for key in COLUMNS] for row in record.classes])
    shown["classes"] = wandb.Table(columns=[*COLUMNS], data=rows)
    shown["report"] = wandb.Html(record.page.read_text(encoding="utf-8"), inject=False)
    run.log(shown)
    run.summary.update(record.numbers)
    kept = wandb.Artifact("report", type="penult")
    for file in (record.page, *record.tables):
        kept.add_file(str(file))
    run.log_artifact(kept)


def fitting(rows: list[list[Any]]) -> list[list[Any]]:
    """The first rows whose JSON is no longer than what W&B takes."""
    size, kept = 0, []
    for row in rows:
        size += len(json.dumps(row)) + 2
        if size > MOST_BYTES:
            break
        kept.append(row)
    return kept
