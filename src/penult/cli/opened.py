"""A run that a command reads, with what must be said before any of its numbers."""

from __future__ import annotations

from pathlib import Path

from penult.cli.console import warn
from penult.heads.judge import OWN_LABELS
from penult.runs.run import Run


def open_run(folder: str | Path) -> Run:
    """Open a finished run; it is said on standard error if its labels are the network's own.

    Raises:
        InputError: see `Run.open`.
    """
    run = Run.open(folder)
    if run.own_labels:
        warn(OWN_LABELS)
    return run
