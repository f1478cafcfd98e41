"""The command that fits sparse heads to features: `penult fit`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from penult.cli import options as given
from penult.cli.console import errors, progress_bars, warn
from penult.cli.output import print_json
from penult.cli.pages import path_page, print_page
from penult.cli.spread import spread
from penult.cli.values import sizes_of
from penult.features.features import Features
from penult.features.shards import FORMAT
from penult.heads.cross_fit import affordable_folds
from penult.heads.judge import too_few_for
from penult.heads.memory import memory_needed
from penult.heads.path import HeadPath, Interrupted, fit_path, require_folder
from penult.heads.plan import Plan
from penult.storage import read_tensors

INTERRUPTED = 130


@spread
def fit(
    features: given.FeaturesPath,
    *,
    out: given.Folder,
    eval_: given.EvalFeatures = None,
    also: given.AlsoFeatures = None,
    k: given.Sizes = "1,2,3,5,8,10,15,20",
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
    as_json: given.AsJson = False,
) -> None:
    """Fit sparse heads from few features per class to many, and pick one."""
    plan = Plan(sizes_of(k), select, refit, labels, seed, budget, max_features, pool, prior)
    found = Features.open(features)
    held_out = Features.open(eval_) if eval_ is not None else None
    more = _unlabelled(also) if also is not None else None
    require_folder(out)
    n_samples = found.n_samples + (0 if more is None else more.n_samples)
    n_classes = found.require_head().n_classes
    n_folds = affordable_folds(n_samples, found.n_features, n_classes)
    if tolerance is not None:
        judges = found if held_out is None else held_out
        if few := too_few_for(tolerance, judges.n_samples):
            warn(few)
    needed = memory_needed(n_samples, found.n_features, n_classes, max(plan.ks), select)
    errors.print(f"Memory: about {needed / 1e9:.1f} GB at most")
    try:
        with progress_bars() as heard:
            path = fit_path(
                found, held_out, plan, heard, n_folds=n_folds, also=more, time_limit=time_limit
            )
    except Interrupted as interrupt:
        _finish(interrupt.path, out, None, as_json)
        done = ", ".join(str(step.k) for step in interrupt.path.steps)
        errors.print(f"interrupted: the heads of k = {done} were done and are kept in {out}")
        sys.exit(INTERRUPTED)
    if path.unfinished:
        left = ", ".join(map(str, path.unfinished))
        warn(f"the time limit of {time_limit:g} seconds passed before k = {left} was done")
    _finish(path, out, tolerance, as_json)


def _finish(path: HeadPath, out: Path, tolerance: float | None, as_json: bool) -> None:
    """Write the heads, and print what they are."""
    document = path.document()
    path.save(out)
    if path.judge.warning:
        warn(path.judge.warning)
    if tolerance is not None:
        pick = path.pick(tolerance)
        document["pick"] = pick.document()
        if not pick.vouched:
            warn(pick.why)
    if as_json:
        print_json(document)
        return
    print_page(path_page(document))
    print(f"\nHeads: {out / 'heads'}")


def _unlabelled(path: Path) -> Features:
    """Features of a file or folder, whose labels, if any, are not read."""
    if path.is_file():
        tensors, _ = read_tensors(path, FORMAT, ("features",), only=("features",))
        z = tensors["features"].float()
        return Features.of(z, torch.zeros(len(z), dtype=torch.int64))
    return Features.open(path)
