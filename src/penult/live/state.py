"""HeadState: which head of a run a page looks at, and what a person has changed of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penult.edit.desk import Sparse
from penult.edit.edit import Edit, parse_edit
from penult.edit.recipe import Recipe
from penult.edit.registry import check_edit
from penult.errors import InputError
from penult.text import one_line

MOST_EDITS = 2000


@dataclass(frozen=True)
class HeadState:
    """A head of a run, with edits. The page holds it and sends it along; the server keeps none.

    Attributes:
        sparse: selection and k of the head; None for the dense one.
        edits: in order.
    """

    sparse: Sparse = None
    edits: tuple[Edit, ...] = ()

    @classmethod
    def parsed(
        cls,
        found: Any,
        heads: Sequence[tuple[str, int]],
        n_features: int,
        class_names: Sequence[str],
    ) -> HeadState:
        """What a page sends: `{"head": "dense" or {"select", "k"}, "edits": [...]}`.

        Args:
            found: from JSON.
            heads: selection and k of the run's sparse heads.
            n_features, class_names: of the run.

        Raises:
            InputError: no state, no such head, an edit that is none.
        """
        if not isinstance(found, Mapping):
            raise InputError("a state is an object of `head` and `edits`")
        unknown = [str(name) for name in found if name not in ("head", "edits")]
        if unknown:
            raise InputError(f"a state has no {one_line(unknown[0], 40)!r}: expected head, edits")
        edits = found.get("edits", [])
        if not isinstance(edits, list) or len(edits) > MOST_EDITS:
            raise InputError(f"expected a list of at most {MOST_EDITS:,} edits")
        made = tuple(parse_edit(edit, f"edit {i}") for i, edit in enumerate(edits, 1))
        for edit in made:
            check_edit(edit, n_features, class_names)
        return cls(_sparse(found.get("head", "dense"), heads), made)

    @property
    def recipe(self) -> Recipe:
        """Its edits."""
        return Recipe(self.edits)


def _sparse(head: Any, heads: Sequence[tuple[str, int]]) -> Sparse:
    if head == "dense":
        return None
    if isinstance(head, Mapping):
        wanted = (head.get("select"), head.get("k"))
        if type(wanted[1]) is int and wanted in heads:
            return str(wanted[0]), wanted[1]
    raise InputError(
        f"there is no head {one_line(str(head), 60)} in this run: expected dense, or select and k "
        "of one of its sparse heads"
    )
