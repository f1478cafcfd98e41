"""HeadPath: sparse heads from few features to many, fitted, measured, and one of them picked."""

from __future__ import annotations

import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from scipy.special import ndtri

from penult.errors import InputError
from penult.features.features import Features
from penult.features.influence import SCORES, Evidence, influence
from penult.features.moments import Moments
from penult.heads.refit.distillation import Distillation
from penult.heads.refit.weights import fit as fit_softmax
from penult.heads.refit.weights import refit_least_squares
from penult.heads.select.coupled import relinearise
from penult.heads.select.curvature import select_by_need, select_curvature, select_within
from penult.heads.select.greedy import check_sizes, select_moments
from penult.heads.sparse_head import SparseHead, accuracies
from penult.heads.subspaces import Subspaces, top_k
from penult.network.head import Head
from penult.storage import write_json

SIZES = (1, 2, 3, 5, 8, 10, 15, 20)
SELECTIONS = ("curvature", "moments", *SCORES)
BUDGETS = ("each", "mean")
REFITS = ("softmax", "least-squares", "none")
HELD_OUT = 0.2
PARTIAL = ".heads-"  # folders of heads that are being written
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Plan:
    """Which heads are fitted, and how.

    Attributes:
        ks: features per class.
        select: one of `SELECTIONS`: how the features are chosen.
        refit: one of `REFITS`: how their weights are.
        labels: refit to the labels rather than to the dense head's probabilities.
        seed: of the random control and of the split that `HeadPath.pick` makes.
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
        accuracy: fraction right on the evaluation features, or None before they are measured.
    """

    k: int
    head: SparseHead
    seconds: float
    accuracy: float | None = None

    @property
    def n_features_used(self) -> int:
        """How many different features all classes read together."""
        return len(torch.unique(self.head.indices))


@dataclass(frozen=True)
class Pick:
    """The head that `HeadPath.pick` chose, and why.

    Attributes:
        k: features per class.
        head: fitted to all the samples.
        loss: how much lower its accuracy is than the dense one's, on samples held out of the fit.
        interval: confidence interval of that loss; its upper end is within the tolerance.
        n_samples: held out.
    """

    k: int
    head: SparseHead
    loss: float
    interval: tuple[float, float]
    n_samples: int

    def document(self, tolerance: float) -> dict[str, Any]:
        """As `penult fit --json` prints it."""
        return {
            "k": self.k,
            "loss": self.loss,
            "interval": list(self.interval),
            "n_samples": self.n_samples,
            "tolerance": tolerance,
        }


