"""Many runs: what differs by the seed of the training, and what by a change."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from penult.diff.compare import SURE, TwoSides
from penult.diff.shared import Shared
from penult.diff.side import Side
from penult.errors import InputError
from penult.features.groups import Groups
from penult.intervals import holm
from penult.progress import Progress
from penult.runs.groups import evaluated_part, groups_of
from penult.text import called, percent

FORMAT = "penult-diff-many/1"
LISTED = 50


def compare_many(
    seeds: Sequence[Side],
    changed: Sequence[Side] = (),
    progress: Callable[[str], Progress] | None = None,
) -> dict[str, Any]:
    """How much runs differ that were trained alike, and whether a change did more than that.

    Two trainings with other seeds are right on other samples, by luck. The accuracy of each run on
    the samples that all have is one observation: their standard deviation is what a seed does, and
    a change counts only where it is large beside that (the two-sample t test with one variance,
    Student 1908; p values of classes and groups corrected by Holm 1979).

    Args:
        seeds: at least two runs that differ only by their seed.
        changed: runs after the change; none where seeds alone are of interest.
        progress: called with the name of a phase; gives what hears of (done, in all).

    Returns:
        The document `penult-diff-many/1`: accuracy overall, by class and by group, each with the
        spread by seed and the change with its 95 % interval; samples on which seeds do not agree,
        and those that the change alone broke or mended; of each class how much of its evidence
        changes between two seeds, and by the change.

    Raises:
        InputError: fewer than two seeds, or one twice; no sample in common; multi-label data.
    """
    if len(seeds) < 2:
        raise InputError(
            "expected at least two runs that differ by their seed: one shows no spread, found "
            f"{len(seeds)}"
        )
    for alike in (seeds, changed):
        _require_different(alike)
    sides = [*seeds, *changed]
    table = _RightByRun.of(sides, len(seeds))
    pairs = _pairs(sides, len(seeds), progress)
    found: dict[str, Any] = {
        "format": FORMAT,
        "seeds": [side.name for side in seeds],
        "changed": [side.name for side in changed],
        "n_samples": len(table.rows),
        "overall": table.row(torch.ones(len(table.rows), dtype=torch.bool)),
        "classes": table.rows_of(
            "class",
            {name: table.labels == c for c, name in enumerate(seeds[0].class_names)},
        ),
        "groups": table.groups(seeds[0]),
        "samples": table.samples(seeds[0]),
        **pairs,
    }
    return {"verdict": verdict_of_many(found), **found}


def _require_different(sides: Sequence[Side]) -> None:
    """Refuse runs of one and the same network, which would be taken for trainings of their own.

    Raises:
        InputError: names both.
    """
    for n, side in enumerate(sides):
        for other in sides[:n]:
            if side.run.about["identity"] == other.run.about["identity"]:
                raise InputError(
                    f"{other.name} and {side.name} are of the same network and data: expected "
                    "another training for each, since a copy, or another head of it, has no seed "
                    "of its own"
                )


def verdict_of_many(found: dict[str, Any]) -> str:
    """What differs by seed and what by the change, in a few sentences."""
    overall = found["overall"]
    low, high = min(overall["values"]), max(overall["values"])
    n = len(found["seeds"])
    said = [
        f"By seed alone: {n} runs are right on {percent(low)} to {percent(high)} % of the samples "
        f"(standard deviation {100 * overall['sd']:.2f} points), and two of them differ on "
        f"{percent(found['flips']['by_seed'])} %."
    ]
    if found["changed"]:
        ends = " to ".join(f"{100 * end:+z.2f}" for end in overall["interval"])
        beyond = "more than seeds differ" if overall["sure"] else "no more than seeds may differ"
        said.append(
            f"By the change: {100 * overall['change']:+z.2f} points ({ends} with 95 % "
            f"confidence), {beyond}."
        )
        names = [row["class"] for row in found["classes"] if row["sure"]]
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            said.append(f"Beyond seeds changed: {', '.join(map(called, names[:3]))}{more}.")
    return " ".join(said)


class _RightByRun:
    """Which of the samples that all runs have each is right on.

    Attributes:
        rows: (n_samples,) numbers of the samples in the first run.
        labels: (n_samples,) classes of the first run.
        right: (n_runs, n_samples) bool.
        n_seeds: how many of the runs, the first, differ by their seed alone.
    """

    def __init__(self, rows: Tensor, labels: Tensor, right: Tensor, n_seeds: int) -> None:
        self.rows, self.labels, self.right, self.n_seeds = rows, labels, right, n_seeds

    @classmethod
    def of(cls, sides: Sequence[Side], n_seeds: int) -> _RightByRun:
        first = sides[0]
        shared = [Shared.of(first, side) for side in sides[1:]]
        rows = shared[0].old_rows
        for one in shared[1:]:
            rows = rows[torch.isin(rows, one.old_rows)]
        if not len(rows):
            raise InputError("the runs share no sample: expected the same evaluation samples")
        labels = first.features.labels()
        right = [(first.classes() == labels)[rows]]
        for one in shared:
            own = torch.zeros(len(labels), dtype=torch.bool)
            own[one.old_rows] = one.new == one.labels
            right.append(own[rows])
        return cls(rows, labels[rows], torch.stack(right), n_seeds)

    def row(self, among: Tensor) -> dict[str, Any]:
        """Accuracy of each run on some samples, (n_samples,) bool, its spread and its change."""
        n = int(among.sum())
        values = self.right[:, among].double().mean(1)
        return {"n_samples": n, **spread(values[: self.n_seeds], values[self.n_seeds :], n)}

    def rows_of(self, key: str, parts: dict[str, Tensor]) -> list[dict[str, Any]]:
        """The same of several parts, with what is sure for all of them together, largest first."""
        rows = [
            {key: name, **self.row(among)} for name, among in parts.items() if bool(among.any())
        ]
        n_samples = torch.tensor([float(row["n_samples"]) for row in rows])
        # What a seed does to one sample, over all parts: a part by itself may not vary by chance.
        usual = float((torch.tensor([row["sd"] ** 2 for row in rows]) * n_samples).mean())
        for row in rows:
            n = row["n_samples"]
            values = torch.tensor([*row["values"], *row["changed_values"]], dtype=torch.float64)
            row |= spread(values[: self.n_seeds], values[self.n_seeds :], n, usual / n)
        if not bool(self.n_seeds < len(self.right)):
            return sorted(rows, key=lambda row: -row["sd"])
        adjusted = holm([row["p"] for row in rows])
        for row, p in zip(rows, adjusted, strict=True):
            row["p_adjusted"], row["sure"] = p, p <= SURE
        return sorted(rows, key=lambda row: (not row["sure"], -abs(row["change"])))

    def groups(self, first: Side) -> dict[str, list[dict[str, Any]]]:
        """By attribute of the first run's groups."""
        found: Groups | None = groups_of(first.run, evaluated_part(first.run))
        parts = {}
        for name, attribute in ({} if found is None else found.attributes).items():
            codes = attribute.codes[self.rows]
            parts[name] = self.rows_of(
                "value", {value: codes == code for code, value in enumerate(attribute.values)}
            )
        return parts

    def samples(self, first: Side) -> dict[str, Any]:
        """How often seeds agree on samples, and which the change alone broke or mended."""
        seeds, changed = self.right[: self.n_seeds], self.right[self.n_seeds :]
        always, never = seeds.all(0), ~seeds.any(0)
        found: dict[str, Any] = {
            "always_right": int(always.sum()),
            "always_wrong": int(never.sum()),
            "by_seed": int((~always & ~never).sum()),
        }
        if len(changed):
            ids = first.features.ids()
            for key, chosen in (
                ("broken", always & ~changed.any(0)),
                ("mended", never & changed.all(0)),
            ):
                rows = self.rows[chosen]
                found[key] = {
                    "n_samples": len(rows),
                    "ids": [ids[row] for row in rows[:LISTED].tolist()],
                }
        return found


