"""EditDesk: what all edits of one run share, kept at hand, so that each costs little."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from penult.edit.effects import Effect
from penult.edit.fine_tune import require_fine_tune
from penult.edit.logits import LogitTable, table_file
from penult.edit.recipe import Edited, Recipe, apply_recipe
from penult.edit.setting import EditSetting
from penult.errors import InputError
from penult.features.groups import Groups
from penult.heads.bounded_head import BoundedHead
from penult.measure.groups import group_frequencies
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.groups import evaluated_part, groups_of
from penult.runs.lock import refuse_links
from penult.runs.run import Run

FORMAT = "penult-edit/1"
# Logits of so many numbers are kept in a file; fewer are computed in no time.
KEPT = 2**22
TABLES = 2  # heads whose logits are kept at hand

Applier = Callable[[Head, Recipe, EditSetting], Edited]
Sparse = tuple[str, int] | None
"""Selection and k of a sparse head of a run; None for its dense head."""


class EditDesk:
    """A run whose heads are edited, once or many times.

    Args:
        run: a finished run.
        folder: where logits are kept that are too many for the memory; by default in the run.

    Attributes:
        setting: what edits may look at.
        class_names: in the order of the logits.
        part: the samples on which effects are measured, "train" or "eval".
        tables: logits at hand, of the heads asked for last.
    """

    def __init__(self, run: Run, folder: Path | None = None) -> None:
        self.run = run
        self.setting = EditSetting.of(run)
        self.class_names: tuple[str, ...] = tuple(self.setting.class_names)
        self.part = evaluated_part(run)
        self._folder = folder
        self._heads: dict[Sparse, Head] = {None: self.setting.dense}
        self._prints: dict[Sparse, str] = {}
        self.tables: dict[Sparse, LogitTable] = {}

    @cached_property
    def ids(self) -> list[str]:
        """Name of each sample on which effects are measured."""
        return self.run.evaluation().ids()

    @cached_property
    def groups(self) -> Groups | None:
        """Groups of these samples."""
        return groups_of(self.run, self.part)

    @cached_property
    def training(self) -> dict[str, Tensor] | None:
        """By attribute, how often each group is among the samples trained on."""
        return None if self.groups is None else training_frequencies(self.run)

    def head(self, sparse: Sparse) -> Head:
        """A head of the run as it is before all edits; a sparse one with zeros."""
        if sparse not in self._heads:
            assert sparse is not None
            self._heads[sparse] = sparse_start(self.run, *sparse)
        return self._heads[sparse]

    def fingerprint(self, sparse: Sparse) -> str:
        """Of a head of the run."""
        if sparse not in self._prints:
            self._prints[sparse] = self.head(sparse).fingerprint()
        return self._prints[sparse]

    def table(self, sparse: Sparse, progress: Progress | None = None) -> LogitTable:
        """Logits of a head of the run; those of the heads asked for last are kept."""
        if sparse not in self.tables:
            made = logits_of(self.run, self.head(sparse), progress, self._folder)
            while len(self.tables) >= TABLES:
                self.tables.pop(next(iter(self.tables)))
            self.tables[sparse] = made
        else:
            self.tables[sparse] = self.tables.pop(sparse)
        return self.tables[sparse]

    def prepared(
        self,
        recipe: Recipe,
        sparse: Sparse,
        made_for: Run | None = None,
        apply: Applier = apply_recipe,
    ) -> tuple[Recipe, Edited, list[str]]:
        """A recipe applied to a head of the run: as it was applied, the head, and what to know.

        Args:
            recipe: the edits.
            sparse: the head.
            made_for: see `EditedRun.of`.
            apply: makes the edits, as `apply_recipe` does.

        Raises:
            InputError: see `EditedRun.of`.
        """
        start = self.head(sparse)
        if made_for is not None:
            named = [edit.feature for edit in recipe.edits if edit.feature is not None]
            require_fine_tune(made_for, self.run, named)
            recipe = replace(recipe, head=None, gives=None)
        recipe, notes = recipe.once()
        if not recipe.is_for(start):
            self._refuse_other_size(recipe)
        recipe.require_for(start, self.class_names)
        edited = apply(start, recipe, self.setting)
        notes += _without_effect(start, edited, self.setting)
        recipe = replace(
            recipe,
            head=self.fingerprint(sparse),
            gives=edited.head.fingerprint(),
            class_names=self.class_names,
            n_features=start.n_features,
        )
        return recipe, edited, notes

    def document(
        self, effect: Effect, sparse: Sparse, recipe: Recipe, head: Head, notes: list[str]
    ) -> dict[str, Any]:
        """What `penult edit --json` says of an edited head."""
        start = self.head(sparse)
        return {
            "format": FORMAT,
            "run": str(self.run.folder),
            "head": "dense" if sparse is None else {"select": sparse[0], "k": sparse[1]},
            "before": self.fingerprint(sparse),
            "after": recipe.gives,
            "n_bounds": head.n_bounds if isinstance(head, BoundedHead) else 0,
            "part": self.part,
            "link": start.link,
            "n_samples": effect.table.n_samples,
            "edits": [{**edit.document(), "described": edit.described()} for edit in recipe.edits],
            "notes": notes,
            **effect.document(self.class_names, self.ids, self.groups, self.training),
        }

    def _refuse_other_size(self, recipe: Recipe) -> None:
        """Refuse a recipe that is for another head of the run than the one edited; say which.

        Raises:
            InputError: with the option that edits that one.
        """
        if recipe.is_for(self.head(None)):
            raise InputError("the recipe is for the dense head of this run: leave -k out")
        for row in self.run.summary()["path"] if recipe.head is not None else ():
            select, k = row["select"], int(row["k"])
            if recipe.is_for(sparse_start(self.run, select, k)):
                raise InputError(
                    f"the recipe is for this run's sparse head of k = {k}: give -k {k} "
                    f"--select {select}"
                )


def sparse_start(run: Run, select: str, k: int) -> Head:
    """A sparse head of a run as a head with zeros."""
    head, dense = run.head(select, k), run.train().require_head()
    weight, bias = head.dense_weight().detach(), head.bias.detach()
    return replace(dense, weight=weight, bias=bias)


def logits_of(
    run: Run, head: Head, progress: Progress | None = None, folder: Path | None = None
) -> LogitTable:
    """Logits of a head on the evaluated samples of a run; kept in a file where they are many.

    Args:
        run: whose samples they are.
        head: of the same size as the run's.
        progress: called with (samples done, samples in all).
        folder: where they are kept, if the run does not hold them already; by default in the run.
    """
    features = run.evaluation()
    if features.n_samples * head.n_classes < KEPT:
        return LogitTable(features, head, None, progress)
    refuse_links(run.folder)
    file = table_file(run.folder / "edited" / "logits", features, head)
    if folder is not None and not file.is_file():
        file = folder / file.name
    return LogitTable(features, head, file, progress)


def training_frequencies(run: Run) -> dict[str, Tensor]:
    """By attribute, how often each group of the evaluated samples is among those trained on."""
    evaluated, train = groups_of(run, evaluated_part(run)), groups_of(run, "train")
    if evaluated is None or train is None or evaluated_part(run) == "train":
        return {}
    labels = run.train().labels()
    n_classes = len(run.summary()["class_names"])
    return {
        name: group_frequencies(train.attributes[name], attribute, labels, n_classes)
        for name, attribute in evaluated.attributes.items()
        if name in train.attributes
    }


def _without_effect(start: Head, edited: Edited, setting: EditSetting) -> list[str]:
    """Edits of features that the head does not read, and others that change nothing."""
    said = []
    for i, edit in enumerate(edited.edits):
        rows = slice(None) if edit.of is None else [setting.class_index(edit.of)]
        unread = edit.feature is not None and not bool(
            (start.weight[rows, edit.feature] != 0).any()
        )
        if unread and edit.kind != "set":
            whose = "no class" if edit.of is None else f"class {edit.of} does not"
            verb = "reads" if edit.of is None else "read"
            said.append(f"{edit.described()}: {whose} {verb} feature {edit.feature} in this head")
        elif edited.is_idle(i):
            before = " after the edits before it" if i else ""
            said.append(f"edit {i + 1} ({edit.described()}) changes nothing{before}")
    return said
