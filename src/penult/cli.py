"""The command line: a thin layer over the functions."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
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

from penult.analyze import Options, align_classes, analyze_features, analyze_network
from penult.collect import ImageSource, Pass, first_inputs
from penult.data import check_data, open_data
from penult.demo import demo as run_demo
from penult.errors import InputError
from penult.features import Features
from penult.influence import Top
from penult.models import load_model
from penult.network import find_head
from penult.run import Run
from penult.show import print_page, summary_page
from penult.tap import device_of
from penult.transform import Transform, assumed_for

app = typer.Typer(
    name="penult",
    help="Which few penultimate features decide each class of a trained image classifier.",
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
errors = Console(stderr=True, highlight=False)

AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON document to standard output, nothing else.")
]
Out = Annotated[Path, typer.Option(help="The run folder; an interrupted run goes on there.")]
Seed = Annotated[int, typer.Option(help="Seed of the random control.")]
Overwrite = Annotated[bool, typer.Option(help="Replace a run of something else in --out.")]
Score = Annotated[str, typer.Option(help="Influence score whose features are listed.")]
K = Annotated[int | None, typer.Option("-k", help="Features per class that are listed.")]


@app.command()
def demo(
    out: Out = Path("penult-demo"),
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Train a small network on handwritten digits and analyse it: offline, under a minute."""
    with _progress() as heard:
        run = run_demo(out, overwrite=overwrite, progress=heard)
    _print_run(run, as_json)


@app.command()
def analyze(
    model: Annotated[
        str,
        typer.Argument(
            help="file.py:factory, package.module:factory, torchvision:NAME, timm:NAME or hf:NAME; "
            "or a features file or folder, then without DATA."
        ),
    ],
    data: Annotated[
        str | None,
        typer.Argument(
            help="Folder or zip of class folders, `digits`, or file.py:function that returns a "
            "map-style data set of (image, label)."
        ),
    ] = None,
    *,
    out: Out,
    eval_: Annotated[
        str | None, typer.Option("--eval", help="Data on which accuracies are measured.")
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="Checkpoint file, or `random` for random weights.")
    ] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="key=value for the factory; repeatable.")
    ] = None,
    trust_checkpoint: Annotated[
        bool,
        typer.Option(help="Unpickle a checkpoint that holds more than tensors: runs its code."),
    ] = False,
    head: Annotated[
        str | None, typer.Option(help="Name of the final linear layer, where it is not found.")
    ] = None,
    labels: Annotated[
        str, typer.Option(help="`given`, or `predicted`: the network's own classes as labels.")
    ] = "given",
    class_names: Annotated[
        Path | None,
        typer.Option(help="Class names in the order of the logits: a JSON list or one per line."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="Side of the network's input.")] = None,
    resize: Annotated[
        int | None, typer.Option(help="Shorter side before the crop to --size; default: --size.")
    ] = None,
    mean: Annotated[
        str | None, typer.Option(help="Mean per channel in [0, 1]: R,G,B or one.")
    ] = None,
    std: Annotated[str | None, typer.Option(help="Standard deviation per channel.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images in one forward pass.")] = 256,
    workers: Annotated[
        int | None,
        typer.Option(help="Processes that decode images; default: 0 on the CPU, else up to 8."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="auto, cpu, cuda, cuda:1, …; auto takes CUDA where there is one.")
    ] = "auto",
    dtype: Annotated[
        str, typer.Option(help="float32, bfloat16 or float16, for the network.")
    ] = "float32",
    store: Annotated[str, typer.Option(help="float32 or float16, for the features.")] = "float32",
    frequency_top: Annotated[
        str | None,
        typer.Option(
            help="What a sample takes in the `frequency` score: a number of features or a fraction "
            "of its activation; default: as many as the subspace keeps."
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option(help="Stop at the first image that cannot be read.")
    ] = False,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Find the features that decide each class, in one pass over the data."""
    where = _device(device)
    options = Options(seed, _top(frequency_top), overwrite, str(where))
    if data is None:
        if not _is_features(model):
            raise InputError(f"DATA is missing: {model} is no features file or folder")
        held_out = Features.open(eval_) if eval_ is not None else None
        _print_run(analyze_features(Features.open(model), held_out, out, options), as_json)
        return
    if _is_features(data):
        raise InputError(f"features need no network: penult analyze {data} --out {out}")
    how = Pass(
        batch_size=batch_size,
        workers=_workers(workers, where),
        dtype=_dtype(dtype),
        store=_dtype(store),
        labels=labels,
        strict=strict,
    )
    names = _names(class_names)
    loaded = load_model(
        model,
        weights=weights if weights in (None, "random") else Path(weights),
        options=_pairs(set_ or []),
        trust_checkpoint=trust_checkpoint,
    )
    network = loaded.model.to(where)
    transform = _transform(loaded.transform, network, size, resize, mean, std)
    images = open_data(data, labelled=how.given)
    held_out_images = open_data(eval_, labelled=how.given) if eval_ is not None else None
    for part in (images, held_out_images):
        if part is not None:
            check_data(part, transform)
    example = first_inputs(ImageSource(images, transform, how), device_of(network))
    found = find_head(network, example, name=head)
    if not found.verified:
        warn(f"the logits are taken from {found.name}, whatever the network makes of them later")
    aligned = align_classes(found, images, held_out_images, names, loaded.class_names)
    with _progress() as heard:
        run = analyze_network(
            network,
            found,
            images,
            held_out_images,
            out,
            transform=transform,
            class_names=aligned,
            network={
                "spec": model,
                "weights": weights,
                "set": set_ or [],
                "fingerprint": loaded.fingerprint,
            },
            how=how,
            options=options,
            progress=heard,
        )
    _print_run(run, as_json)


@app.command()
def show(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    score: Score = "frequency",
    k: K = None,
    class_: Annotated[
        list[str] | None, typer.Option("--class", help="List this class; repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a run found."""
    _print_run(Run.open(run), as_json, score, k, class_ or [])


def main() -> None:
    """Run the command line; the user's mistakes end in one line and status 2."""
    usage = typer.BadParameter.__mro__[1]
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
        _fail(error.format_message())  # type: ignore[attr-defined]  # every usage error has it
    except typer.Exit as error:
        sys.exit(error.exit_code)


def warn(message: str) -> None:
    """One line on standard error."""
    errors.print(Text(f"penult: warning: {message}"), soft_wrap=True)


def _fail(message: str) -> None:
    line = " ".join(message.split())
    errors.print(Text(f"penult: error: {line}"), soft_wrap=True)
    sys.exit(2)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    warn(" ".join(str(message).split()))


def _print_run(
    run: Run, as_json: bool, score: str = "frequency", k: int | None = None, only: Any = ()
) -> None:
    summary = run.summary()
    if as_json:
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
    with Progress(*columns, console=errors, transient=False) as bars:

        def begin(name: str) -> Callable[[int, int], None]:
            task: list[Any] = []

            def heard(done: int, total: int) -> None:
                if not task:
                    task.append(bars.add_task(name, total=total))
                bars.update(task[0], completed=done)

            return heard

        yield begin


def _is_features(path: str) -> bool:
    return path.endswith(".safetensors") or (Path(path) / "index.json").is_file()


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"--device {name} cannot be used: {reason}") from error
    return device


