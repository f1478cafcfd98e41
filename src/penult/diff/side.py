"""Side: one of the two heads that are compared, with the samples that it is judged on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from penult.edit.desk import sparse_start
from penult.edit.recipe import Recipe, apply_recipe
from penult.edit.setting import EditSetting
from penult.errors import InputError
from penult.features.features import Features
from penult.network.head import Head
from penult.network.link import decided
from penult.runs.run import Run
from penult.runs.tune.folder import selection
from penult.text import is_number

ROWS = 4096  # samples of one step
EXPECTED = "expected RUN, RUN@dense, RUN@k5 or RUN@recipe.json"


@dataclass(frozen=True, eq=False)
class Side:
    """A head of a run on the samples that judge it.

    Attributes:
        name: as the user gave it.
        run: whose head it is.
        head: dense, sparse (as a head with zeros) or edited.
        dense: whether it is the network's own, whose recorded classes count.
        starts: the head before edits, where there were any.
    """

    name: str
    run: Run
    head: Head
    dense: bool
    starts: Head | None = None

    @classmethod
    def read(cls, text: str) -> Side:
        """The side that a text names: `RUN`, `RUN@dense`, `RUN@k5` or `RUN@recipe.json`.

        Args:
            text: a run folder, alone for its network, else with what of it is meant: `dense`,
                `k` and a size for the sparse head of that size, or a recipe (a path, which may
                also lie in the run folder).

        Raises:
            InputError: no run, no such head, a recipe for another head.
        """
        if not text.strip():
            raise InputError(f"expected the folder of a run, found an empty name: {EXPECTED}")
        folder, at, what = (text, "", "") if Path(text).is_dir() else _split(text)
        run = Run.open(folder)
        features = run.evaluation()
        features.require_one_label("a comparison of networks")
        dense = run.train().require_head()
        if not at or what == "dense":
            return cls(text, run, dense, True)
        if what.startswith("k") and is_number(what[1:]):
            k = int(what[1:])
            return cls(text, run, sparse_start(run, selection(run, k, None), k), False)
        file = next((f for f in (Path(what), run.folder / what) if f.exists()), None)
        if file is None:
            raise InputError(
                f"{text}: {what} is neither a head nor a recipe that exists: {EXPECTED}"
            )
        recipe = Recipe.load(file / "recipe.json" if file.is_dir() else file)
        recipe, _ = recipe.once()
        start = _start(run, dense, recipe)
        setting = EditSetting.of(run)
        recipe.require_for(start, setting.class_names)
        return cls(text, run, apply_recipe(start, recipe, setting).head, False, start)

    @property
    def class_names(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return tuple(self.run.summary()["class_names"])

    @property
    def features(self) -> Features:
        """Of the samples that judge."""
        return self.run.evaluation()

    @cached_property
    def _parts(self) -> list[Tensor]:
        return self.features.mapped()

    def rows(self, rows: Tensor) -> Tensor:
        """Features of some samples in the order that is asked for, (n, n_features) float32."""
        found = torch.empty(len(rows), self.head.n_features)
        start = 0
        for part in self._parts:
            inside = (rows >= start) & (rows < start + len(part))
            found[inside] = part[rows[inside] - start].float()
            start += len(part)
        return found

    def logits(self, rows: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Logits (n, n_classes) of some samples, step by step, with their place among them."""
        for start in range(0, len(rows), ROWS):
            step = slice(start, start + ROWS)
            with torch.no_grad():
                found = self.head(self.rows(rows[step]))
            yield step, found

    def classes(self) -> Tensor:
        """Class of every sample, (n_samples,) int64; as the network gave it where recorded."""
        found = []
        for block in self.features.blocks():
            if self.dense:
                found.append(block.dense_classes(self.head))
            else:
                with torch.no_grad():
                    found.append(decided(self.head(block.features), self.head.link))
        return torch.cat(found)


def _split(text: str) -> tuple[str, str, str]:
    """A run and what of it is meant, at the last `@` before which there is a folder."""
    places = [i for i, letter in enumerate(text) if letter == "@" and Path(text[:i]).is_dir()]
    if places and not text[places[-1] + 1 :]:
        raise InputError(f"{text} names nothing after the @: {EXPECTED}")
    if not places:
        named = text.partition("@")[0] or text
        raise InputError(f"{named} is no run folder: {EXPECTED}")
    return text[: places[-1]], "@", text[places[-1] + 1 :]


def _start(run: Run, dense: Head, recipe: Recipe) -> Head:
    """The head of a run that a recipe is for: the dense one, else a sparse one of its hash."""
    wanted = None if recipe.head is None else recipe.head.split()[-1]
    if wanted is None or dense.fingerprint().split()[-1] == wanted:
        return dense
    for row in run.summary()["path"]:
        head = sparse_start(run, row["select"], int(row["k"]))
        if head.fingerprint().split()[-1] == wanted:
            return head
    return dense