@dataclass(eq=False)
class HeadPath:
    """Sparse heads from few features to many, of one dense head and its features.

    Attributes:
        steps: in the order of k.
        plan: how they were fitted.
        features: what they were fitted to.
        dense_accuracy: the dense network's on the evaluation features.
    """

    steps: list[Step]
    plan: Plan
    features: Features
    dense_accuracy: float
    _trials: list[Trial] = field(default_factory=list)

    def __getitem__(self, k: int) -> SparseHead:
        """The head with k features per class."""
        for step in self.steps:
            if step.k == k:
                return step.head
        found = ", ".join(str(step.k) for step in self.steps)
        raise InputError(f"the path has no k = {k}; it has {found}")

    def pick(self, tolerance: float = 0.005) -> Pick:
        """The smallest head that is as good as the dense one, but for `tolerance`.

        A seeded fifth of the samples is held out, the path is fitted to the others and each head is
        compared with the dense network sample by sample on the held-out ones. A head passes if the
        whole 95 % interval of its loss of accuracy lies below the tolerance: a paired test, with
        the interval of Agresti and Min 2005, which holds for few samples too. The head given back
        is the one fitted to all samples. The evaluation features play no part.

        Args:
            tolerance: fraction of accuracy that may be lost, above 0.

        Raises:
            InputError: no head passes (says which comes nearest).
        """
        if not 0 < tolerance < 1:
            raise InputError(f"the tolerance must lie in (0, 1), found {tolerance}")
        if not self._trials:
            self._trials = trials(self.features, self.plan)
        for trial in self._trials:
            if trial.interval[1] <= tolerance:
                head = self[trial.k]
                return Pick(trial.k, head, trial.loss, trial.interval, trial.n_samples)
        best = min(self._trials, key=lambda trial: trial.interval[1])
        low, high = (100 * end for end in best.interval)
        raise InputError(
            f"no head is within {100 * tolerance:.2f} points of the dense one on {best.n_samples} "
            f"held-out samples: k = {best.k} comes nearest, it loses {100 * best.loss:.2f} points "
            f"(95 % interval {low:.2f} to {high:.2f}); raise the tolerance, k or the samples"
        )

    def document(self) -> dict[str, Any]:
        """What `penult fit --json` prints."""
        return {
            "format": "penult-path/1",
            "dense": {"accuracy": self.dense_accuracy},
            "path": [
                {
                    "k": step.k,
                    "select": self.plan.select,
                    "refit": self.plan.refit,
                    "accuracy": step.accuracy,
                    "nnz": len(step.head.indices),
                    "n_features_used": step.n_features_used,
                    "seconds": step.seconds,
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


@dataclass(frozen=True)
class Trial:
    """A head of the path, fitted to a part of the samples and compared on the others."""

    k: int
    loss: float
    interval: tuple[float, float]
    n_samples: int


def fit_path(
    features: Features,
    evaluation: Features | None = None,
    plan: Plan | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> HeadPath:
    """Fit sparse heads of several sizes to features with their dense head.

    Args:
        features: what the heads are fitted to.
        evaluation: what their accuracy is measured on; `features` where None.
        plan: sizes, selection and refit.
        progress: called with (heads done, heads in all).

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
    steps = _fit(features, head, plan, progress)
    measured_on = evaluation or features
    found = accuracies([step.head for step in steps], measured_on)
    steps = [
        Step(step.k, step.head, step.seconds, accuracy)
        for step, accuracy in zip(steps, found, strict=True)
    ]
    return HeadPath(steps, plan, features, measured_on.dense_accuracy(head))


def trials(features: Features, plan: Plan) -> list[Trial]:
    """Fit a path to four fifths of the samples; compare its heads with the dense on the rest."""
    generator = torch.Generator().manual_seed(plan.seed)
    held_out = torch.rand(features.n_samples, generator=generator) < HELD_OUT
    if not bool(held_out.any()) or bool(held_out.all()):
        raise InputError(f"{features.n_samples} samples are too few to hold some of them out")
    head = features.require_head()
    steps = _fit(features.subset(~held_out), head, plan, None)
    rest = features.subset(held_out)
    n_lost, n_won = [0] * len(steps), [0] * len(steps)
    with torch.no_grad():
        for block in rest.blocks():
            dense = block.dense_classes(head) == block.labels
            for i, step in enumerate(steps):
                sparse = step.head(block.features).argmax(1) == block.labels
                n_lost[i] += int((dense & ~sparse).sum())
                n_won[i] += int((sparse & ~dense).sum())
    n = rest.n_samples
    return [
        Trial(step.k, (lost - won) / n, paired_interval(lost, won, n), n)
        for step, lost, won in zip(steps, n_lost, n_won, strict=True)
    ]


def paired_interval(lost: int, won: int, n: int) -> tuple[float, float]:
    """Interval of a difference of paired proportions: Agresti and Min 2005, adjusted Wald.

    Args:
        lost: samples that only the first of the pair has right.
        won: samples that only the second has right.
        n: samples in all.
    """
    b, c, m = lost + 0.5, won + 0.5, n + 2
    middle = (b - c) / m
    half = float(ndtri(0.5 + CONFIDENCE / 2)) * math.sqrt(b + c - (b - c) ** 2 / m) / m
    return middle - half, middle + half


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
