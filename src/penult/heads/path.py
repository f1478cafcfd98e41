"""HeadPath: sparse heads from few features to many, fitted, measured, and one of them picked."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from penult.errors import InputError
from penult.features.features import Features
from penult.features.unlabelled import apart_from
from penult.heads.comparison import Classifier, PairedCounts
from penult.heads.cross_fit import cross_fit
from penult.heads.fitting import Step, fit_heads
from penult.heads.further import TOLERANCE, good_enough
from penult.heads.judge import CROSS_FIT, EVALUATION, FITTED, Judge, size_within
from penult.heads.pace import NoHeadInTimeError, Pace, TimeLimitError
from penult.heads.plan import Plan
from penult.heads.ratings import Ratings, Scores
from penult.heads.reading import PassReader, ReadHere
from penult.heads.sparse_head import SparseHead
from penult.progress import Progress
from penult.storage import write_json
from penult.text import duration

PARTIAL = ".heads-"  # folders of heads that are being written


@dataclass(frozen=True)
class Pick:
    """The head that `HeadPath.pick` chose, or that none can be chosen, and why.

    Attributes:
        k: features per class; None where no head passes.
        head: the one of the path.
        counts: of that head against the dense one, on the samples that judge.
        tolerance: fraction of accuracy that it may lose.
        vouched: whether it loses no more on new samples, with 95 % confidence; False where no
            evaluation samples were given.
        why: one sentence for a person.
    """

    k: int | None
    head: SparseHead | None
    counts: PairedCounts | None
    tolerance: float
    vouched: bool
    why: str

    def document(self) -> dict[str, Any]:
        """As `penult fit --json` prints it."""
        found = {} if self.counts is None else self.counts.document()
        shared = ("n_samples", "loss", "interval", "at_most")
        return {
            "k": self.k,
            **{name: found.get(name) for name in shared},
            "tolerance": self.tolerance,
            "vouched": self.vouched,
            "why": self.why,
        }


@dataclass(eq=False)
class HeadPath:
    """Sparse heads from few features to many, of one dense head and its features.

    Attributes:
        steps: in the order of k.
        plan: how they were fitted.
        features: what they were fitted to.
        judge: the samples on which they were compared with the dense head.
        dense_accuracy: the dense network's on these samples.
        dense_ratings: likewise, class by class; of multi-label data alone.
        also: unlabelled features that the heads were fitted to as well, never judged on.
        views: likewise, of the same samples in other views, pass by pass.
        unfinished: sizes that were asked for and not reached in the time given.
    """

    steps: list[Step]
    plan: Plan
    features: Features
    judge: Judge
    dense_accuracy: float
    also: Features | None = None
    unfinished: tuple[int, ...] = ()
    views: tuple[Features, ...] = ()
    dense_ratings: Ratings | None = None

    def n_fitted(self) -> int:
        """How many samples the heads were fitted to."""
        more = _parts(self.also, self.views)
        return self.features.n_samples + sum(part.n_samples for part in more)

    def __getitem__(self, k: int) -> SparseHead:
        """The head with k features per class."""
        for step in self.steps:
            if step.k == k:
                return step.head
        found = ", ".join(str(step.k) for step in self.steps)
        raise InputError(f"the path has no k = {k}; it has {found}")

    def pick(self, tolerance: float = TOLERANCE) -> Pick:
        """The smallest head that can be shown to lose no more than `tolerance`.

        Each head has been compared with the dense network sample by sample. They are tested from
        the largest down, and the first that fails ends it: the last one that passed is, with 95 %
        confidence, within the tolerance on new samples, provided that the path was measured on
        evaluation samples, which the network was not trained on. See `penult.heads.judge`.

        Args:
            tolerance: fraction of accuracy that may be lost, above 0.
        """
        order = sorted(self.steps, key=lambda step: step.k)
        counts = [step.counts for step in order if step.counts is not None]
        found = size_within([step.k for step in order], counts, self.judge, tolerance)
        if found.index is None:
            return Pick(None, None, None, tolerance, False, found.why)
        step = order[found.index]
        return Pick(step.k, step.head, step.counts, tolerance, found.vouched, found.why)

    def is_good(self, tolerance: float = TOLERANCE) -> bool:
        """Whether one of the heads loses no more than a tolerance, see `good_enough`."""
        order = sorted(self.steps, key=lambda step: step.k)
        counts = [step.counts for step in order if step.counts is not None]
        return good_enough([step.k for step in order], counts, self.judge, tolerance)

    def document(self) -> dict[str, Any]:
        """What `penult fit --json` prints."""
        return {
            "format": "penult-path/1",
            "dense": {"accuracy": self.dense_accuracy, **_rated(self.dense_ratings)},
            "link": self.features.link,
            "judge": self.judge.document(),
            "n_also": 0 if self.also is None else self.also.n_samples,
            "n_views": len(self.views),
            "unfinished": list(self.unfinished),
            "path": [
                {
                    "k": step.k,
                    "select": self.plan.select,
                    "refit": self.plan.refit,
                    "accuracy": step.accuracy,
                    "converged": step.converged,
                    "nnz": len(step.head.indices),
                    "n_features_used": step.n_features_used,
                    "seconds": step.seconds,
                    **_compared(step),
                    **_rated(step.ratings),
                }
                for step in self.steps
            ],
        }

    def save(self, folder: Path) -> None:
        """Write `heads/k005.safetensors` and so on, and `path.json`.

        The heads come in one step, in place of those of an earlier fit: cut off at any moment, the
        folder holds the one or the other, and without `path.json` neither.
        """
        require_folder(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for cut_off in folder.glob(f"{PARTIAL}*"):
            shutil.rmtree(cut_off)
        with TemporaryDirectory(prefix=PARTIAL, dir=folder) as made:
            new, old = Path(made) / "new", Path(made) / "old"
            self.save_heads(lambda k: new / f"k{k:03d}.safetensors", self.features.names())
            (folder / "path.json").unlink(missing_ok=True)
            if (folder / "heads").exists():
                (folder / "heads").rename(old)
            new.rename(folder / "heads")
        write_json(folder / "path.json", self.document())

    def save_heads(self, place: Callable[[int], Path], class_names: Sequence[str]) -> None:
        """Write a head file for every k, where `place` says."""
        for step in self.steps:
            notes = {
                "select": self.plan.select,
                "refit": self.plan.refit,
                "accuracy": repr(step.accuracy),
                "dense_accuracy": repr(self.dense_accuracy),
            }
            step.head.save(place(step.k), class_names, notes)


def require_folder(folder: Path) -> None:
    """Refuse a folder in which heads of a fit would replace something else.

    Raises:
        InputError: it is a run, or its `heads` are not those of an earlier fit.
    """
    if (folder / "run.json").exists():
        raise InputError(f"{folder} is a run, with heads of its own: choose another folder (--out)")
    heads = folder / "heads"
    if heads.exists():
        found = [heads.name] if heads.is_file() else sorted(file.name for file in heads.iterdir())
        other = [name for name in found if not re.fullmatch(r"k\d+\.safetensors", name)]
        if other:
            raise InputError(
                f"{heads} holds {other[0]}, which no fit wrote: choose another folder (--out)"
            )


def fit_path(
    features: Features,
    evaluation: Features | None = None,
    plan: Plan | None = None,
    progress: Callable[[str], Progress] | None = None,
    *,
    n_folds: int = 0,
    also: Features | None = None,
    views: Sequence[Features] = (),
    time_limit: float | None = None,
    reader: PassReader | None = None,
) -> HeadPath:
    """Fit sparse heads of several sizes to features with their dense head, the largest first.

    Args:
        features: what the heads are fitted to.
        evaluation: what their accuracy is measured on: samples that the network was not trained
            on; `features` where None.
        plan: sizes, selection and refit; where None the usual ones.
        progress: called with the name of a phase; gives the function that hears of its progress.
        n_folds: without `evaluation`, fit anew to all but one of so many folds and measure on that
            one, see `affordable_folds`; 0 measures on the very samples that are fitted.
        also: further features of the same network that the heads are fitted to; their labels are
            not read, and no head is judged on them.
        views: features of the same samples in other views (cropped or mirrored images), with the
            same ids, pass by pass; likewise. Views of a sample go where the sample goes: a fold
            that is judged is not seen in any view.
        time_limit: seconds, after which the path ends with the heads that are done.
        reader: what makes the passes over the features: this process where None, or the workers of
            a cluster, see `penult.cluster`.

    Raises:
        InputError: a k out of range, features without a head, evaluation features that do not fit.
        NoHeadInTimeError: the time limit passes before the first head is done.
        Interrupted: the keyboard's interrupt after at least one head was done; it holds the path.
    """
    if isinstance(evaluation, Plan):
        raise InputError("a Plan was given as evaluation: expected fit_path(features, plan=PLAN)")
    plan = plan or Plan.usual(features.n_features)
    head = features.require_head()
    ks = plan.sizes(head.n_classes, features.n_features)
    _check_fits(features, evaluation, "those for evaluation")
    _check_fits(features, also, "the unlabelled ones (--also)")
    for view in views:
        _check_fits(features, view, "the views")
    if (also is not None or views) and plan.labels:
        raise InputError(
            "further samples (--also, views) are fitted without labels: leave out --labels or them"
        )
    if also is not None and (evaluation is not None or n_folds):
        also = apart_from(also, features if evaluation is None else evaluation)
    pace = Pace(progress, time_limit)
    steps: list[Step] = []
    stopped: KeyboardInterrupt | None = None
    try:
        for step in fit_heads(features, _parts(also, views), plan, pace, reader):
            steps.insert(0, step)
    except TimeLimitError:
        if not steps:
            raise NoHeadInTimeError(
                f"the time limit of {duration(time_limit or 0)} passed before the first head, k = "
                f"{ks[-1]}, was done: raise the limit, or ask for fewer features per class"
            ) from None
    except KeyboardInterrupt as interrupt:
        if not steps:
            raise
        stopped = interrupt
    done = tuple(step.k for step in steps)
    whole = stopped is None and len(done) == len(ks)
    folds = n_folds if evaluation is None and whole else 0
    judge, counts, ratings = _judged(
        features, evaluation, also, views, steps, plan, folds, pace, reader
    )
    own = [None] * len(steps) if ratings is None else ratings[1:]
    path = HeadPath(
        [
            replace(step, counts=found, ratings=rating)
            for step, found, rating in zip(steps, counts, own, strict=True)
        ],
        plan,
        features,
        judge,
        counts[0].before or 0.0,
        also,
        tuple(k for k in ks if k not in done),
        tuple(views),
        None if ratings is None else ratings[0],
    )
    if stopped is not None:
        raise Interrupted(path) from stopped
    return path


def _judged(
    features: Features,
    evaluation: Features | None,
    also: Features | None,
    views: Sequence[Features],
    steps: Sequence[Step],
    plan: Plan,
    n_folds: int,
    pace: Pace,
    reader: PassReader | None,
) -> tuple[Judge, list[PairedCounts], list[Ratings] | None]:
    """What judges the heads of a path, what it finds of each, and of multi-label data ratings.

    The ratings begin with the dense head's.
    """
    head = features.require_head()
    scores = Scores()

    def rate(heads: Sequence[Classifier], judges: Features) -> None:
        scores.add([head, *heads], judges)

    if n_folds:
        done = pace.phase("folds", n_folds)

        def again(part: Features) -> list[SparseHead]:
            ids = set(part.ids()) if views else set()
            own = [view.subset(torch.tensor([i in ids for i in view.ids()])) for view in views]
            found = list(fit_heads(part, _parts(also, own), plan, pace.silent(), reader))
            return [step.head for step in reversed(found)]

        try:
            counts = cross_fit(features, again, n_folds, plan.seed, lambda i, n: done(), rate)
            return Judge(CROSS_FIT, features.n_samples, n_folds), counts, scores.ratings()
        except TimeLimitError:
            scores = Scores()
    judges = features if evaluation is None else evaluation
    judge = Judge(FITTED if evaluation is None else EVALUATION, judges.n_samples)
    heads = [step.head for step in steps]
    rate(heads, judges)
    counts = (reader or ReadHere()).counts(head, heads, judges)
    return judge, counts, scores.ratings()


class Interrupted(KeyboardInterrupt):
    """A fit was interrupted when some of its heads were done.

    Attributes:
        path: with these heads.
    """

    def __init__(self, path: HeadPath) -> None:
        super().__init__()
        self.path = path


def _parts(also: Features | None, views: Sequence[Features]) -> list[Features]:
    return [*([] if also is None else [also]), *views]


def _check_fits(features: Features, other: Features | None, what: str) -> None:
    if other is not None and other.n_features != features.n_features:
        raise InputError(
            f"n_features is {features.n_features} in the features and {other.n_features} in "
            f"{what}: expected features of the same network"
        )


def _rated(ratings: Ratings | None) -> dict[str, Any]:
    """What a row of the document says of multi-label data besides."""
    return {} if ratings is None else ratings.document()


def _compared(step: Step) -> dict[str, Any]:
    """What a row of the document says of the comparison with the dense head."""
    if step.counts is None:
        return {}
    found = step.counts.document()
    names = ("loss", "interval", "at_most", "agreement", "kl")
    return {"counts": asdict(step.counts), **{name: found[name] for name in names}}
