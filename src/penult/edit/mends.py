"""Mends: all ways to mend a head, under one protocol, in one table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import stdev
from typing import Any

import torch
from torch import Tensor

from penult.edit.edit import Edit
from penult.edit.logits import LogitTable
from penult.edit.refits import balanced_draw, balanced_regression, weighted_regression
from penult.edit.registry import apply_edit
from penult.edit.setting import EditSetting
from penult.edit.suspects import find_suspects
from penult.errors import InputError
from penult.features.features import Features
from penult.features.groups import FEWEST_RANKED
from penult.features.moments import Moments
from penult.heads.bounded_head import bounded
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.groups import require_groups
from penult.runs.run import Run

FORMAT = "penult-mends/2"
FIT, CHOOSE = 0.35, 0.15  # of the samples; the rest reports
STRENGTHS = (0.001, 0.003, 0.01, 0.03, 0.1, 1.0)
DRAWS = 10
ROUNDS, DRO_STRENGTH = 4, 0.01


@dataclass(frozen=True, eq=False)
class Problem:
    """What a mend may look at.

    Attributes:
        head: that is to be mended.
        features: of the samples that it is fitted to.
        groups: (n_samples,) int64 of these; -1 where none.
        n_fitted: samples that the head was fitted to.
        supports: by k, the features (n_features,) bool that a sparse head of the run reads.
    """

    head: Head
    features: Features
    groups: Tensor
    n_fitted: int
    supports: dict[int, Tensor]


@dataclass(frozen=True)
class Mend:
    """One way to mend a head.

    Attributes:
        name: in the table.
        grouped: whether it needs the samples' groups to be fitted and chosen.
        settings: what is chosen among.
        make: the mended head.
    """

    name: str
    grouped: bool
    settings: tuple[float, ...]
    make: Callable[[Problem, float], Head]


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
    Mend("groups balanced, sparse", True, (), group_balanced_within),
)


def compare_mends(
    run: Run,
    attribute: str,
    *,
    seeds: int = 5,
    mends: Sequence[Mend] = MENDS,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Try all mends of a run's dense head on its evaluation samples, in one protocol.

    For each seed the samples with a group are split, each group alike: 35 % fit, 15 % choose the
    setting (by the worst group where a mend uses groups, else by the mean over the classes), then
    the mend is fitted to both and reported on the other half, which it has never seen. Which mend
    is the best is chosen by the second part too, never by the reported half: once among all by the
    worst group, once among those without groups by the mean over the classes.

    Args:
        run: with groups of its evaluated samples.
        attribute: whose groups are meant.
        seeds: number of splits.
        mends: which to try.
        progress: called with (mends done, mends in all).

    Raises:
        InputError: no groups, or too few samples in them to be split.
    """
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, found {seeds}")
    features, head = run.evaluation(), run.train().require_head()
    features.require_one_label("a comparison of mends")
    found = require_groups(run).attribute(attribute)
    groups = found.groups(features.labels())
    sizes = torch.bincount(groups[groups >= 0])
    if not bool((sizes >= 2 * FEWEST_RANKED).any()):
        raise InputError(
            f"no group of {attribute} has {2 * FEWEST_RANKED} samples: they cannot be split in two"
        )
    supports = _supports(run)
    tried = [replace(mend, settings=mend.settings or tuple(map(float, supports))) for mend in mends]
    tried = [mend for mend in tried if mend.settings]
    rows: dict[str, list[dict[str, Any]]] = {mend.name: [] for mend in tried}
    z, labels = features.arrays()
    for seed in range(seeds):
        parts = _split(groups, seed)
        problems = [
            Problem(head, features.subset(part), groups[part], run.train().n_samples, supports)
            for part in (parts[0], parts[0] | parts[1])
        ]
        second, third = [(z[part], labels[part], groups[part]) for part in parts[1:]]
        for i, mend in enumerate(tried):
            chosen, told = _chosen(mend, problems[0], *second)
            made = mend.make(problems[1], chosen)
            within = mend.make is group_balanced_within
            touched = _read(made.weight) if within else _touched(head, made)
            row = {**_told(made, *third), "setting": chosen, "features": float(touched.sum())}
            rows[mend.name].append({**row, "chosen": told})
            if progress is not None:
                progress(seed * len(tried) + i + 1, seeds * len(tried))
    base = rows[tried[0].name]
    return {
        "format": FORMAT,
        "run": str(run.folder),
        "attribute": attribute,
        "n_samples": int((groups >= 0).sum()),
        "seeds": seeds,
        "mends": [
            {
                "name": mend.name,
                "groups_needed": mend.grouped,
                **_summed(rows[mend.name], base),
            }
            for mend in tried
        ],
        "best": {
            "with_groups": _best(rows, base, [mend.name for mend in tried], "worst"),
            "without_groups": _best(
                rows, base, [mend.name for mend in tried if not mend.grouped], "mean_of_classes"
            ),
        },
    }


def best_mend(document: dict[str, Any]) -> str:
    """The mend that the second part of the samples chose most often, by the worst group."""
    names: list[str] = document["best"]["with_groups"]["mends"]
    return max(dict.fromkeys(names), key=names.count)


