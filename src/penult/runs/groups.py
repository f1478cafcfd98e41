"""Groups of a run's samples: taken from a file, kept in the run folder, found again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from penult.errors import InputError
from penult.features.features import Features
from penult.features.groups import Groups, GroupsTable
from penult.runs.run import Run
from penult.text import one_line, some


@dataclass(frozen=True)
class Matched:
    """How a groups file fits the samples of a run.

    Attributes:
        attributes: the names that were taken.
        n_unknown: rows of the file that name no sample of the run.
        unknown: the first of them.
        without: by part of the run, samples that the file does not name.
        first_without: by part, the first of these.
        n_samples: by part.
    """

    attributes: tuple[str, ...]
    n_unknown: int
    unknown: tuple[str, ...]
    without: Mapping[str, int]
    first_without: Mapping[str, tuple[str, ...]]
    n_samples: Mapping[str, int]

    def warnings(self) -> list[str]:
        """What a user must know: rows and samples that found no partner."""
        said = []
        if self.n_unknown:
            names = ", ".join(one_line(name, 60) for name in self.unknown[:3])
            rows = "rows of the groups file name" if self.n_unknown > 1 else "row names"
            said.append(f"{self.n_unknown:,} {rows} no sample of the run, the first: {names}")
        for part, n in self.without.items():
            if n:
                names = ", ".join(one_line(name, 60) for name in self.first_without[part][:3])
                said.append(
                    f"{n:,} of the {self.n_samples[part]:,} samples of {part} have no group, the "
                    f"first: {names}; they are left out of the numbers by group"
                )
        return said

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "attributes": list(self.attributes),
            "n_unknown": self.n_unknown,
            "unknown": list(self.unknown),
            "without": dict(self.without),
            "n_samples": dict(self.n_samples),
        }


def groups_file(run: Run, part: str) -> Path:
    """Where the groups of a part of the run lie."""
    return run.folder / "groups" / f"{part}.safetensors"


def parts_of(run: Run) -> dict[str, Features]:
    """The sets of samples of a run, by name."""
    parts = {"train": run.train()}
    if run.has_evaluation:
        parts["eval"] = run.evaluation()
    return parts


def evaluated_part(run: Run) -> str:
    """The part on which accuracies are measured."""
    return "eval" if run.has_evaluation else "train"


def groups_of(run: Run, part: str) -> Groups | None:
    """The groups of a part of the run, None where none were given."""
    path = groups_file(run, part)
    if not path.is_file():
        return None
    return Groups.load(path, parts_of(run)[part].n_samples)


def require_groups(run: Run, part: str | None = None) -> Groups:
    """The groups of the evaluated part (or of another); refuses a run without."""
    part = part or evaluated_part(run)
    found = groups_of(run, part)
    if found is None:
        raise InputError(
            f"the samples of {part} of {run.folder} have no groups: give them with penult groups "
            f"{run.folder} FILE"
        )
    return found


def accuracies_file(run: Run) -> Path:
    """Where the accuracies by group lie once they are measured."""
    return run.folder / "groups" / "accuracies.json"


def add_groups(run: Run, table: GroupsTable, part: str | None = None) -> Matched:
    """Give the samples of a run their groups; replaces earlier ones of the same part.

    Args:
        run: a finished run.
        table: from `read_groups`.
        part: "train" or "eval", whose samples the file names; both where None, which needs names
            that tell them apart.

    Raises:
        InputError: no sample of the run in the file; a part that the run does not have; names that
            stand for samples of both parts.
    """
    parts = parts_of(run)
    parts["train"].require_one_label("accuracy by groups")
    if part is not None:
        if part not in parts:
            raise InputError(f"{run.folder} has no part {part!r}; it has {some([*parts])}")
        parts = {part: parts[part]}
    ids = {name: features.ids() for name, features in parts.items()}
    rows = {}
    unknown: set[str] = set(table.keys)
    for name, names in ids.items():
        rows[name], missing = table.match(names)
        unknown &= set(missing)
    _require_a_match(run, table, rows, ids, len(unknown))
    without = {}
    with run.writing():
        for name, found in rows.items():
            without[name] = (found < 0).nonzero()[:, 0].tolist()
            if len(without[name]) < len(found):
                table.groups(found).save(groups_file(run, name))
        # Earlier ones go when the new are there, so that a full disk loses neither.
        for name, found in rows.items():
            if len(without[name]) == len(found):
                groups_file(run, name).unlink(missing_ok=True)
        # What was measured by the groups before is no longer true of the run.
        accuracies_file(run).unlink(missing_ok=True)
    names = [key for key in table.keys if key in unknown]
    return Matched(
        tuple(table.attributes),
        len(names),
        tuple(names[:5]),
        {name: len(missing) for name, missing in without.items()},
        {name: tuple(ids[name][i] for i in missing[:5]) for name, missing in without.items()},
        {name: len(found) for name, found in rows.items()},
    )


def _require_a_match(
    run: Run,
    table: GroupsTable,
    rows: Mapping[str, torch.Tensor],
    ids: Mapping[str, Sequence[str]],
    n_unknown: int,
) -> None:
    if n_unknown == len(set(table.keys)):
        theirs = one_line(table.keys[0], 60)
        ours = one_line(next(iter(ids.values()))[0], 60)
        raise InputError(
            f"{table.where} names no sample of {run.folder}: its first is called {theirs}, the "
            f"run's first {ours}; expected the same names, or ends of paths, or a column `row`"
        )
    if len(rows) < 2:
        return
    both = set(rows["train"][rows["train"] >= 0].tolist())
    both &= set(rows["eval"][rows["eval"] >= 0].tolist())
    if both:
        row = min(both)
        raise InputError(
            f"{table.where}: {one_line(table.keys[row], 60)} names a sample of train and one of "
            f"eval ({len(both):,} rows do): say which part the file is about with --part train or "
            "--part eval"
        )
