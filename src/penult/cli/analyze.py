"""The command that makes a run: `penult analyze`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from penult.cli import options as given
from penult.cli.cluster import filler, place_of
from penult.cli.console import progress_bars, tell
from penult.cli.groups import GroupsOptions, take_groups
from penult.cli.option_groups import ImageOptions, NetworkOptions, PassOptions
from penult.cli.printed import check_run_folder, kept_when_interrupted, print_run
from penult.cli.spread import spread
from penult.cli.subject import Subject, open_subject
from penult.cli.values import device_of, seconds_of, top_of
from penult.cluster.session import Place
from penult.errors import InputError
from penult.features.features import Features
from penult.features.unlabelled import open_unlabelled
from penult.network.link import require_softmax
from penult.runs.analyze import Options, analyze_features, analyze_network
from penult.runs.run import Run


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
    check_run_folder(out)
    if data is None or _is_features(data):
        reason = _why_no_pass(model, data, out)
        for group in (network, images):
            group.refuse(reason)
        passing.refuse(reason, but=["device"])
        for given_, name in ((cluster, "--cluster"), (exchange, "--exchange")):
            if given_ is not None:
                raise InputError(f"{name} {reason}, which need no pass")
        if grouped.group_columns is not None:
            raise InputError(f"--group-columns {reason}: give --groups FILE")
        with kept_when_interrupted(out, as_json):
            run = _of_features(model, eval_, also, out, options)
    else:
        place = place_of(cluster, passing.device, exchange)
        opens = partial(open_subject, model, data, eval_, network, images, passing, also)
        subject = opens()
        tables += grouped.of_data(subject.images, subject.held_out)
        if tables:
            require_softmax(subject.head.link, "--groups")
        with kept_when_interrupted(out, as_json):
            run = _of_network(subject, opens, place, out, options)
    if tables:
        take_groups(run, tables)
    print_run(run, as_json)


def _why_no_pass(model: str, data: str | None, out: Path) -> str:
    """Why options of images, networks and passes are refused, where features are analysed."""
    if data is not None:
        raise InputError(f"features need no network: penult analyze {data} --out {out}")
    if not _is_features(model):
        raise InputError(f"DATA is missing: {model} is no features file or folder")
    return f"is for images, and {model} holds features"


def _of_features(
    model: str, eval_: str | None, also: str | None, out: Path, options: Options
) -> Run:
    held_out = Features.open(eval_) if eval_ is not None else None
    with progress_bars() as heard:
        features = Features.open(model)
        more = None if also is None else open_unlabelled(also, features)
        return analyze_features(features, held_out, out, options, heard, tell, also=more)


def _of_network(
    subject: Subject,
    opens: Callable[[], Subject],
    place: Place | None,
    out: Path,
    options: Options,
) -> Run:
    with (
        progress_bars("opening the run") as heard,
        filler(place, opens, subject, heard) as fill,
    ):
        return analyze_network(
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


def _is_features(path: str) -> bool:
    return path.endswith(".safetensors") or (Path(path) / "index.json").is_file()
