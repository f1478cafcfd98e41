"""The fitted heads of a run: the path that it begins with, and heads of other sizes added later."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from penult.errors import InputError
from penult.heads.comparison import PairedCounts
from penult.heads.further import TOLERANCE, Shape, go_on, good_enough
from penult.heads.judge import Judge
from penult.heads.pace import NoHeadInTimeError
from penult.heads.path import HeadPath, Interrupted, fit_path
from penult.heads.plan import Plan
from penult.heads.reading import PassReader
from penult.heads.select.budget import check_sizes
from penult.progress import Progress
from penult.runs.run import Run

Begin = Callable[[str], Progress]


class Clock:
    """How much of a time limit is left.

    Args:
        limit: seconds from now on, or None for no limit.
    """

    def __init__(self, limit: float | None) -> None:
        if limit is not None and not limit > 0:
            raise InputError(f"the time limit must be above 0 seconds, found {limit}")
        self.limit = limit
        self._began = time.monotonic()

    @property
    def left(self) -> float | None:
        """Seconds, above 0; None without a limit."""
        if self.limit is None:
            return None
        return max(1e-3, self.limit - (time.monotonic() - self._began))


def add_heads(
    run: Run | str | Path,
    ks: Sequence[int],
    *,
    progress: Begin | None = None,
    time_limit: float | None = None,
    reader: PassReader | None = None,
) -> list[int]:
    """Fit sparse heads of further sizes to a finished run and keep them in it.

    Features and weights are chosen as those of the run's path, from the same samples, and measured
    on the same samples; `Run.summary()["path"]` has a row for each from then on. The head of a size
    does not depend on what else is added, before or after. One size after the other is kept, the
    smallest first, so that an interrupt loses only the one that is being fitted. Sizes that the run
    has stay as they are.

    Args:
        run: a finished run, or its folder.
        ks: features per class.
        progress: called with the name of a phase; gives the function that hears of its progress.
        time_limit: seconds, after which the sizes that are left are not fitted.
        reader: what makes the passes over the features, see `fit_path`.

    Returns:
        The sizes that were not reached in the time given.

    Raises:
        InputError: a k out of range; another process that writes the run for long.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    asked = check_sizes(ks, run.summary()["n_features"])
    if not set(asked) - set(fitted_sizes(run)):
        return []
    clock = Clock(time_limit)
    with run.writing():
        missing = [k for k in asked if k not in fitted_sizes(run)]
        for i, k in enumerate(missing):
            if not _add(run, k, progress, clock, reader):
                return missing[i:]
    return []


def fitted_sizes(run: Run) -> list[int]:
    """The sizes of the fitted heads of a run."""
    return [int(row["k"]) for row in run.summary()["path"]]


def usual_plan(run: Run) -> Plan:
    """How the path is fitted that every run gets."""
    n_features = run.summary()["n_features"]
    seed = run.about["identity"].get("seed", 0)
    if not isinstance(seed, int):
        raise InputError(f"{run.folder}/run.json is damaged: its seed is {seed!r:.40}")
    return replace(Plan.usual(n_features), seed=seed)


def complete_path(
    run: Run,
    clock: Clock,
    *,
    progress: Begin | None = None,
    say: Callable[[str], None] | None = None,
    reader: PassReader | None = None,
) -> None:
    """Fit what a run's path lacks of the usual sizes, and further ones until one is good enough.

    A finished run whose path was cut short, by a time limit or an interrupt, is completed so; one
    that needs nothing is not touched.

    Args:
        run: a finished one.
        clock: the time that is left; where that has no limit, further sizes may take what
            `MOST_SECONDS` allows.
        progress: see `add_heads`.
        say: hears what each further size will take, and what was left out.
        reader: see `add_heads`.
    """
    summary = run.summary()
    usual = usual_plan(run)
    if set(usual.ks) - set(fitted_sizes(run)):
        with run.writing():
            path, stopped = _fit(run, usual, progress, clock, reader)
            if path is not None:
                _keep(run, path, usual.ks)
        if stopped is not None:
            raise stopped
        if set(usual.ks) - set(fitted_sizes(run)):
            return
    judge = Judge.read(summary["judge"])
    train = run.train()
    go_on(
        Shape(_n_fitted(run), train.n_features, train.n_classes, judge.n_folds),
        fitted_sizes(run),
        lambda: _is_good(run),
        lambda k, left: not add_heads(run, [k], progress=progress, time_limit=left, reader=reader),
        remedy=lambda k: f"penult fit {run.folder} -k {k}",
        time_left=clock.left,
        say=say,
    )


