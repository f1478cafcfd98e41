"""The command that fits sparse heads to features or adds them to a run: `penult fit`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penult.cli import options as given
from penult.cli.cluster import place_of, reader_at
from penult.cli.console import INTERRUPTED, progress_bars, tell, warn
from penult.cli.opened import open_run
from penult.cli.output import print_json
from penult.cli.pages import added_page, path_page, print_page
from penult.cli.spread import spread
from penult.cli.values import seconds_of, sizes_of
from penult.cluster.session import Place
from penult.errors import InputError, NotWrittenError
from penult.features.features import Features
from penult.features.unlabelled import open_unlabelled
from penult.heads.cross_fit import affordable_folds
from penult.heads.extension import extend_until
from penult.heads.further import TOLERANCE
from penult.heads.judge import too_few_for
from penult.heads.memory import memory_needed
from penult.heads.path import HeadPath, Interrupted, fit_path, require_folder
from penult.heads.plan import SIZES, Plan, usual_sizes
from penult.measure.groups import groups_document, write_groups_document
from penult.runs.fitted import Clock, add_heads, complete_path, fitted_sizes
from penult.runs.outputs import check_output_folder
from penult.runs.run import Run
from penult.storage import not_written
from penult.text import duration


@spread
def fit(
    features: given.FeaturesPath,
    *,
    out: given.Folder = None,
    eval_: given.EvalFeatures = None,
    also: given.AlsoFeatures = None,
    k: given.Sizes = None,
    select: given.Selection = "curvature",
    refit: given.Refit = "softmax",
    labels: given.FitLabels = False,
    budget: given.Budget = "each",
    max_features: given.MaxFeatures = None,
    pool: given.Pool = None,
    prior: given.Prior = None,
    tolerance: given.Tolerance = None,
    time_limit: given.TimeLimit = None,
    seed: given.Seed = 0,
    cluster: given.ClusterFit = None,
    as_json: given.AsJson = False,
) -> None:
    """Fit sparse heads from few features per class to many, and pick one; or add some to a run."""
    limit = seconds_of(time_limit)
    place = place_of(cluster)
    if (features / "run.json").is_file():
        plan = Plan(SIZES, select, refit, labels, seed, budget, max_features, pool, prior)
        _refuse_for_run(features, plan, {"--out": out, "--eval": eval_, "--also": also})
        _add_to_run(features, k, tolerance, limit, place, as_json)
        return
    if out is None:
        raise InputError(
            f"--out is missing: the folder for the heads that are fitted to {features}"
        )
    found = Features.open(features)
    ks = usual_sizes(found.n_features) if k is None else sizes_of(k)
    plan = Plan(ks, select, refit, labels, seed, budget, max_features, pool, prior)
    held_out = Features.open(eval_) if eval_ is not None else None
    more = open_unlabelled(also, found) if also is not None else None
    require_folder(out)
    check_output_folder(out, "the heads")
    judges = found if held_out is None else held_out
    n_folds = _said_before(found, more, plan, tolerance, judges.n_samples)
    clock = Clock(limit)
    try:
        with progress_bars() as heard, reader_at(place) as reader:
            path = fit_path(
                *(found, held_out, plan, heard),
                n_folds=n_folds,
                also=more,
                time_limit=clock.left,
                reader=reader,
            )
            if k is None and not path.unfinished:
                path = extend_until(
                    *(path, tolerance or TOLERANCE, held_out, heard),
                    time_limit=clock.left,
                    say=tell,
                    reader=reader,
                )
    except Interrupted as interrupt:
        _finish(interrupt.path, out, None, as_json)
        done = ", ".join(str(step.k) for step in interrupt.path.steps)
        tell(f"interrupted: the heads of k = {done} were done and are kept in {out}")
        sys.exit(INTERRUPTED)
    if path.unfinished:
        left = ", ".join(map(str, path.unfinished))
        warn(f"the time limit of {duration(limit or 0)} passed before k = {left} was done")
    elif k is not None and not path.is_good(tolerance or TOLERANCE):
        warn(_more(tolerance or TOLERANCE))
    _finish(path, out, tolerance, as_json)


def _said_before(
    found: Features, more: Features | None, plan: Plan, tolerance: float | None, n_judging: int
) -> int:
    """Say what a fit will take, and whether its samples can tell what is asked; gives its folds."""
    n_classes, n_more = found.require_head().n_classes, 0 if more is None else more.n_samples
    plan.sizes(n_classes, found.n_features)  # refused before anything is said
    n_folds = affordable_folds(found.n_samples, found.n_features, n_classes, n_more)
    if tolerance is not None and (few := too_few_for(tolerance, n_judging)):
        warn(few)
    needed = memory_needed(
        found.n_samples + n_more, found.n_features, n_classes, max(plan.ks), plan.select
    )
    tell(f"Memory: about {needed / 1e9:.1f} GB at most")
    return n_folds


def _refuse_for_run(run: Path, plan: Plan, places: Mapping[str, Path | None]) -> None:
    """Refuse what a run decides itself: where its heads lie, and how they are fitted."""
    usual, names = Plan(SIZES), ("select", "refit", "labels", "seed", "budget")
    other = [name for name, place in places.items() if place is not None]
    changed = (*names, "max_features", "pool", "prior")
    other += [
        f"--{name.replace('_', '-')}"
        for name in changed
        if getattr(plan, name) != getattr(usual, name)
    ]
    if other:
        raise InputError(
            f"{other[0]} does not go with {run}, which is a run: its heads are fitted and measured "
            f"as those that it has; for others give {run / 'features' / 'train'} and --out"
        )


def _add_to_run(
    folder: Path,
    k: str | None,
    tolerance: float | None,
    limit: float | None,
    place: Place | None,
    as_json: bool,
) -> None:
    """Add heads of the sizes asked for to a run, or go on until one is good enough."""
    if tolerance is not None:
        raise InputError(
            f"--tolerance does not go with {folder}, which is a run: `penult report` and `penult "
            "measure` pick a head of it"
        )
    run = open_run(folder)
    before = fitted_sizes(run)
    left: list[int] = []
    try:
        with progress_bars("opening the run") as heard, reader_at(place) as reader:
            if k is None:
                complete_path(run, Clock(limit), progress=heard, say=tell, reader=reader)
            else:
                asked = sizes_of(k)
                left = add_heads(run, asked, progress=heard, time_limit=limit, reader=reader)
    except KeyboardInterrupt:
        _show_added(run, before, as_json)
        tell("interrupted: the run has all heads that are listed")
        sys.exit(INTERRUPTED)
    if left:
        sizes = ", ".join(map(str, left))
        warn(f"the time limit of {duration(limit or 0)} passed before k = {sizes} was done")
    _show_added(run, before, as_json)


def _show_added(run: Run, before: list[int], as_json: bool) -> None:
    summary = run.summary()
    new = [size for size in fitted_sizes(run) if size not in before]
    if new and groups_document(run) is not None:
        write_groups_document(run)
    if as_json:
        print_json({"format": "penult-added/1", "added": new, "path": summary["path"]})
        return
    print_page(added_page(summary, new))
    print(f"\nRun folder: {run.folder}")


def _more(tolerance: float) -> str:
    return (
        f"no head of these sizes can be shown to lose less than {100 * tolerance:.2f} points of "
        "accuracy: ask for larger ones with -k, or leave -k out to go on until one is good enough"
    )


def _finish(path: HeadPath, out: Path, tolerance: float | None, as_json: bool) -> None:
    """Write the heads, and print what they are."""
    document: dict[str, Any] = path.document()
    lost: NotWrittenError | None = None
    try:
        path.save(out)
    except NotWrittenError as error:
        lost = error  # what minutes have found is printed before it is said
    except OSError as error:
        lost = not_written(out, error)
    if path.judge.warning:
        warn(path.judge.warning)
    if tolerance is not None:
        pick = path.pick(tolerance)
        document["pick"] = pick.document()
        if not pick.vouched:
            warn(pick.why)
    if as_json:
        print_json(document)
    else:
        print_page(path_page(document))
    if lost is not None:
        raise lost
    if not as_json:
        print(f"\nHeads: {out / 'heads'}")