def _best(
    rows: dict[str, list[dict[str, Any]]],
    base: list[dict[str, Any]],
    names: Sequence[str],
    by: str,
) -> dict[str, Any]:
    """What comes out where the second part also chooses the mend, split by split."""
    chosen = [
        max(names, key=lambda name: (rows[name][i]["chosen"][by], rows[name][i]["chosen"]["mean"]))
        for i in range(len(base))
    ]
    told = [rows[name][i] for i, name in enumerate(chosen)]
    return {"mends": chosen, "by": by, **_summed(told, base)}


def fitted_mend(run: Run, document: dict[str, Any], name: str) -> Head:
    """A mend of a table, fitted to all evaluation samples that have a group.

    Its setting is the one that was chosen most often. What the table says of it holds for samples
    like these; on these themselves, to which it is fitted now, it would look better than it is.

    Raises:
        InputError: the table has no such mend.
    """
    rows = {row["name"]: row for row in document["mends"]}
    if name not in rows:
        raise InputError(f"no mend is called {name!r}; there are {', '.join(rows)}")
    mend = next(one for one in MENDS if one.name == name)
    settings = rows[name]["settings"]
    setting = max(dict.fromkeys(settings), key=settings.count)
    features = run.evaluation()
    found = require_groups(run).attribute(document["attribute"])
    groups = found.groups(features.labels())
    known = groups >= 0
    problem = Problem(
        run.train().require_head(),
        features.subset(known),
        groups[known],
        run.train().n_samples,
        _supports(run),
    )
    return mend.make(problem, setting)


def _supports(run: Run) -> dict[int, Tensor]:
    return {
        int(row["k"]): _read(run.head(row["select"], int(row["k"])).dense_weight())
        for row in run.summary()["path"]
    }


def _suspects(problem: Problem, n: int, kind: str) -> Head:
    features, head = problem.features, problem.head
    z, labels = features.arrays()
    setting = EditSetting(
        features, Moments.of(z, labels, head.n_classes), features.names(), None, head
    )
    table = LogitTable(features, head)
    _, listed = find_suspects(table, n_fitted=problem.n_fitted, n_listed=n)
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


def _read(weight: Tensor) -> Tensor:
    return (weight != 0).any(0)


def _touched(before: Head, after: Head) -> Tensor:
    """Features with other weights or with a bound, (n_features,) bool."""
    return (after.weight != before.weight).any(0) | (bounded(after).directions != 0).any(0)


def _split(groups: Tensor, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Samples that fit, choose and report, (n_samples,) bool each, every group alike."""
    generator = torch.Generator().manual_seed(seed)
    parts = torch.zeros(3, len(groups), dtype=torch.bool)
    for group in torch.unique(groups[groups >= 0]).tolist():
        rows = (groups == group).nonzero()[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        first, second = round(FIT * len(rows)), round((FIT + CHOOSE) * len(rows))
        for part, chosen in zip(
            parts, (rows[:first], rows[first:second], rows[second:]), strict=True
        ):
            part[chosen] = True
    return parts[0], parts[1], parts[2]


def _chosen(
    mend: Mend, problem: Problem, z: Tensor, labels: Tensor, groups: Tensor
) -> tuple[float, dict[str, float]]:
    """The best of a mend's settings on samples it was not fitted to, and what it does there."""
    found = []
    for setting in mend.settings:
        told = _told(mend.make(problem, setting), z, labels, groups)
        by = (told["worst" if mend.grouped else "mean_of_classes"], told["mean"])
        found.append((by, setting, told))
    _, setting, told = max(found, key=lambda row: row[0])
    return setting, told


def _told(head: Head, z: Tensor, labels: Tensor, groups: Tensor) -> dict[str, float]:
    right = (head(z).argmax(1) == labels).double()
    n = torch.bincount(groups)
    by_group = torch.bincount(groups, right)[n > 0] / n[n > 0]
    ranked = by_group[n[n > 0] >= FEWEST_RANKED]
    m = torch.bincount(labels)
    return {
        "worst": float((ranked if len(ranked) else by_group).min()),
        "mean": float(right.mean()),
        "mean_of_groups": float(by_group.mean()),
        "mean_of_classes": float((torch.bincount(labels, right)[m > 0] / m[m > 0]).mean()),
    }


def _summed(rows: list[dict[str, Any]], base: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean over the seeds with the standard deviation, the least and the most."""
    found: dict[str, Any] = {}
    for name in ("worst", "mean", "mean_of_groups"):
        values = [row[name] for row in rows]
        found[name] = sum(values) / len(values)
        found[f"{name}_range"] = [min(values), max(values)]
        found[f"{name}_sd"] = stdev(values) if len(values) > 1 else None
    lost = [old["mean"] - new["mean"] for old, new in zip(base, rows, strict=True)]
    found["lost"] = sum(lost) / len(lost)
    found["features"] = sum(row["features"] for row in rows) / len(rows)
    found["settings"] = [row["setting"] for row in rows]
    return found