def left_out(run: Run) -> str | None:
    """What to say where a run's path lacks some of the usual sizes; None where it is whole."""
    if not run.about["identity"].get("fit", True):
        return None
    missing = [str(k) for k in usual_plan(run).ks if k not in fitted_sizes(run)]
    if not missing:
        return None
    return (
        f"the heads of k = {', '.join(missing)} were not fitted, since the time was over or the "
        "fit was interrupted: repeat the command that made the run"
    )


def _n_fitted(run: Run) -> int:
    """Samples that the heads of a run are fitted to."""
    also = run.also()
    more = [*([] if also is None else [also]), *run.views()]
    return run.train().n_samples + sum(part.n_samples for part in more)


def _is_good(run: Run) -> bool:
    rows = sorted(run.summary()["path"], key=lambda row: int(row["k"]))
    counts = [PairedCounts(**row["counts"]) for row in rows]
    sizes = [int(row["k"]) for row in rows]
    return good_enough(sizes, counts, Judge.read(run.summary()["judge"]), TOLERANCE)


def _add(run: Run, k: int, progress: Begin | None, clock: Clock, reader: PassReader | None) -> bool:
    """Fit the head of one size and keep it; False where the time was over before."""
    usual = usual_plan(run)
    # A smaller size is what the usual path would have had if it had been one of its sizes.
    plan = replace(usual, ks=tuple(sorted({*usual.ks, k})) if k < max(usual.ks) else (k,))
    path, stopped = _fit(run, plan, progress, clock, reader)
    if path is not None and k in {step.k for step in path.steps}:
        _keep(run, path, [k])
    if stopped is not None:
        raise stopped
    return k in fitted_sizes(run)


def _fit(
    run: Run, plan: Plan, progress: Begin | None, clock: Clock, reader: PassReader | None
) -> tuple[HeadPath | None, KeyboardInterrupt | None]:
    """A path as far as the time allows, and the interrupt that cut it short."""
    judge, stopped, path = Judge.read(run.summary()["judge"]), None, None
    try:
        path = fit_path(
            run.train(),
            run.held_out(),
            plan,
            progress,
            n_folds=judge.n_folds,
            also=run.also(),
            views=run.views(),
            time_limit=clock.left,
            reader=reader,
        )
    except NoHeadInTimeError:
        pass
    except Interrupted as interrupt:
        path, stopped = interrupt.path, interrupt
    # Where the time was over before the folds were fitted, nothing judges the heads.
    return path if path is not None and path.judge.kind == judge.kind else None, stopped


def _keep(run: Run, path: HeadPath, ks: Sequence[int]) -> None:
    """Write those heads of a path that are of some sizes, and their rows in the summary."""
    summary = run.summary()
    names = summary["class_names"]
    chosen = replace(path, steps=[step for step in path.steps if step.k in ks])
    chosen.save_heads(lambda k: run.head_file(path.plan.select, k), names)
    # Times differ from run to run, and the same run is to give the same bytes.
    rows = [
        {name: value for name, value in row.items() if name != "seconds"}
        for row in chosen.document()["path"]
    ]
    new = {int(row["k"]) for row in rows}
    rows += [row for row in summary["path"] if int(row["k"]) not in new]
    run.amend({**summary, "path": sorted(rows, key=lambda row: int(row["k"]))})
