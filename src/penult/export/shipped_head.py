"""ShippedHead: the head that an export puts into a network, and where it comes from."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from penult.edit.desk import sparse_start
from penult.edit.recipe import Recipe, apply_recipe
from penult.edit.setting import EditSetting
from penult.errors import InputError
from penult.features.shards import load_dense
from penult.heads.bounded_head import FORMAT as BOUNDED
from penult.heads.bounded_head import BoundedHead
from penult.heads.sparse_head import FORMAT as SPARSE
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.head import Head
from penult.runs.run import Run
from penult.runs.tune.folder import Tuned, selection
from penult.storage import metadata_of

DENSE = "penult-dense/1"
TUNED = ("network", "head")


@dataclass(frozen=True, eq=False)
class ShippedHead:
    """A head to be exported.

    Attributes:
        head: its weights, zero where a class does not read a feature, and its bounds if it has any.
        sparse: the same as a sparse head, where it is one.
        origin: where it comes from, as `export.json` says it.
        tuned: the tuned network that it belongs to, where it was trained with one.
    """

    head: Head
    sparse: SparseHead | None
    origin: dict[str, Any]
    tuned: Tuned | None = None

    @property
    def directions(self) -> Tensor:
        """(n_bounds, n_features) of a head with bounds, else (0, n_features)."""
        if isinstance(self.head, BoundedHead):
            return self.head.directions
        return self.head.weight.new_zeros(0, self.head.n_features)

    def read(self) -> Tensor:
        """The features that any class reads, or any bound, rising: (n_read,) int64."""
        used = (self.head.weight != 0).any(0) | (self.directions != 0).any(0)
        return used.nonzero()[:, 0]

    def document(self) -> dict[str, Any]:
        """What `export.json` says of it."""
        head = self.head
        return {
            **self.origin,
            "fingerprint": head.fingerprint(),
            "layer": head.name,
            "link": head.link,
            "n_classes": head.n_classes,
            "n_features": head.n_features,
            "n_read": len(self.read()),
            "n_weights": int((head.weight != 0).sum()),
            "n_bounds": len(self.directions),
        }


def shipped_head(
    run: Run,
    *,
    k: int | None = None,
    select: str | None = None,
    recipe: Path | None = None,
    file: Path | None = None,
    tuned: str | None = None,
) -> ShippedHead:
    """The head that a user names.

    Args:
        run: whose features it reads.
        k, select: a sparse head of the run.
        recipe: edits of that head, or of the dense head where no k is given.
        file: a head file; excludes the others.
        tuned: "network" or "head": what `penult tune` made of the sparse head.

    Raises:
        InputError: nothing or too much is named, it is not there, it does not fit the run, or it
            holds NaN or infinite values.
    """
    if tuned is not None and tuned not in TUNED:
        raise InputError(f"--tuned: expected one of {', '.join(TUNED)}, found {tuned!r}")
    if file is not None:
        others = {"-k": k, "--select": select, "--recipe": recipe, "--tuned": tuned}
        named = next((name for name, value in others.items() if value is not None), None)
        if named is not None:
            raise InputError(f"--head and {named} both name a head: give one of them")
        return _checked(_of_file(run, file), str(file))
    if k is None and recipe is None:
        raise InputError("which head? Expected -k NUMBER, --recipe FILE or --head FILE")
    if k is None and (select is not None or tuned is not None):
        option = "--select" if select is not None else "--tuned"
        raise InputError(f"{option} needs -k, the size of the sparse head")
    if tuned is not None and recipe is not None:
        raise InputError("--tuned and --recipe both name a head: give one of them")
    chosen = None if k is None else (selection(run, k, select), k)
    if recipe is not None:
        return _checked(_of_recipe(run, recipe, chosen), str(recipe))
    assert chosen is not None
    name, size = chosen
    if tuned is not None:
        made = Tuned.open(run, size, name, head_only=tuned == "head")
        found = _of_sparse(run, made.head(), {"select": name, "k": size, "tuned": tuned})
        return _checked(replace(found, tuned=made), str(made.folder))
    head = run.head(name, size)
    return _checked(_of_sparse(run, head, {"select": name, "k": size}), f"{name}, k = {size}")


def _of_sparse(run: Run, sparse: SparseHead, origin: dict[str, Any]) -> ShippedHead:
    dense = run.train().require_head()
    weight, bias = sparse.dense_weight().detach(), sparse.bias.detach()
    return ShippedHead(replace(dense, weight=weight, bias=bias), sparse, origin)


def _of_recipe(run: Run, file: Path, chosen: tuple[str, int] | None) -> ShippedHead:
    setting = EditSetting.of(run)
    start = setting.dense if chosen is None else sparse_start(run, *chosen)
    recipe, _ = Recipe.load(file).once()
    if chosen is None and not recipe.is_for(start):
        _require_dense(run, file, recipe)
    recipe.require_for(start, setting.class_names)
    head = apply_recipe(start, recipe, setting).head
    origin: dict[str, Any] = {"recipe": recipe.document()}
    if chosen is None:
        return ShippedHead(head, None, {"edited": "dense", **origin})
    origin = {"select": chosen[0], "k": chosen[1], **origin}
    return ShippedHead(head, sparse_of(head), origin)


def _require_dense(run: Run, file: Path, recipe: Recipe) -> None:
    """Refuse a recipe that was made of one of the run's sparse heads, where none is named."""
    for row in run.summary().get("path", ()):
        select, k = str(row["select"]), row["k"]
        if isinstance(k, int) and recipe.is_for(sparse_start(run, select, k)):
            raise InputError(
                f"{file} edits the run's sparse head of k = {k}, and no -k is given: expected "
                f"-k {k} --select {select}"
            )


