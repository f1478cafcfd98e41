"""The command that hands a run to a tracker: `penult log`."""

from __future__ import annotations

from typing import Annotated

from penult.cli import options as given
from penult.cli.console import progress_bars
from penult.cli.opened import open_run
from penult.cli.output import print_json
from penult.cli.spread import option, spread
from penult.trackers.registry import TRACKERS, log_run

To = Annotated[str, option("Which tracker.", choices=tuple(TRACKERS))]
Where = Annotated[
    str | None,
    option(
        "MLflow: a server's address or a database, such as sqlite:///mlflow.db. TensorBoard: the "
        "folder of all runs. W&B: folder of the local files. By default what the tracker takes."
    ),
]
Project = Annotated[
    str | None,
    option("Experiment of MLflow, project of W&B, or a folder within TensorBoard's."),
]
Name = Annotated[str | None, option("What the run is called there; by default like its folder.")]


@spread
def log(
    run: given.RunFolder,
    to: To,
    where: Where = None,
    project: Project = None,
    name: Name = None,
    as_json: given.AsJson = False,
) -> None:
    """Hand a run's numbers, plots, tables and page to MLflow, Weights & Biases or TensorBoard."""
    opened = open_run(run)
    with progress_bars("opening the run") as heard:
        place = log_run(opened, to, where=where, project=project, name=name, progress=heard)
    if as_json:
        print_json({"format": "penult-log/1", "to": to, "where": place})
    else:
        print(f"Logged: {place}")
