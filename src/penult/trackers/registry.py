"""Registry of the trackers that `penult log` hands a run to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from penult.errors import InputError
from penult.extras import import_extra
from penult.progress import Progress
from penult.runs.run import Run
from penult.trackers.record import Record
from penult.trackers.to_mlflow import to_mlflow
from penult.trackers.to_tensorboard import to_tensorboard
from penult.trackers.to_wandb import to_wandb

TRACKERS: dict[str, Callable[[Record, str | None, str | None], str]] = {
    "mlflow": to_mlflow,
    "wandb": to_wandb,
    "tensorboard": to_tensorboard,
}


def log_run(
    run: Run | str | Path,
    to: str,
    *,
    where: str | None = None,
    project: str | None = None,
    name: str | None = None,
    progress: Callable[[str], Progress] | None = None,
) -> str:
    """Hand the numbers, plots, tables and the page of a run to a tracker.

    Args:
        run: a finished run, or its folder; it stays as it is.
        to: "mlflow", "wandb" or "tensorboard".
        where: MLflow's tracking URI; the folder for TensorBoard, or for the local files of W&B.
        project: the experiment of MLflow, the project of W&B, a folder of TensorBoard.
        name: of the run there; by default that of the run folder.
        progress: called with the name of a phase.

    Returns:
        Where it is now, for people.

    Raises:
        InputError: another tracker, one that is not installed, or one that refuses.
    """
    if to not in TRACKERS:
        raise InputError(f"expected {', '.join(TRACKERS)}, found {to!r}")
    import_extra(to, to)  # before the work starts
    run = run if isinstance(run, Run) else Run.open(run)
    with TemporaryDirectory() as folder:
        record = Record.of(run, Path(folder), name, progress)
        if progress is not None:
            progress(f"handing over to {to}")
        return TRACKERS[to](record, where, project)
