"""The command line: a thin layer over the functions."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group
from rich.text import Text

from penult.cli import options as given
from penult.cli.cluster import filler, place_of, with_address
from penult.cli.console import INTERRUPTED, errors, progress_bars, tell, warn
from penult.cli.diff import diff
from penult.cli.edit import edit, verdict
from penult.cli.export import export
from penult.cli.fit import fit
from penult.cli.group_pages import groups_page
from penult.cli.groups import GroupsOptions, groups, take_groups
from penult.cli.live import live
from penult.cli.log import log
from penult.cli.measure import measure
from penult.cli.mend import mend
from penult.cli.opened import open_run
from penult.cli.option_groups import ImageOptions, MovedOptions, NetworkOptions, PassOptions
from penult.cli.output import allow_any_character, print_json
from penult.cli.pages import print_page, summary_page, tuned_page, warnings_of
from penult.cli.pictures import explain, report
from penult.cli.shortcuts import shortcuts
from penult.cli.spread import spread
from penult.cli.subject import open_subject
from penult.cli.values import DTYPES, device_of, seconds_of, top_of, workers_of
from penult.data.augmentation import augmentations_of
from penult.demo import demo as run_demo
from penult.errors import InputError, NotWrittenError
from penult.explain.gallery import PictureOptions
from penult.features.features import Features
from penult.features.unlabelled import open_unlabelled
from penult.measure.groups import groups_document
from penult.network.link import require_softmax
from penult.report.csv_tables import TABLES, write_csv_tables
from penult.report.report import Report
from penult.runs.analyze import Options, analyze_features, analyze_network
from penult.runs.fitted import left_out
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
    _check_run_folder(out)
    with progress_bars() as heard:
        run = run_demo(out, seed=seed, overwrite=overwrite, progress=heard)
        page = Report.of(run, pictures=PictureOptions(progress=heard("images")))
        written = _report_kept(run, page)
    _print_run(run, as_json)
    if not as_json and written:
        print(f"Report: {run.report_file}")


@app.command()
@spread
def analyze(
    model: given.ModelSpec,
    data: given.DataSpec = None,
    *,
    out: given.Out,
    eval_: given.EvalSpec = None,
    also: given.Also = None,
    views: given.ViewsOf = 0,
    frequency_top: given.FrequencyTop = None,
    no_fit: given.NoFit = False,
    time_limit: given.TimeLimit = None,
    seed: given.Seed = 0,
    cluster: given.Cluster = None,
    exchange: given.Exchange = None,
    overwrite: given.Overwrite = False,
    as_json: given.AsJson = False,
    network: NetworkOptions,
    images: ImageOptions,
    passing: PassOptions,
    grouped: GroupsOptions,
) -> None:
    """Find the features that decide each class, in one pass over the data."""
    where, limit = device_of(passing.device), seconds_of(time_limit)
    # The sums are float64, which not every accelerator has.
    sums_on = str(where) if where.type == "cuda" else "cpu"
    options = Options(seed, top_of(frequency_top), overwrite, sums_on, not no_fit, limit, views)
    tables = grouped.read(eval_ is not None)
    _check_run_folder(out)
    if data is None or _is_features(data):
        if data is not None:
            raise InputError(f"features need no network: penult analyze {data} --out {out}")
        if not _is_features(model):
            raise InputError(f"DATA is missing: {model} is no features file or folder")
        reason = f"is for images, and {model} holds features"
        network.refuse(reason)
        images.refuse(reason)
        passing.refuse(reason, but=["device"])
        for given_, name in ((cluster, "--cluster"), (exchange, "--exchange")):
            if given_ is not None:
                raise InputError(f"{name} {reason}, which need no pass")
        if grouped.group_columns is not None:
            raise InputError(f"--group-columns {reason}: give --groups FILE")
        held_out_features = Features.open(eval_) if eval_ is not None else None
        with _kept_when_interrupted(out, as_json), progress_bars() as heard:
            features = Features.open(model)
            more = None if also is None else open_unlabelled(also, features)
            run = analyze_features(
                features, held_out_features, out, options, heard, tell, also=more
            )
        if tables:
            take_groups(run, tables)
        _print_run(run, as_json)
        return
    opens = partial(open_subject, model, data, eval_, network, images, passing, also)
    place = place_of(cluster, passing.device, exchange)
    subject = opens()
    tables += grouped.of_data(subject.images, subject.held_out)
    if tables:
        require_softmax(subject.head.link, "--groups")
    with (
        _kept_when_interrupted(out, as_json),
        progress_bars("opening the run") as heard,
        filler(place, opens, subject, heard) as fill,
    ):
        run = analyze_network(
            subject.network,
            subject.head,
            subject.images,
            subject.held_out,
            out,
            also=subject.also,
            transform=subject.transform,
            class_names=subject.class_names,
            network=subject.network_about,
            how=subject.how,
            options=options,
            progress=heard,
            say=tell,
            fill=fill,
        )
    if tables:
        take_groups(run, tables)
    _print_run(run, as_json)


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
    _print_run(opened, as_json, score, k, class_ or [])
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


def _check_run_folder(out: Path) -> None:
    """Refuse a new run within a room of another, which may clear it."""
    if not (out / "run.json").exists():
        check_output_folder(out, "the run")


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


@contextmanager
def _kept_when_interrupted(out: Path, as_json: bool) -> Iterator[None]:
    """Where an interrupt leaves a run that lacks no more than some heads, print what it has."""
    try:
        yield
    except KeyboardInterrupt:
        if (out / "run.json").is_file():
            with suppress(InputError):
                _print_run(Run.open(out), as_json)
        raise


def _fail(message: str) -> None:
    line = " ".join(message.split())
    errors.print(Text(f"penult: error: {line}"), soft_wrap=True)
    sys.exit(2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(" ".join(str(message).split()))


def _print_run(
    run: Run, as_json: bool, score: str | None = None, k: int | None = None, only: Any = ()
) -> None:
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


def _is_features(path: str) -> bool:
    return path.endswith(".safetensors") or (Path(path) / "index.json").is_file()