def sparse_of(head: Head) -> SparseHead | None:
    """A head without bounds as a sparse head that keeps what is not zero."""
    if isinstance(head, BoundedHead):
        return None
    kept = Subspaces.where(head.weight != 0)
    return SparseHead.from_dense(head.weight, head.bias, kept, head.name)


def _of_file(run: Run, file: Path) -> ShippedHead:
    notes = metadata_of(file)
    found = notes.get("format")
    origin = {"file": file.name}
    own = run.train().require_head()
    if found == SPARSE:
        sparse = SparseHead.load(file)
        _require_size(file, (sparse.n_classes, sparse.n_features), own)
        made = _of_sparse(run, sparse, origin)
    elif found in (BOUNDED, DENSE):
        head = BoundedHead.load(file) if found == BOUNDED else load_dense(file)
        _require_size(file, (head.n_classes, head.n_features), own)
        # Where it is in the network is the run's to say.
        placed = replace(
            head,
            name=own.name,
            reduce=own.reduce,
            verified=own.verified,
            kept=own.kept,
            n_outputs=own.n_outputs,
            link=own.link,
        )
        made = ShippedHead(placed, None, origin)
    else:
        raise InputError(
            f"{file}: expected a head file ({SPARSE}, {BOUNDED} or {DENSE}), found "
            f"{found or 'another safetensors file'}"
        )
    _require_classes(file, notes.get("class_names"), run.summary()["class_names"])
    return made


def _require_size(file: Path, found: tuple[int, int], own: Head) -> None:
    if found != (own.n_classes, own.n_features):
        raise InputError(
            f"{file} is for n_classes = {found[0]}, n_features = {found[1]}; the run's head has "
            f"n_classes = {own.n_classes}, n_features = {own.n_features}: expected a head of this "
            "network"
        )


def _require_classes(file: Path, text: str | None, names: Sequence[str]) -> None:
    if text is None:
        return
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if found != list(names):
        raise InputError(
            f"{file} names other classes than the run: expected {', '.join(names[:3])} … in this "
            "order"
        )


def _checked(found: ShippedHead, what: str) -> ShippedHead:
    head = found.head
    held = [head.weight, head.bias]
    if isinstance(head, BoundedHead):
        held += [head.directions, head.bounds, head.scales]
    if not all(bool(values.isfinite().all()) for values in held):
        raise InputError(
            f"the head of {what} holds NaN or infinite values: expected finite ones; make it anew"
        )
    return found
