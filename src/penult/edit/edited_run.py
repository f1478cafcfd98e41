"""EditedRun: a run's head with a recipe applied, its effect, and the folder it is kept in."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from penult.edit.effects import Effect
from penult.edit.fine_tune import require_fine_tune
from penult.edit.logits import LogitTable, table_file
from penult.edit.recipe import Edited, Recipe, apply_recipe
from penult.edit.setting import EditSetting
from penult.errors import InputError
from penult.features.shards import save_dense
from penult.heads.bounded_head import BoundedHead
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.measure.groups import group_frequencies
from penult.network.explicit import Reading
from penult.network.head import Head
from penult.network.write_head import write_head
from penult.progress import Progress
from penult.runs.groups import evaluated_part, groups_of
from penult.runs.lock import refuse_links
from penult.runs.reopen import Places, reopen_network
from penult.runs.run import Run
from penult.storage import write_json, write_tensors

FORMAT = "penult-edit/1"
FILES = ("recipe.json", "mends.json", "effect.json", "head.safetensors", "network.safetensors")
# Logits of so many numbers are kept in the run; fewer are computed in no time.
KEPT = 2**22


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
    sparse: tuple[str, int] | None
    recipe: Recipe
    edited: Edited
    document: dict[str, Any]

    @classmethod
    def of(
        cls,
        run: Run,
        recipe: Recipe,
        *,
        sparse: tuple[str, int] | None = None,
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
        setting = EditSetting.of(run)
        start = setting.dense if sparse is None else sparse_start(run, *sparse)
        if made_for is not None:
            named = [edit.feature for edit in recipe.edits if edit.feature is not None]
            require_fine_tune(made_for, run, named)
            recipe = replace(recipe, head=None, gives=None)
        recipe, notes = recipe.once()
        if not recipe.is_for(start):
            _refuse_other_size(recipe, run)
        recipe.require_for(start, setting.class_names)
        edited = apply_recipe(start, recipe, setting)
        notes += _without_effect(start, edited, setting)
        names = tuple(setting.class_names)
        recipe = replace(
            recipe,
            head=start.fingerprint(),
            gives=edited.head.fingerprint(),
            class_names=names,
            n_features=start.n_features,
        )
        table = logits_of(run, start, progress)
        effect = Effect.of(table, edited.head, setting.mean)
        part, features = evaluated_part(run), run.evaluation()
        groups = groups_of(run, part)
        training = training_frequencies(run) if groups is not None else None
        document = {
            "format": FORMAT,
            "run": str(run.folder),
            "head": "dense" if sparse is None else {"select": sparse[0], "k": sparse[1]},
            "before": start.fingerprint(),
            "after": edited.head.fingerprint(),
            "n_bounds": edited.head.n_bounds if isinstance(edited.head, BoundedHead) else 0,
            "part": part,
            "link": start.link,
            "n_samples": table.n_samples,
            "edits": [{**edit.document(), "described": edit.described()} for edit in recipe.edits],
            "notes": notes,
            **effect.document(names, features.ids(), groups, training),
        }
        return cls(run, start, sparse, recipe, edited, document)

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


def _refuse_other_size(recipe: Recipe, run: Run) -> None:
    """Refuse a recipe that is for another head of the run than the one that is edited; say which.

    Raises:
        InputError: with the option that edits that one.
    """
    if recipe.is_for(run.train().require_head()):
        raise InputError("the recipe is for the dense head of this run: leave -k out")
    for row in run.summary()["path"] if recipe.head is not None else ():
        select, k = row["select"], int(row["k"])
        if recipe.is_for(sparse_start(run, select, k)):
            raise InputError(
                f"the recipe is for this run's sparse head of k = {k}: give -k {k} "
                f"--select {select}"
            )


def sparse_start(run: Run, select: str, k: int) -> Head:
    """A sparse head of a run as a head with zeros."""
    head, dense = run.head(select, k), run.train().require_head()
    weight, bias = head.dense_weight().detach(), head.bias.detach()
    return replace(dense, weight=weight, bias=bias)


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


def logits_of(run: Run, head: Head, progress: Progress | None = None) -> LogitTable:
    """Logits of a head on the evaluated samples of a run; kept in the run where they are many."""
    features = run.evaluation()
    many = features.n_samples * head.n_classes >= KEPT
    if many:
        refuse_links(run.folder)
    file = table_file(run.folder / "edited" / "logits", features, head) if many else None
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
