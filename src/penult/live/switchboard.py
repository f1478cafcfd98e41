"""Switchboard: heads of a run under any edits, and the effect of one in the place of another."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from penult.edit.desk import EditDesk
from penult.edit.effects import Effect
from penult.edit.recipe import Edited, Recipe
from penult.edit.setting import EditSetting
from penult.live.state import HeadState
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.run import Run

KEPT_BYTES = 1 << 28  # of edited heads
KEPT_EFFECTS = 64
MOST_CHANGED = 2000
AT_ONCE = 10_000_000  # logits that are computed in no time

Refitter = Callable[[HeadState], Edited]
"""Applies the edits of a state, of which the last is a refit, where that may take long."""


@dataclass(frozen=True, eq=False)
class Switched:
    """What a page is told of a state.

    Attributes:
        document: as `penult edit --json` says it of the same recipe.
        recipe: as a file holds it.
        changed: weights, (class, feature, before, after) each, the first few.
        n_changed: how many there are.
    """

    document: dict[str, Any]
    recipe: dict[str, Any]
    changed: list[list[Any]]
    n_changed: int


class Switchboard:
    """Heads of a run under edits, with what they have in common kept.

    It may be asked by several threads, which wait for each other.

    Args:
        run: a finished run.
        folder: for logits that are too many for the memory.
        refit: applies edits that end in a refit; here where None.
    """

    def __init__(self, run: Run, folder: Path | None, refit: Refitter | None = None) -> None:
        self.desk = EditDesk(run, folder)
        self._refit = refit
        self._lock = threading.RLock()
        self._edited: OrderedDict[HeadState, Edited] = OrderedDict()
        self._classes: OrderedDict[HeadState, Tensor] = OrderedDict()
        self._effects: OrderedDict[tuple[HeadState, HeadState], Switched] = OrderedDict()

    def is_quick(self, *states: HeadState) -> bool:
        """Whether the effect of states is known at once: nothing is to be fitted or computed."""
        desk, size = self.desk, self.desk.run.evaluation().n_samples * len(self.desk.class_names)
        for state in states:
            known = state in self._classes or state.sparse in desk.tables
            if size > AT_ONCE and not known:
                return False
            ends = [n for n, edit in enumerate(state.edits, 1) if edit.kind == "refit"]
            if any(HeadState(state.sparse, state.edits[:n]) not in self._edited for n in ends):
                return False
        return True

    def head(self, state: HeadState) -> Head:
        """The head of a state.

        Raises:
            InputError: edits that there are not, a class left without features.
        """
        self._fit(state)
        with self._lock:
            return self._applied(state).head

    def effect(self, state: HeadState, progress: Progress | None = None) -> Switched:
        """What the edits of a state do to its head; see `head`."""
        return self.compare(HeadState(state.sparse), state, progress)

    def compare(
        self, before: HeadState, after: HeadState, progress: Progress | None = None
    ) -> Switched:
        """The head of one state in the place of that of another; see `head`."""
        self._fit(before)
        self._fit(after)
        with self._lock:
            key = before, after
            if key not in self._effects:
                self._effects[key] = self._compared(before, after, progress)
                if len(self._effects) > KEPT_EFFECTS:
                    self._effects.popitem(last=False)
            self._effects.move_to_end(key)
            return self._effects[key]

    def _fit(self, state: HeadState) -> None:
        """Make the refits of a state elsewhere, while others go on to be answered."""
        for n, edit in enumerate(state.edits, 1):
            now = HeadState(state.sparse, state.edits[:n])
            if edit.kind == "refit" and self._refit is not None and now not in self._edited:
                made = self._refit(now)
                with self._lock:
                    self._keep(now, made)

    def _compared(self, before: HeadState, after: HeadState, progress: Progress | None) -> Switched:
        desk = self.desk
        edited: Edited | None = None

        def apply(start: Head, recipe: Recipe, setting: EditSetting) -> Edited:
            nonlocal edited
            edited = self._applied(HeadState(after.sparse, recipe.edits))
            return edited

        recipe, _, notes = desk.prepared(after.recipe, after.sparse, apply=apply)
        assert edited is not None
        first, then = self.head(before), edited.head
        was = first, self._of(before, first, progress)
        now = then, self._of(after, then, progress)
        table = desk.table(before.sparse if before.sparse in desk.tables else None)
        effect = Effect.between(table, was, now, desk.setting.mean)
        document = desk.document(effect, after.sparse, recipe, then, notes)
        return Switched(document, recipe.document(), *_changes(first, then))

    def _of(self, state: HeadState, head: Head, progress: Progress | None) -> Tensor:
        """Classes of all samples by the head of a state."""
        if state not in self._classes:
            # A sparse head that nobody edits needs no logits of its own, which would be many.
            table = self.desk.table(state.sparse if state.edits else None, progress)
            plain = state == HeadState()
            self._classes[state] = table.classes if plain else table.classify(head)
            if len(self._classes) > KEPT_EFFECTS:
                self._classes.popitem(last=False)
        return self._classes[state]

    def _applied(self, state: HeadState) -> Edited:
        """The edits of a state; those of states that it goes on from are not made again."""
        made, rest = Edited(self.desk.head(state.sparse)), list(state.edits)
        for n in range(len(rest), 0, -1):
            known = self._edited.get(HeadState(state.sparse, state.edits[:n]))
            if known is not None:
                made, rest = known, rest[n:]
                break
        for edit in rest:
            now = HeadState(state.sparse, (*made.edits, edit))
            made = made.apply(edit, self.desk.setting)
            self._keep(now, made)
        return made

    def _keep(self, state: HeadState, made: Edited) -> None:
        self._edited[state] = made
        size = made.head.weight.numel() * made.head.weight.element_size()
        while len(self._edited) > max(4, KEPT_BYTES // max(size, 1)):
            self._edited.popitem(last=False)


def _changes(before: Head, after: Head) -> tuple[list[list[Any]], int]:
    """Weights that differ, the first few, and how many do."""
    where = (before.weight != after.weight).nonzero()
    shown = where[:MOST_CHANGED]
    c, j = shown.unbind(1)
    old, new = before.weight[c, j].tolist(), after.weight[c, j].tolist()
    rows = [[*pair, was, now] for pair, was, now in zip(shown.tolist(), old, new, strict=True)]
    return rows, len(where)
