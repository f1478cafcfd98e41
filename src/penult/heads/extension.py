"""Extension: further sizes for a path of sparse heads that is there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from penult.features.features import Features
from penult.heads.further import TOLERANCE, Shape, go_on
from penult.heads.pace import NoHeadInTimeError
from penult.heads.path import HeadPath, Interrupted, fit_path
from penult.heads.reading import PassReader
from penult.progress import Progress


def extend_path(
    path: HeadPath,
    ks: Sequence[int],
    evaluation: Features | None = None,
    progress: Callable[[str], Progress] | None = None,
    *,
    time_limit: float | None = None,
    reader: PassReader | None = None,
) -> HeadPath:
    """The same path with heads of further sizes; those that it has stay as they are.

    Args:
        path: of the features that it holds.
        ks: features per class.
        evaluation: what the path's heads were measured on.
        progress: see `fit_path`.
        time_limit: likewise.
        reader: likewise.
    """
    missing = tuple(sorted(set(ks) - {step.k for step in path.steps}))
    if not missing:
        return path
    more = fit_path(
        path.features,
        evaluation,
        replace(path.plan, ks=missing),
        progress,
        n_folds=path.judge.n_folds,
        also=path.also,
        views=path.views,
        time_limit=time_limit,
        reader=reader,
    )
    if more.judge.kind != path.judge.kind:
        raise NoHeadInTimeError("the time limit passed before the folds were fitted")
    steps = sorted([*path.steps, *more.steps], key=lambda step: step.k)
    plan = replace(path.plan, ks=tuple(step.k for step in steps))
    return replace(path, steps=steps, plan=plan, unfinished=more.unfinished)


def extend_until(
    path: HeadPath,
    tolerance: float = TOLERANCE,
    evaluation: Features | None = None,
    progress: Callable[[str], Progress] | None = None,
    *,
    time_limit: float | None = None,
    say: Callable[[str], None] | None = None,
    reader: PassReader | None = None,
) -> HeadPath:
    """Go on with 32, 64, 128, … features per class, up to all, until the path is good enough.

    Args:
        path: to start from.
        tolerance: fraction of accuracy that a head may lose, see `good_enough`.
        evaluation: what the path's heads were measured on.
        progress: see `fit_path`.
        time_limit: seconds; by default what `MOST_SECONDS` allows.
        say: hears what each size will take, before it, and where the path ends early.
        reader: see `fit_path`.

    Raises:
        Interrupted: the keyboard's interrupt; it holds the path so far.
    """
    head, found = path.features.require_head(), path

    def add(k: int, left: float | None) -> bool:
        nonlocal found
        try:
            found = extend_path(found, [k], evaluation, progress, time_limit=left, reader=reader)
        except NoHeadInTimeError:
            return False
        except KeyboardInterrupt as interrupt:
            raise Interrupted(found) from interrupt
        return True

    go_on(
        Shape(path.n_fitted(), head.n_features, head.n_classes, path.judge.n_folds),
        [step.k for step in path.steps],
        lambda: found.is_good(tolerance),
        add,
        remedy=lambda k: f"ask for it with -k {k}",
        time_left=time_limit,
        say=say,
    )
    return found
