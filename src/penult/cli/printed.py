"""What the command line prints of a run, and where a run may be written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Group
from rich.text import Text

from penult.cli.console import warn
from penult.cli.group_pages import groups_page
from penult.cli.output import print_json
from penult.cli.pages import print_page, summary_page, warnings_of
from penult.errors import InputError
from penult.measure.groups import groups_document
from penult.runs.fitted import left_out
from penult.runs.outputs import check_output_folder
from penult.runs.run import Run


def check_run_folder(out: Path) -> None:
    """Refuse a new run within a room of another, which may clear it."""
    if not (out / "run.json").exists():
        check_output_folder(out, "the run")


@contextmanager
def kept_when_interrupted(out: Path, as_json: bool) -> Iterator[None]:
    """Where an interrupt leaves a run that lacks no more than some heads, print what it has."""
    try:
        yield
    except KeyboardInterrupt:
        if (out / "run.json").is_file():
            with suppress(InputError):
                print_run(Run.open(out), as_json)
        raise


def print_run(
    run: Run, as_json: bool, score: str | None = None, k: int | None = None, only: Any = ()
) -> None:
    """Print a run's summary and its groups.

    Args:
        run: the run.
        as_json: as one JSON document, with the warnings on standard error.
        score, k: whose features are listed; by default what `summary_page` takes.
        only: classes that are listed; all if empty.
    """
    summary, by_group = run.summary(), groups_document(run)
    if lacking := left_out(run):
        warn(lacking)
    if as_json:
        for part, faults in summary["faults"].items():
            if faults["n_faults"]:
                path, reason = faults["named"][0]
                n = faults["n_faults"]
                warn(f"{n} samples of {part} left out, the first: {path}: {reason}")
        for text in warnings_of(summary):
            warn(text)
        by_group = {} if by_group is None else {"groups": by_group}
        print_json({**summary, **by_group})
        return
    fitted = {row["select"]: None for row in summary["path"]}
    kept = {select: _fitted(run, summary, select) for select in fitted}
    summary = {**summary, "influence": {**summary["influence"], **kept}}
    print_page(summary_page(summary, score=score, k=k, only=only))
    if by_group is not None:
        print_page(Group(Text(), groups_page(by_group)))
    print(f"\nRun folder: {run.folder}")


def _fitted(run: Run, summary: Mapping[str, Any], select: str) -> dict[str, Any]:
    """The fitted heads of a run, as the summary holds those by influence scores."""
    names = summary["class_names"]
    return {
        str(row["k"]): {
            "accuracy": row["accuracy"],
            "classes": {
                name: kept.tolist()
                for name, kept in zip(names, run.head(select, row["k"]).subspaces, strict=True)
            },
        }
        for row in summary["path"]
    }
