"""EditedRun: a run's head with a recipe applied, its effect, and the folder it is kept in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penult.edit.desk import EditDesk, Sparse
from penult.edit.effects import Effect
from penult.edit.recipe import Edited, Recipe
from penult.errors import InputError
from penult.features.shards import save_dense
from penult.heads.bounded_head import BoundedHead
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.explicit import Reading
from penult.network.head import Head
from penult.network.write_head import write_head
from penult.progress import Progress
from penult.runs.reopen import Places, reopen_network
from penult.runs.run import Run
from penult.storage import write_json, write_tensors

FILES = ("recipe.json", "mends.json", "effect.json", "head.safetensors", "network.safetensors")


@dataclass(frozen=True, eq=False)
class EditedRun:
    """A head of a run after a recipe.

    Attributes:
        run: whose head it was.
        start: the head before, of the run.
        sparse: selection and k of the head before; None for the dense head.
        recipe: as it was applied.
        edited: the head now, with what takes each edit back.
        document: the answer: before and after, overall, by class, by group, and what flips.
    """

    run: Run
    start: Head
    sparse: Sparse
    recipe: Recipe
    edited: Edited
    document: dict[str, Any]

    @classmethod
    def of(
        cls,
        run: Run,
        recipe: Recipe,
        *,
        sparse: Sparse = None,
        made_for: Run | None = None,
        progress: Progress | None = None,
    ) -> EditedRun:
        """Apply a recipe to a head of a run.

        Args:
            run: a finished run.
            recipe: the edits.
            sparse: selection and k of a sparse head of the run; its dense head where None.
            made_for: the run that the recipe was made for, where this one's network is a fine-tune
                of that one's.
            progress: called with (samples done, samples in all) while logits are computed.

        Raises:
            InputError: a recipe for another head, edits that there are not, a class left without
                features.
        """
        return cls.at(EditDesk(run), recipe, sparse=sparse, made_for=made_for, progress=progress)

    @classmethod
    def at(
        cls,
        desk: EditDesk,
        recipe: Recipe,
        *,
        sparse: Sparse = None,
        made_for: Run | None = None,
        progress: Progress | None = None,
    ) -> EditedRun:
        """The same at a desk, which keeps what the run's other edits need too; see `of`."""
        recipe, edited, notes = desk.prepared(recipe, sparse, made_for)
        effect = Effect.of(desk.table(sparse, progress), edited.head, desk.setting.mean)
        document = desk.document(effect, sparse, recipe, edited.head, notes)
        return cls(desk.run, desk.head(sparse), sparse, recipe, edited, document)

    def save(
        self, folder: Path, places: Places | None = None, *, onwards: bool = False
    ) -> list[str]:
        """Write head, recipe, effect, and the network's weights with the head in place.

        Args:
            folder: made where absent.
            places: where the network is now, see `reopen_network`.
            onwards: replace the edit that the folder holds, as one that goes on from its recipe.

        Returns:
            What could not be written, and why; none for a run of features, which has no network.

        Raises:
            InputError: the folder holds something else, see `refuse_other_edit`.
        """
        with self.run.adding(folder):
            if not onwards:
                refuse_other_edit(folder, self.recipe)
            return self._save(folder, places)

    def _save(self, folder: Path, places: Places | None) -> list[str]:
        names = self.recipe.class_names
        assert names is not None
        self.recipe.save(folder / "recipe.json")
        save_head(folder / "head.safetensors", self.edited.head, names, self.sparse is not None)
        write_json(folder / "effect.json", self.document)
        return save_network(self.run, self.edited.head, folder, places)


def refuse_other_edit(folder: Path, recipe: Recipe) -> None:
    """Refuse a folder that holds another edit than this, or a head that no edit wrote.

    Raises:
        InputError: says which.
    """
    file = folder / "recipe.json"
    if file.is_file():
        held = Recipe.load(file)
        if held.edits == recipe.edits and recipe.head in (None, held.head):
            return
        raise InputError(
            f"{folder} holds another edit: choose another folder (--out), or go on from it with "
            f"--recipe {file}"
        )
    refuse_other_head(folder)


def refuse_other_head(folder: Path) -> None:
    """Refuse a folder in which a head and its network would replace others."""
    found = next((name for name in FILES if (folder / name).exists()), None)
    if found is not None:
        raise InputError(f"{folder} holds another {found}: choose another folder (--out)")


def save_network(run: Run, head: Head, folder: Path, places: Places | None = None) -> list[str]:
    """Write the weights of a run's network with another head in place, which `--weights` loads.

    Returns:
        What could not be written, and why; none for a run of features, which has no network.
    """
    if "network" not in run.about:
        return []
    try:
        if "reading" in run.about["network"]:
            raise InputError(
                "several layers, or none, compute the network's logits, so that the head has no "
                "place in its weights: take the head file, and read its features as "
                f"{Reading.from_json(run.about['network']['reading'])}"
            )
        if isinstance(head, BoundedHead):
            raise InputError(
                "a head with bounds is no linear layer: put it in the network's place with "
                "penult.replace_head"
            )
        model = reopen_network(run, places)
        write_head(model, run.train().require_head(), head)
    except InputError as error:
        return [f"the network's weights are not written: {error}"]
    write_tensors(folder / "network.safetensors", model.state_dict(), {"format": "pt"})
    return []


def save_head(path: Path, head: Head, class_names: tuple[str, ...], sparse: bool) -> None:
    """Write a head: with bounds, sparse (`penult-head/1`) or dense (`penult-dense/1`)."""
    if isinstance(head, BoundedHead):
        head.save(path, class_names)
    elif sparse:
        subspaces = Subspaces.where(head.weight != 0)
        made = SparseHead.from_dense(head.weight, head.bias, subspaces, head.name)
        made.save(path, class_names, {"select": "edited", "refit": "edited"})
    else:
        save_dense(path, head)