def _workers(asked: int | None, device: torch.device) -> int:
    if asked is not None:
        return asked
    # On the CPU the network itself keeps all cores busy.
    return 0 if device.type == "cpu" else min(8, os.cpu_count() or 1)


def _dtype(name: str) -> torch.dtype:
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if name not in known:
        raise InputError(f"expected one of {', '.join(known)}, found {name!r}")
    return known[name]


def _top(text: str | None) -> Top | None:
    if text is None:
        return None
    try:
        return int(text) if text.isdecimal() else float(text)
    except ValueError:
        raise InputError(
            f"--frequency-top: expected a number of features or a fraction, found {text!r}"
        ) from None


def _pairs(texts: list[str]) -> dict[str, str]:
    for text in texts:
        if "=" not in text:
            raise InputError(f"--set: expected key=value, found {text!r}")
    return dict(text.split("=", 1) for text in texts)


def _names(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"--class-names {path} cannot be read: {error}") from error
    if text.lstrip().startswith("["):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"--class-names {path} is no JSON list: {error}") from error
        return [str(name) for name in found]
    return [line for line in text.splitlines() if line.strip()]


def _transform(
    known: Transform | None,
    network: torch.nn.Module,
    size: int | None,
    resize: int | None,
    mean: str | None,
    std: str | None,
) -> Transform:
    """What the network's library says, changed by the options; ImageNet's values without either."""
    transform = known
    if transform is None:
        transform = assumed_for(network)
        if mean is None:
            warn(
                "the network does not say how images are normalised: taking "
                f"mean {transform.mean} and std {transform.std} (--mean, --std)"
            )
    changes: dict[str, Any] = {}
    if resize is not None and size is None:
        raise InputError("--resize needs --size, the side of the crop after it")
    if size is not None:
        changes |= {"crop": size, "resize": resize or size}
    if (mean is None) != (std is None):
        raise InputError("--mean and --std go together")
    if mean is not None and std is not None:
        changes |= {"mean": _numbers("--mean", mean), "std": _numbers("--std", std)}
    return replace(transform, **changes)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{option}: expected numbers like 0.5,0.5,0.5, found {text!r}") from None
