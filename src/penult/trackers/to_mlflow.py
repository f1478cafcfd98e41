"""MLflow: a run as one of its runs."""

from __future__ import annotations

import os
import re
import time
from typing import Any

from penult.errors import InputError
from penult.extras import import_extra
from penult.text import described
from penult.trackers.record import Record

PROJECT = "penult"
MOST_METRICS = 900  # of one request, which may have 1,000
LONGEST = 240  # characters of a name, which may have 250
_REFUSED = re.compile(r"[^\w\-. :/]|(?<=/)(?=/)|\.\.")


def to_mlflow(record: Record, where: str | None, project: str | None) -> str:
    """Log a record as a run of MLflow: parameters, metrics, the page, plots and tables.

    The page is one file that loads no other, so that MLflow shows it among the artifacts.

    Args:
        record: of a run.
        where: tracking URI: a server or a database, before MLflow 3 a folder, too; MLflow's own
            setting if None.
        project: the experiment; `penult` if None.

    Returns:
        Where it is.

    Raises:
        InputError: MLflow is not installed, or its server does not answer or refuses.
    """
    # Its default waits for minutes before it says that no server answers.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    mlflow = import_extra("mlflow", "mlflow")
    try:
        return _log(mlflow, record, where, project or PROJECT)
    except (mlflow.exceptions.MlflowException, OSError, ImportError) as error:
        at = where or "the place that is set"
        raise InputError(f"MLflow at {at} does not take the run: {described(error)}") from error


def _log(mlflow: Any, record: Record, where: str | None, project: str) -> str:
    client = mlflow.MlflowClient(tracking_uri=where)
    experiment = client.get_experiment_by_name(project)
    number = client.create_experiment(project) if experiment is None else experiment.experiment_id
    run = client.create_run(number, run_name=record.name).info.run_id
    status = "FAILED"
    try:
        now = int(time.time() * 1000)
        metrics = [(name, value, 0) for name, value in record.numbers.items()]
        metrics += [(name, y, k) for name, points in record.by_k.items() for k, y in points]
        made = [
            mlflow.entities.Metric(metric_name(name), value, now, step)
            for name, value, step in metrics
        ]
        for start in range(0, len(made), MOST_METRICS):
            client.log_batch(run, metrics=made[start : start + MOST_METRICS])
        params = [mlflow.entities.Param(key, value) for key, value in record.parameters.items()]
        client.log_batch(run, params=params)
        client.set_tag(run, "mlflow.note.content", record.text)
        client.log_artifact(run, str(record.page))
        for folder, files in (("plots", record.plots), ("tables", record.tables)):
            for file in files:
                client.log_artifact(run, str(file), folder)
        status = "FINISHED"
    finally:
        client.set_terminated(run, status)
    return f"{where or mlflow.get_tracking_uri()}, experiment {project}, run {run}"


def metric_name(name: str) -> str:
    """A name that MLflow takes: letters, digits, `_`, `-`, `.`, `:`, `/` and spaces."""
    return _REFUSED.sub("_", name)[:LONGEST].strip("/") or "_"
