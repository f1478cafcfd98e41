"""MendTable: all ways to mend a head, under one protocol, in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import stdev
from typing import Any

import torch
from torch import Tensor

from penult.edit.mends import MENDS, Mend, Problem
from penult.edit.shortcuts import trained_on
from penult.errors import InputError
from penult.features.groups import FEWEST_RANKED
from penult.heads.bounded_head import bounded
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.groups import evaluated_part, require_groups
from penult.runs.run import Run

FORMAT = "penult-mends/2"
FIT, CHOOSE = 0.35, 0.15  # of the samples; the rest reports


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
        progress: called with (heads fitted, heads in all).

    Raises:
        InputError: no groups, or too few samples in them to be split.
    """
    if seeds < 1:
        raise InputError(f"seeds must be at least 1, found {seeds}")
    features = run.evaluation()
    features.require_one_label("a comparison of mends")
    found = require_groups(run).attribute(attribute)
    groups = found.groups(features.labels())
    sizes = torch.bincount(groups[groups >= 0])
    if not bool((sizes >= 2 * FEWEST_RANKED).any()):
        raise InputError(
            f"no group of {attribute} has {2 * FEWEST_RANKED} samples: they cannot be split in two"
        )
    problem = _problem(run, groups)
    sizes_of_heads = tuple(map(float, problem.supports))
    tried = [replace(mend, settings=mend.settings or sizes_of_heads) for mend in mends]
    tried = [mend for mend in tried if mend.settings]
    heard = _Heard(progress, seeds * sum(len(mend.settings) + 1 for mend in tried))
    rows: dict[str, list[dict[str, Any]]] = {mend.name: [] for mend in tried}
    for seed in range(seeds):
        for mend, row in _split_told(problem, tried, seed, heard):
            rows[mend.name].append(row)
    base = rows[tried[0].name]
    ungrouped = [mend.name for mend in tried if not mend.grouped]
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
            "without_groups": _best(rows, base, ungrouped, "mean_of_classes"),
        },
    }


class _Heard:
    """Counts heads that were fitted."""

    def __init__(self, progress: Progress | None, whole: int) -> None:
        self._progress, self._whole, self._done = progress, whole, 0

    def one(self) -> None:
        """One more is done."""
        self._done += 1
        if self._progress is not None:
            self._progress(self._done, self._whole)


def _split_told(
    problem: Problem, tried: Sequence[Mend], seed: int, heard: _Heard
) -> Iterator[tuple[Mend, dict[str, Any]]]:
    """Each mend, chosen on one part of the samples and reported on another that it has not seen."""
    z, labels = problem.features.arrays()
    parts = _split(problem.groups, seed)
    first, both = (problem.of(part) for part in (parts[0], parts[0] | parts[1]))
    second, third = [(z[part], labels[part], problem.groups[part]) for part in parts[1:]]
    for mend in tried:
        setting, chosen = _chosen(mend, first, *second, heard)
        made = mend.make(both, setting)
        touched = _read(made.weight) if mend.sparse else _touched(problem.head, made)
        told = _told(made, *third)
        heard.one()
        features = float(touched.sum())
        yield mend, {**told, "setting": setting, "features": features, "chosen": chosen}


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
    found = require_groups(run).attribute(document["attribute"])
    groups = found.groups(run.evaluation().labels())
    return mend.make(_problem(run, groups).of(groups >= 0), setting)


def _problem(run: Run, groups: Tensor) -> Problem:
    """All evaluation samples of a run, (n_samples,) int64 with their groups."""
    features, head = run.evaluation(), run.train().require_head()
    fewest = features.n_samples
    trained = None if evaluated_part(run) == "train" else trained_on(run, fewest)
    return Problem(head, features, groups, trained, _supports(run))


def _supports(run: Run) -> dict[int, Tensor]:
    return {
        int(row["k"]): _read(run.head(row["select"], int(row["k"])).dense_weight())
        for row in run.summary()["path"]
    }


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
    mend: Mend, problem: Problem, z: Tensor, labels: Tensor, groups: Tensor, heard: _Heard
) -> tuple[float, dict[str, float]]:
    """The best of a mend's settings on samples it was not fitted to, and what it does there."""
    found = []
    for setting in mend.settings:
        told = _told(mend.make(problem, setting), z, labels, groups)
        by = (told["worst" if mend.grouped else "mean_of_classes"], told["mean"])
        found.append((by, setting, told))
        heard.one()
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
