"""The command line: a thin layer over the functions."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from penult import arguments as given
from penult.analyze import Options, align_classes, analyze_features, analyze_network
from penult.augment import augmentations_of
from penult.collect import usable_head
from penult.data import check_data, open_data
from penult.demo import demo as run_demo
from penult.errors import InputError
from penult.features import Features
from penult.measure import FRACTIONS, Settings, compare_runs, measure_run
from penult.measure.plots import plot_comparison, plot_measures, require_plots
from penult.measure.tables import comparison_page, measures_page
from penult.models import load_model
from penult.path import Plan, fit_path
from penult.reopen import Sources
from penult.run import Run
from penult.show import path_page, print_page, summary_page
from penult.source import ImageSource, Pass
from penult.training import Recipe
from penult.tune import tune as run_tune
from penult.tuned import tuned_page

INTERRUPTED = 130
FEATURES_OPTIONS = (
    "out",
    "eval_",
    "device",
    "frequency_top",
    "no_fit",
    "seed",
    "overwrite",
    "as_json",
)

app = typer.Typer(
    name="penult",
    help="Which few penultimate features decide each class of a trained image classifier.",
    add_completion=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False)


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
def demo(
    out: given.Out = Path("penult-demo"),
    overwrite: given.Overwrite = False,
    as_json: given.AsJson = False,
) -> None:
    """Train a small network on handwritten digits and analyse it: offline, under a minute."""
    with _progress() as heard:
        run = run_demo(out, overwrite=overwrite, progress=heard)
    _print_run(run, as_json)


@app.command()
def analyze(
    model: given.ModelSpec,
    data: given.DataSpec = None,
    *,
    out: given.Out,
    eval_: given.EvalSpec = None,
    weights: given.Weights = None,
    set_: given.Settings = None,
    trust_checkpoint: given.TrustCheckpoint = False,
    head: given.HeadName = None,
    labels: given.Labels = "given",
    class_names: given.ClassNames = None,
    size: given.Size = None,
    resize: given.Resize = None,
    interpolation: given.Interpolation = None,
    mean: given.Mean = None,
    std: given.Std = None,
    batch_size: given.BatchSize = 256,
    workers: given.Workers = None,
    device: given.Device = "auto",
    dtype: given.Dtype = "float32",
    store: given.Store = "float32",
    frequency_top: given.FrequencyTop = None,
    strict: given.Strict = False,
    no_fit: given.NoFit = False,
    seed: given.Seed = 0,
    overwrite: given.Overwrite = False,
    as_json: given.AsJson = False,
    context: typer.Context,
) -> None:
    """Find the features that decide each class, in one pass over the data."""
    where = given.device_of(device)
    # The sums are float64, which not every accelerator has.
    sums_on = str(where) if where.type == "cuda" else "cpu"
    options = Options(seed, given.top_of(frequency_top), overwrite, sums_on, not no_fit)
    if data is None or _is_features(data):
        if data is not None:
            raise InputError(f"features need no network: penult analyze {data} --out {out}")
        if not _is_features(model):
            raise InputError(f"DATA is missing: {model} is no features file or folder")
        _require_defaults(context, model)
        held_out_features = Features.open(eval_) if eval_ is not None else None
        run = analyze_features(Features.open(model), held_out_features, out, options)
        _print_run(run, as_json)
        return
    how = Pass(
        batch_size,
        given.workers_of(workers, where),
        given.dtype_of(dtype),
        given.dtype_of(store),
        labels,
        strict,
    )
    names = given.names_of(class_names)
    # What a network or a library prints is no part of what is asked for.
    with redirect_stdout(sys.stderr), _progress() as heard:
        loaded = load_model(
            model,
            weights=weights,
            options=given.pairs_of(set_ or []),
            trust_checkpoint=trust_checkpoint,
        )
        transform = given.transform_of(loaded, size, resize, mean, std, interpolation)
        images = open_data(data, labelled=how.given)
        held_out = open_data(eval_, labelled=how.given) if eval_ is not None else None
        for part in (images, held_out):
            if part is not None:
                check_data(part, transform)
        network = loaded.model.to(where)
        examples = ImageSource(images, transform, Pass(batch_size=4))
        found = usable_head(network, examples, head)
        if not found.verified:
            _warn(f"the logits are taken from {found.name}, whatever becomes of them later")
        aligned = align_classes(found, images, held_out, names, loaded.class_names)
        about = {"spec": model, "weights": weights, "set": set_ or []}
        run = analyze_network(
            network,
            found,
            images,
            held_out,
            out,
            transform=transform,
            class_names=aligned,
            network={**about, "fingerprint": loaded.fingerprint},
            how=how,
            options=options,
            progress=heard,
        )
    _print_run(run, as_json)


@app.command()
def fit(
    features: given.FeaturesPath,
    *,
    out: given.Folder,
    eval_: given.EvalFeatures = None,
    k: given.Sizes = "1,2,3,5,8,10,15,20",
    select: given.Selection = "curvature",
    refit: given.Refit = "softmax",
    labels: given.FitLabels = False,
    max_features: given.MaxFeatures = None,
    tolerance: given.Tolerance = None,
    seed: given.Seed = 0,
    as_json: given.AsJson = False,
) -> None:
    """Fit sparse heads from few features per class to many, and pick one."""
    plan = Plan(given.sizes_of(k), select, refit, labels, seed, max_features)
    found = Features.open(features)
    held_out = Features.open(eval_) if eval_ is not None else None
    with _progress() as heard:
        path = fit_path(found, held_out, plan, heard("heads"))
    document = path.document()
    if tolerance is not None:
        document["pick"] = path.pick(tolerance).document(tolerance)
    path.save(out)
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    print_page(path_page(document))
    print(f"\nHeads: {out / 'heads'}")


@app.command()
def show(
    run: given.RunFolder,
    score: given.Score = "frequency",
    k: given.K = None,
    class_: given.Classes = None,
    as_json: given.AsJson = False,
) -> None:
    """Print what a run found."""
    _print_run(Run.open(run), as_json, score, k, class_ or [])


@app.command()
def measure(
    runs: given.MeasuredRuns,
    compare: given.Compare = False,
    fraction: given.Fractions = None,
    k: given.SetSize = 5,
    tolerance: given.Lost = 0.005,
    seed: given.MeasureSeed = 0,
    plots: given.Plots = None,
    as_json: given.AsJson = False,
) -> None:
    """Measure what the paper claims: selectivity, overlap, dimension, essentiality and so on."""
    fractions = tuple(sorted(set(fraction))) if fraction else FRACTIONS
    settings = Settings(fractions, k, tolerance, seed)
    if not compare and len(runs) > 1:
        raise InputError(f"{len(runs)} runs: expected one, or --compare to line up several")
    if plots is not None:
        require_plots()
    found = [Run.open(run) for run in runs]
    with _progress() as heard:
        if compare:
            document = compare_runs(found, settings, heard("runs"))
        else:
            document = measure_run(found[0], settings, heard("measures"))
    if plots is not None:
        (plot_comparison if compare else plot_measures)(document, plots)
    if as_json:
        print(json.dumps(document, ensure_ascii=False, indent=2))
        return
    print_page(comparison_page(document) if compare else measures_page(document))
    if plots is not None:
        print(f"\nPlots: {plots}")


@app.command()
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
    device: given.Device = "auto",
    workers: given.Workers = None,
    data: given.MovedData = None,
    eval_: given.MovedEval = None,
    weights: given.MovedWeights = None,
    trust_checkpoint: given.TrustCheckpoint = False,
    seed: given.TuneSeed = 0,
    overwrite: given.ReplaceTuned = False,
    as_json: given.AsJson = False,
) -> None:
    """Train the network through one of the run's sparse heads, to repair what it lost."""
    where = given.device_of(device)
    recipe = Recipe(
        epochs,
        batch_size,
        rate,
        loss=loss,
        augment=augmentations_of(augment),
        dtype=given.dtype_of(dtype),
        workers=given.workers_of(workers, where),
        seed=seed,
    )
    with redirect_stdout(sys.stderr), _progress() as heard:
        tuned = run_tune(
            run,
            k,
            select=select,
            head_only=head_only,
            recipe=recipe,
            sources=Sources(data, eval_, weights, trust_checkpoint),
            device=where,
            overwrite=overwrite,
            progress=heard,
        )
    if as_json:
        print(json.dumps(tuned.document, ensure_ascii=False, indent=2))
        return
    print_page(tuned_page(tuned.document))
    print(f"\nTuned head: {tuned.folder}")


