"""HeadPath: sparse heads from few features to many, fitted, measured, and one of them picked."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from penult.errors import InputError
from penult.features.features import Features
from penult.features.influence import SCORES, Evidence, influence
from penult.features.moments import Moments
from penult.heads.comparison import PairedCounts, paired_counts
from penult.heads.cross_fit import cross_fit
from penult.heads.judge import CROSS_FIT, EVALUATION, FITTED, Judge, size_within
from penult.heads.refit.distillation import Distillation
from penult.heads.refit.weights import fit as fit_softmax
from penult.heads.refit.weights import refit_least_squares
from penult.heads.select.coupled import relinearise
from penult.heads.select.curvature import select_by_need, select_curvature, select_within
from penult.heads.select.greedy import check_sizes, select_moments
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces, top_k
from penult.network.head import Head
from penult.storage import write_json

SIZES = (1, 2, 3, 5, 8, 10, 15, 20)
SELECTIONS = ("curvature", "moments", *SCORES)
BUDGETS = ("each", "mean")
REFITS = ("softmax", "least-squares", "none")
PARTIAL = ".heads-"  # folders of heads that are being written


@dataclass(frozen=True)
class Plan:
    """Which heads are fitted, and how.

    Attributes:
        ks: features per class.
        select: one of `SELECTIONS`: how the features are chosen.
        refit: one of `REFITS`: how their weights are.
        labels: refit to the labels rather than to the dense head's probabilities.
        seed: of the random control and of the folds of a cross-fit.
        budget: one of `BUDGETS`: whether k is what each class gets, or, with "curvature" and
            "moments", the mean over the classes, and those that need more get more.
        max_features: how many different features all classes may use together; with "curvature"
            and "moments", and what each class gets.
    """

    ks: tuple[int, ...] = SIZES
    select: str = "curvature"
    refit: str = "softmax"
    labels: bool = False
    seed: int = 0
    budget: str = "each"
    max_features: int | None = None

    def __post_init__(self) -> None:
        if self.select not in SELECTIONS:
            raise InputError(
                f"no selection is called {self.select!r}; there are {', '.join(SELECTIONS)}"
            )
        if self.refit not in REFITS:
            raise InputError(f"no refit is called {self.refit!r}; there are {', '.join(REFITS)}")
        if not 0 <= self.seed < 2**63:
            raise InputError(f"the seed must be 0 or more, and below 2**63, found {self.seed}")
        if self.labels and self.refit != "softmax":
            raise InputError("labels are fitted by the softmax refit only")
        if self.budget not in BUDGETS:
            raise InputError(f"the budget must be one of {', '.join(BUDGETS)}, found {self.budget}")
        special = self.budget == "mean" or self.max_features is not None
        if special and self.select not in ("curvature", "moments"):
            raise InputError(
                "a mean k and a bound on all features need the selection curvature or moments, "
                f"found {self.select}"
            )
        if self.budget == "mean" and self.max_features is not None:
            raise InputError("a mean k and a bound on all features do not go together: drop one")


@dataclass(frozen=True, eq=False)
class Step:
    """One head of a path.

    Attributes:
        k: features per class.
        head: the sparse head.
        seconds: what its selection and refit took; the selection of a whole path is shared out.
        counts: against the dense head on the samples that judge, or None before it is compared.
    """

    k: int
    head: SparseHead
    seconds: float
    counts: PairedCounts | None = None

    @property
    def accuracy(self) -> float | None:
        """Fraction right on the samples that judge; None before it is measured."""
        return None if self.counts is None else self.counts.after

    @property
    def n_features_used(self) -> int:
        """How many different features all classes read together."""
        return len(torch.unique(self.head.indices))


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
    """

    steps: list[Step]
    plan: Plan
    features: Features
    judge: Judge
    dense_accuracy: float

    def __getitem__(self, k: int) -> SparseHead:
        """The head with k features per class."""
        for step in self.steps:
            if step.k == k:
                return step.head
        found = ", ".join(str(step.k) for step in self.steps)
        raise InputError(f"the path has no k = {k}; it has {found}")

    def pick(self, tolerance: float = 0.005) -> Pick:
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

    def document(self) -> dict[str, Any]:
        """What `penult fit --json` prints."""
        return {
            "format": "penult-path/1",
            "dense": {"accuracy": self.dense_accuracy},
            "judge": self.judge.document(),
            "path": [
                {
                    "k": step.k,
                    "select": self.plan.select,
                    "refit": self.plan.refit,
                    "accuracy": step.accuracy,
                    "nnz": len(step.head.indices),
                    "n_features_used": step.n_features_used,
                    "seconds": step.seconds,
                    **_compared(step),
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
    progress: Callable[[int, int], None] | None = None,
    *,
    n_folds: int = 0,
) -> HeadPath:
    """Fit sparse heads of several sizes to features with their dense head.

    Args:
        features: what the heads are fitted to.
        evaluation: what their accuracy is measured on: samples that the network was not trained
            on; `features` where None.
        plan: sizes, selection and refit.
        progress: called with (heads done, heads in all).
        n_folds: without `evaluation`, fit anew to all but one of so many folds and measure on that
            one, see `affordable_folds`; 0 measures on the very samples that are fitted.

    Raises:
        InputError: a k out of range, features without a head, evaluation features that do not fit.
    """
    plan = plan or Plan()
    head = features.require_head()
    if evaluation is not None and evaluation.n_features != features.n_features:
        raise InputError(
            f"n_features is {features.n_features} in the features and {evaluation.n_features} in "
            "those for evaluation: expected features of the same network"
        )
    n_folds = n_folds if evaluation is None else 0
    heard = None if progress is None else _within(progress, n_folds)
    steps = _fit(features, head, plan, heard)
    if n_folds:
        judge = Judge(CROSS_FIT, features.n_samples, n_folds)

        def again(part: Features) -> list[SparseHead]:
            return [step.head for step in _fit(part, head, plan, heard)]

        counts = cross_fit(features, again, n_folds, plan.seed)
    else:
        judges = features if evaluation is None else evaluation
        judge = Judge(FITTED if evaluation is None else EVALUATION, judges.n_samples)
        counts = paired_counts(head, [step.head for step in steps], judges)
    steps = [replace(step, counts=found) for step, found in zip(steps, counts, strict=True)]
    dense = counts[0].before or 0.0
    return HeadPath(steps, plan, features, judge, dense)


def _compared(step: Step) -> dict[str, Any]:
    """What a row of the document says of the comparison with the dense head."""
    if step.counts is None:
        return {}
    found = step.counts.document()
    names = ("loss", "interval", "at_most", "agreement")
    return {"counts": asdict(step.counts), **{name: found[name] for name in names}}


def _within(progress: Callable[[int, int], None], n_folds: int) -> Callable[[int, int], None]:
    """The progress of one fit and those of every fold as one."""
    n_done = 0

    def heard(_: int, n_heads: int) -> None:
        nonlocal n_done
        n_done += 1
        progress(n_done, n_heads * (1 + n_folds))

    return heard


def _fit(
    features: Features, head: Head, plan: Plan, progress: Callable[[int, int], None] | None
) -> list[Step]:
    ks = check_sizes(plan.ks, features.n_features)
    start = time.perf_counter()
    # Counts for every k take long with many of them, and only `frequency` reads them.
    counted = ks if plan.select == "frequency" else ()
    evidence = Evidence.zeros(head.weight, counted, seed=plan.seed)
    for z, labels in features.blocks():
        evidence.update(z, labels)
    loss = Distillation(features, head.weight, head.bias, labels=plan.labels)
    chosen = select(plan, evidence, loss, ks)
    shared = (time.perf_counter() - start) / len(ks)
    steps: list[Step] = []
    for k in ks:
        start = time.perf_counter()
        last = steps[-1].head if steps else None
        sparse = refit(plan, chosen[k], evidence.moments, loss, head, last)
        steps.append(Step(k, sparse, shared + time.perf_counter() - start))
        if progress is not None:
            progress(len(steps), len(ks))
    return steps


def select(
    plan: Plan, evidence: Evidence, loss: Distillation, ks: Sequence[int]
) -> dict[int, Subspaces]:
    """Subspaces of each size by the plan's selection."""
    name, moments, weight = plan.select, evidence.moments, evidence.weight
    if plan.max_features is not None:
        return select_within(loss, ks, plan.max_features, moments, curvature=name == "curvature")
    if plan.budget == "mean":
        return select_by_need(loss, ks, moments, curvature=name == "curvature")
    if name == "curvature":
        return select_curvature(loss, ks, moments=moments)
    if name == "moments":
        return select_moments(moments, weight, ks)
    return {k: top_k(influence(name, evidence, k), k) for k in ks}


def refit(
    plan: Plan,
    subspaces: Subspaces,
    moments: Moments,
    loss: Distillation,
    head: Head,
    last: SparseHead | None,
) -> SparseHead:
    """Weights on subspaces by the plan's refit; `last` is the path's head before, to start from.

    A selection by curvature is improved at the refitted head, where that pays.
    """
    if plan.refit == "softmax":
        result = fit_softmax(loss, subspaces, start=last)
        if plan.select == "curvature":
            bounded = plan.max_features is not None
            allowed = torch.unique(subspaces.indices).to(loss.weight.device) if bounded else None
            result = relinearise(loss, result, allowed=allowed)
        sparse = result.head
    elif plan.refit == "least-squares":
        sparse = refit_least_squares(subspaces, moments, head.weight, head.bias)
    else:
        sparse = SparseHead.from_dense(head.weight, head.bias, subspaces)
    sparse.layer = head.name
    return sparse
