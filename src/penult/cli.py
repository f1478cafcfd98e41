"""The command line: a thin layer over the functions."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
from penult.data import check_data, open_data
from penult.demo import demo as run_demo
from penult.errors import InputError
from penult.features import Features
from penult.models import load_model
from penult.network import find_head
from penult.run import Run
from penult.show import print_page, summary_page
from penult.source import ImageSource, Pass, first_inputs

app = typer.Typer(
    name="penult",
    help="Which few penultimate features decide each class of a trained image classifier.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False)


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
    seed: given.Seed = 0,
    overwrite: given.Overwrite = False,
    as_json: given.AsJson = False,
) -> None:
    """Find the features that decide each class, in one pass over the data."""
    where = given.device_of(device)
    # The sums are float64, which not every accelerator has.
    sums_on = str(where) if where.type == "cuda" else "cpu"
    options = Options(seed, given.top_of(frequency_top), overwrite, sums_on)
    if data is None or _is_features(data):
        _print_run(_analyze_features(model, data, eval_, out, options), as_json)
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
    example = first_inputs(ImageSource(images, transform, Pass(batch_size=4)), where)
    found = find_head(network, example, name=head)
    if not found.verified:
        _warn(f"the logits are taken from {found.name}, whatever the network makes of them later")
    aligned = align_classes(found, images, held_out, names, loaded.class_names)
    about = {"spec": model, "weights": weights, "set": set_ or []}
    with _progress() as heard:
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
def show(
    run: given.RunFolder,
    score: given.Score = "frequency",
    k: given.K = None,
    class_: given.Classes = None,
    as_json: given.AsJson = False,
) -> None:
    """Print what a run found."""
    _print_run(Run.open(run), as_json, score, k, class_ or [])


def main() -> None:
    """Run the command line; the user's mistakes end in one line and status 2."""
    usage: Any = typer.BadParameter.__mro__[1]  # UsageError, whichever click typer brings
    warnings.showwarning = _show_warning
    try:
        app(standalone_mode=False)
    except InputError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        errors.print("interrupted: the same command goes on where it stopped")
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
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


def _analyze_features(
    features: str, data: str | None, evaluation: str | None, out: Path, options: Options
) -> Run:
    if data is not None:
        raise InputError(f"features need no network: penult analyze {data} --out {out}")
    if not _is_features(features):
        raise InputError(f"DATA is missing: {features} is no features file or folder")
    held_out = Features.open(evaluation) if evaluation is not None else None
    return analyze_features(Features.open(features), held_out, out, options)


def _is_features(path: str) -> bool:
    return path.endswith(".safetensors") or (Path(path) / "index.json").is_file()
