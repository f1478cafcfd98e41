"""Mends: the ways to mend a head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from penult.edit.balance import Calibrated
from penult.edit.edit import Edit
from penult.edit.logits import LogitTable
from penult.edit.overuse import Contrast
from penult.edit.refits import DRAWS, balanced_draw, balanced_regression, weighted_regression
from penult.edit.registry import apply_edit
from penult.edit.setting import EditSetting
from penult.edit.suspects import find_suspects
from penult.features.features import Features
from penult.features.moments import Moments
from penult.network.head import Head

STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
ROUNDS, DRO_STRENGTH = 4, 0.01


@dataclass(frozen=True, eq=False)
class Problem:
    """What a mend may look at.

    Attributes:
        head: that is to be mended.
        features: of the samples that it is fitted to.
        groups: (n_samples,) int64 of these; -1 where none.
        trained: the head on samples of its training; None where there are no others.
        supports: by k, the features (n_features,) bool that a sparse head of the run reads.
    """

    head: Head
    features: Features
    groups: Tensor
    trained: Calibrated | None
    supports: dict[int, Tensor]

    def of(self, part: Tensor) -> Problem:
        """The same with a part of the samples, (n_samples,) bool."""
        return replace(self, features=self.features.subset(part), groups=self.groups[part])

    @cached_property
    def contrast(self) -> Contrast:
        """The samples next to those of the training."""
        return Contrast(Calibrated.of(LogitTable(self.features, self.head)), self.trained)


@dataclass(frozen=True)
class Mend:
    """One way to mend a head.

    Attributes:
        name: in the table.
        grouped: whether it needs the samples' groups to be fitted and chosen.
        settings: what is chosen among; for a sparse one, where empty, the sizes of the run's heads.
        make: the mended head.
        sparse: whether it reads the features of a sparse head only, so that those count.
    """

    name: str
    grouped: bool
    settings: tuple[float, ...]
    make: Callable[[Problem, float], Head]
    sparse: bool = False


def as_it_is(problem: Problem, _: float) -> Head:
    """The head, left alone."""
    return problem.head


def suspects_off(problem: Problem, n: float) -> Head:
    """The worst suspects switched off, each for its class; found on the fitted samples."""
    return _suspects(problem, int(n), "off")


def suspects_capped(problem: Problem, n: float) -> Head:
    """The worst suspects capped at their means, each for its class."""
    return _suspects(problem, int(n), "cap")


def refitted_to_labels(problem: Problem, strength: float) -> Head:
    """All weights fitted to the labels, every sample alike."""
    return _weighted(problem, torch.zeros_like(problem.groups), strength)


def class_balanced(problem: Problem, strength: float) -> Head:
    """All weights fitted to the labels, every class alike."""
    return _weighted(problem, problem.features.labels(), strength)


def mistakes_balanced(problem: Problem, strength: float) -> Head:
    """Fitted so that what the head has wrong counts as much as what it has right, in each class.

    Without groups: Liu et al. 2021 (*Just Train Twice*), with equal weights for both.
    """
    z, labels = problem.features.arrays()
    wrong = problem.head(z).argmax(1) != labels
    return _weighted(problem, 2 * labels + wrong.long(), strength)


def group_balanced(problem: Problem, strength: float) -> Head:
    """All weights fitted to the labels, every group alike."""
    return _weighted(problem, problem.groups, strength)


def worst_groups_first(problem: Problem, step: float) -> Head:
    """Groups that samples left out of the fit show to be badly told count more, round by round.

    The weights of the groups follow Sagawa et al. 2020 (group DRO); errors are cross-fitted, since
    on the samples that were fitted there are hardly any.
    """
    z, labels = problem.features.arrays()
    known = problem.groups >= 0
    _, place = torch.unique(problem.groups, return_inverse=True)
    n = torch.bincount(place[known], minlength=int(place.max()) + 1).double()
    counted = torch.ones_like(n)
    folds = _folds(place, seed=0)
    whole = torch.ones(z.shape[1], dtype=torch.bool)
    for _ in range(ROUNDS):
        right = torch.zeros_like(n)
        for fold in (folds, ~folds):
            rows = known & fold
            part = (z[rows], labels[rows], place[rows], whole, DRO_STRENGTH)
            head = weighted_regression(problem.head, *part, counted)
            out = known & ~fold
            ok = (head(z[out]).argmax(1) == labels[out]).double()
            right += torch.bincount(place[out], ok, minlength=len(n))
        counted = counted * (step * (1 - right / n.clamp_min(1))).exp()
    rows = known
    part = (z[rows], labels[rows], place[rows], whole, DRO_STRENGTH)
    return weighted_regression(problem.head, *part, counted)


def reweighted(problem: Problem, strength: float) -> Head:
    """Deep feature reweighting: l1, averaged over balanced draws (Kirichenko et al. 2023)."""
    z, labels = problem.features.arrays()
    draws = [balanced_draw(problem.groups, seed) for seed in range(DRAWS)]
    whole = torch.ones(z.shape[1], dtype=torch.bool)
    return balanced_regression(problem.head, z, labels, draws, whole, strength)


def group_balanced_within(problem: Problem, k: float) -> Head:
    """Every group alike, with only the features that a sparse head of size k reads."""
    support = problem.supports[int(k)]
    return _weighted(problem, problem.groups, 0.03, support)


MENDS = (
    Mend("as it is", False, (0,), as_it_is),
    Mend("suspects off", False, (1, 3, 10, 30, 100), suspects_off),
    Mend("suspects capped", False, (1, 3, 10, 30, 100), suspects_capped),
    Mend("refit to labels", False, STRENGTHS, refitted_to_labels),
    Mend("refit, classes balanced", False, STRENGTHS, class_balanced),
    Mend("refit, mistakes balanced", False, STRENGTHS, mistakes_balanced),
    Mend("refit, groups balanced", True, STRENGTHS, group_balanced),
    Mend("refit, worst groups first", True, (0.25, 0.5, 1.0), worst_groups_first),
    Mend("DFR (l1, balanced draws)", True, (0.03, 0.1, 0.3, 1.0), reweighted),
    Mend("groups balanced, sparse", True, (), group_balanced_within, sparse=True),
)


def _suspects(problem: Problem, n: int, kind: str) -> Head:
    features, head = problem.features, problem.head
    z, labels = features.arrays()
    setting = EditSetting(
        features, Moments.of(z, labels, head.n_classes), features.names(), None, head
    )
    _, listed = find_suspects(problem.contrast, n_listed=n)
    made = head
    for pair, _ in listed:
        if pair.feature is None:
            continue
        read = made.weight[pair.of] != 0
        if kind == "off" and int(read.sum()) == int(read[pair.feature]) == 1:
            continue  # a class keeps its last feature
        made = apply_edit(made, Edit(kind, feature=pair.feature, of=pair.of), setting)
    return made


def _weighted(
    problem: Problem, groups: Tensor, strength: float, support: Tensor | None = None
) -> Head:
    z, labels = problem.features.arrays()
    support = torch.ones(z.shape[1], dtype=torch.bool) if support is None else support
    return weighted_regression(problem.head, z[:, support], labels, groups, support, strength)


def _folds(groups: Tensor, seed: int) -> Tensor:
    """One half of the samples, (n_samples,) bool, every group alike."""
    generator = torch.Generator().manual_seed(seed)
    half = torch.zeros(len(groups), dtype=torch.bool)
    for group in torch.unique(groups).tolist():
        rows = (groups == group).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        half[rows[: -(-len(rows) // 2)]] = True
    return half