def spread(seeds: Tensor, changed: Tensor, n: int, floor: float = 0.0) -> dict[str, Any]:
    """Accuracies of runs: how far seeds lie apart, and how far the change lies beyond that.

    Args:
        seeds: (n_seeds,) float64, at least two.
        changed: (n_changed,) float64; may be empty.
        n: samples of each accuracy, which comes in steps of 1 / n.
        floor: a variance by seed below which it is not taken to be.
    """
    a, b = len(seeds), len(changed)
    found: dict[str, Any] = {
        "values": seeds.tolist(),
        "changed_values": changed.tolist(),
        "mean": float(seeds.mean()),
        "sd": float(seeds.std()),
    }
    if not b:
        return found
    from scipy.special import stdtr, stdtrit  # slow to import

    freedom = a + b - 2
    inside = float(
        (seeds - seeds.mean()).square().sum() + (changed - changed.mean()).square().sum()
    )
    # Half a sample is the least that a seed can do without being seen.
    variance = max(inside / freedom, floor, 1 / (4 * n * n))
    change = float(changed.mean() - seeds.mean())
    error = math.sqrt(variance * (1 / a + 1 / b))
    half = float(stdtrit(freedom, 0.975)) * error
    p = 2 * float(stdtr(freedom, -abs(change) / error))
    return {
        **found,
        "changed_mean": float(changed.mean()),
        "change": change,
        "interval": [max(-1.0, change - half), min(1.0, change + half)],
        "p": p,
        "sure": p <= SURE,
    }


def _pairs(
    sides: Sequence[Side], n_seeds: int, progress: Callable[[str], Progress] | None
) -> dict[str, Any]:
    """Flips and evidence between two runs of one kind, and between those before and after."""
    heard = progress("pairs of runs") if progress else lambda done, total: None
    pairs = [*combinations(range(len(sides)), 2)]
    flips: dict[bool, list[float]] = {False: [], True: []}
    changed: dict[str, dict[bool, list[float]]] = {}
    for done, (i, j) in enumerate(pairs):
        heard(done, len(pairs))
        across = (i < n_seeds) != (j < n_seeds)
        document = TwoSides.of(sides[i], sides[j]).document
        flips[across].append(
            sum(document["flips"][kind]["rate"] for kind in ("negative", "positive"))
        )
        for name, part in document["evidence"]["changed"].items():
            changed.setdefault(name, {False: [], True: []})[across].append(part)
    heard(len(pairs), len(pairs))
    rows: list[dict[str, Any]] = []
    excess: dict[str, float] = {}
    for name, parts in changed.items():
        inside, across_it = _mean(parts[False]), _mean(parts[True])
        beyond = bool(parts[True]) and min(parts[True]) > max(parts[False], default=1.0)
        rows.append({"class": name, "by_seed": inside, "by_change": across_it, "beyond": beyond})
        excess[name] = (across_it or 0.0) - (inside or 0.0)
    rows.sort(key=lambda row: (not row["beyond"], -excess[row["class"]]))
    return {
        "flips": {"by_seed": _mean(flips[False]), "by_change": _mean(flips[True])},
        "evidence": rows,
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