def main() -> None:
    """Run the command line; the user's mistakes end in one line and status 2."""
    usage: Any = typer.BadParameter.__mro__[1]  # UsageError, whichever click typer brings
    warnings.showwarning = _show_warning
    try:
        status = app(standalone_mode=False)
        if status == INTERRUPTED:
            raise KeyboardInterrupt
        sys.exit(status)
    except InputError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        errors.print("interrupted: the same command goes on where it stopped")
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


def _warn(message: str) -> None:
    """One line on standard error."""
    errors.print(Text(f"penult: warning: {message}"), soft_wrap=True)


def _fail(message: str) -> None:
    line = " ".join(message.split())
    errors.print(Text(f"penult: error: {line}"), soft_wrap=True)
    sys.exit(2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    _warn(" ".join(str(message).split()))


def _print_run(
    run: Run, as_json: bool, score: str = "frequency", k: int | None = None, only: Any = ()
) -> None:
    summary = run.summary()
    if as_json:
        for part, faults in summary["faults"].items():
            if faults["n_faults"]:
                path, reason = faults["named"][0]
                n = faults["n_faults"]
                _warn(f"{n} images of {part} left out, the first: {path}: {reason}")
        print(json.dumps(summary, ensure_ascii=False, indent=2))
        return
    if k is None:
        sizes = [int(size) for size in summary["influence"]["frequency"]]
        k = max(size for size in sizes if size <= 5)
    print_page(summary_page(summary, score=score, k=k, only=only))
    print(f"\nRun folder: {run.folder}")


class _Rate(ProgressColumn):
    """Samples per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} samples/s" if task.speed else "", style="cyan")


@contextmanager
def _progress() -> Iterator[Callable[[str], Callable[[int, int], None]]]:
    """Progress bars on standard error, one for each name asked for."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bars = Progress(*columns, console=errors)

    def begin(name: str) -> Callable[[int, int], None]:
        task: list[Any] = []

        def heard(done: int, total: int) -> None:
            if not task:
                bars.start()
                task.append(bars.add_task(name, total=total, completed=done))
            bars.update(task[0], completed=done)

        return heard

    try:
        yield begin
    finally:
        if bars.tasks:
            bars.stop()


def _require_defaults(context: typer.Context, features: str) -> None:
    """Refuse options that say how images are read: features are there already."""
    for name in context.params:
        source = context.get_parameter_source(name)
        given_one = source is not None and source.name == "COMMANDLINE"
        if given_one and name not in ("model", "data", *FEATURES_OPTIONS):
            option = name.strip("_").replace("_", "-")
            raise InputError(f"--{option} is for images, and {features} holds features")


def _is_features(path: str) -> bool:
    return path.endswith(".safetensors") or (Path(path) / "index.json").is_file()
