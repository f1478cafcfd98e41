"""The command line: a thin layer over the functions."""

from __future__ import annotations

import os
import sys
import warnings
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from penult.cli import options as given
from penult.cli.analyze import analyze
from penult.cli.cluster import with_address
from penult.cli.console import INTERRUPTED, errors, progress_bars, warn
from penult.cli.diff import diff
from penult.cli.edit import edit, verdict
from penult.cli.export import export
from penult.cli.fit import fit
from penult.cli.groups import groups
from penult.cli.live import live
from penult.cli.log import log
from penult.cli.measure import measure
from penult.cli.mend import mend
from penult.cli.opened import open_run
from penult.cli.option_groups import MovedOptions
from penult.cli.output import allow_any_character, print_json
from penult.cli.pages import print_page, tuned_page
from penult.cli.pictures import explain, report
from penult.cli.printed import check_run_folder, print_run
from penult.cli.shortcuts import shortcuts
from penult.cli.spread import spread
from penult.cli.values import DTYPES, workers_of
from penult.data.augmentation import augmentations_of
from penult.demo import demo as run_demo
from penult.errors import InputError, NotWrittenError
from penult.explain.gallery import PictureOptions
from penult.report.csv_tables import TABLES, write_csv_tables
from penult.report.report import Report
from penult.runs.outputs import check_output_folder
from penult.runs.run import Run
from penult.runs.tune.training import TrainingPlan
from penult.runs.tune.tune import tune as run_tune

RESUMES = "repeat the command to resume it where it stopped"
# What an interrupted command leaves behind; nothing where it is not named.
AFTER_INTERRUPT = {
    "demo": RESUMES,
    "analyze": RESUMES,
    "tune": RESUMES,
    "report": "the run has all that it had before; repeat the command",
    "edit": "the run is as it was",
    "groups": "repeat the command, so that accuracies are measured by the groups that the run has",
    "verdict": "the run is as it was",
    "export": "nothing was written; repeat the command",
    "mend": "the run is as it was; repeat the command",
    "log": "the tracker may have a part of the run, marked as failed; repeat the command",
    "measure": "repeat the command; layers that were collected in --out are kept",
}

app = typer.Typer(
    name="penult",
    help="Which few penultimate features decide each class of a trained image classifier.",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _common(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True)
    ] = False,
) -> None:
    if version:
        print(f"penult {package_version('penult')}")
        raise typer.Exit


@app.command()
@spread
def demo(
    out: given.Out = Path("penult-demo"),
    seed: given.TrainSeed = 0,
    overwrite: given.Overwrite = False,
    as_json: given.AsJson = False,
) -> None:
    """Train a small network on handwritten digits, analyse it and report: offline, in a minute."""
    check_run_folder(out)
    with progress_bars() as heard:
        run = run_demo(out, seed=seed, overwrite=overwrite, progress=heard)
        page = Report.of(run, pictures=PictureOptions(progress=heard("images")))
        written = _report_kept(run, page)
    print_run(run, as_json)
    if not as_json and written:
        print(f"Report: {run.report_file}")


app.command()(analyze)


@app.command()
@spread
def show(
    run: given.RunFolder,
    score: given.Score = None,
    k: given.K = None,
    class_: given.Classes = None,
    csv: given.CsvFolder = None,
    as_json: given.AsJson = False,
) -> None:
    """Print what a run found."""
    opened = Run.open(run)
    if csv is not None:
        check_output_folder(csv, "the tables", opened, TABLES)
        with progress_bars("writing tables"):
            write_csv_tables(opened, csv)
    print_run(opened, as_json, score, k, class_ or [])
    if csv is not None and not as_json:
        print(f"Tables: {csv}")


@app.command()
@spread
def tune(
    run: given.RunFolder,
    k: given.HeadSize,
    *,
    select: given.Select = None,
    head_only: given.HeadOnly = False,
    epochs: given.Epochs = None,
    batch_size: given.StepSize = 128,
    rate: given.Rate = None,
    loss: given.Loss = "distill",
    augment: given.Augment = "auto",
    dtype: given.TrainDtype = "float32",
    workers: given.Workers = None,
    seed: given.TuneSeed = 0,
    overwrite: given.ReplaceTuned = False,
    as_json: given.AsJson = False,
    moved: MovedOptions,
) -> None:
    """Train the network through one of the run's sparse heads, to repair what it lost."""
    where = moved.where()
    recipe = TrainingPlan(
        epochs,
        batch_size,
        rate,
        loss=loss,
        augment=augmentations_of(augment),
        dtype=DTYPES[dtype],
        workers=workers_of(workers, where),
        seed=seed,
    )
    with progress_bars("opening the run") as heard:
        tuned = run_tune(
            run,
            k,
            select=select,
            head_only=head_only,
            recipe=recipe,
            sources=moved.sources(),
            device=where,
            overwrite=overwrite,
            progress=heard,
        )
    open_run(run)
    if as_json:
        print_json(tuned.document)
        return
    print_page(tuned_page(tuned.document))
    print(f"\nTuned head: {tuned.folder}")


app.command()(fit)
app.command()(groups)
app.command()(edit)
app.command()(verdict)
app.command()(shortcuts)
app.command()(mend)
app.command()(measure)
app.command()(diff)
app.command()(log)
app.command()(report)
app.command()(explain)
app.command()(export)
app.command("app")(live)


def main() -> None:
    """Run the command line; the user's mistakes end in one line and status 2."""
    usage: Any = typer.BadParameter.__mro__[1]  # UsageError, whichever click typer brings
    warnings.showwarning = _show_warning
    allow_any_character()
    try:
        status = app(with_address(sys.argv[1:]), standalone_mode=False)
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(status)
    except InputError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        after = AFTER_INTERRUPT.get(" ".join(sys.argv[1:2]), "nothing was written")
        errors.print(f"penult: interrupted: {after}", soft_wrap=True)
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # The reader has gone; the interpreter would complain of it once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        _fail(f"{error.strerror}: {error.filename or 'standard output cannot be written'}")
    except usage as error:
        _fail(error.format_message())
    except typer.Exit as error:
        sys.exit(error.exit_code)


def _report_kept(run: Run, page: Report) -> bool:
    """Write the report into its run, if that can be written."""
    try:
        with run.writing():
            page.save(run.report_file)
    except NotWrittenError as error:
        warn(
            f"the report is not kept in the run: {error}; penult report {run.folder} --out PAGE "
            "writes it elsewhere"
        )
        return False
    return True


def _fail(message: str) -> None:
    line = " ".join(message.split())
    errors.print(Text(f"penult: error: {line}"), soft_wrap=True)
    sys.exit(2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(" ".join(str(message).split()))
