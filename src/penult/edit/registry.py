"""The registry of edits: what each takes, how it is checked and applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from penult.edit.edit import Edit
from penult.edit.edits import cap, drop_unused, scale, set_weight, switch_off
from penult.edit.refits import check_refit, refit
from penult.edit.setting import EditSetting, feature_index
from penult.errors import InputError
from penult.heads.bounded_head import BoundedHead, bounded, simplest
from penult.network.head import Head
from penult.text import class_index, some


@dataclass(frozen=True)
class EditKind:
    """What an edit takes and does.

    Attributes:
        apply: the pure function.
        takes: fields that it reads.
        needs: of these, those that must be given; "what" is a feature or a direction.
    """

    apply: Callable[[BoundedHead, Edit, EditSetting], BoundedHead]
    takes: tuple[str, ...]
    needs: tuple[str, ...]


EDITS: dict[str, EditKind] = {
    "off": EditKind(switch_off, ("feature", "of", "component", "direction", "at"), ("what",)),
    "cap": EditKind(cap, ("feature", "of", "component", "direction", "at"), ("what",)),
    "scale": EditKind(
        scale, ("feature", "of", "component", "direction", "at", "value"), ("what", "value")
    ),
    "set": EditKind(set_weight, ("feature", "of", "value"), ("feature", "of", "value")),
    "drop": EditKind(drop_unused, ("value",), ()),
    "refit": EditKind(refit, ("to", "attribute", "pairs"), ("to",)),
}


def check_edit(edit: Edit, n_features: int, class_names: Sequence[str]) -> None:
    """Refuse an edit that lacks something, takes something it does not read, or names nothing.

    Raises:
        InputError: says which field, and what it may be.
    """
    if edit.kind not in EDITS:
        raise InputError(f"no edit is called {edit.kind!r}: expected one of {', '.join(EDITS)}")
    kind = EDITS[edit.kind]
    whats = [edit.feature, edit.component, edit.direction]
    given = {name: getattr(edit, name) for name in Edit.__dataclass_fields__}
    for name, value in given.items():
        if value is not None and name not in ("kind", "reason", *kind.takes):
            shown = "class" if name == "of" else name
            raise InputError(f"the edit {edit.kind!r} takes no {shown}")
    for name in kind.needs:
        if name == "what":
            if sum(value is not None for value in whats) != 1:
                raise InputError(
                    f"the edit {edit.kind!r} needs one of feature, component and direction"
                )
        elif given[name] is None:
            shown = "class" if name == "of" else name
            raise InputError(f"the edit {edit.kind!r} needs a {shown}")
    if edit.kind == "refit":
        check_refit(edit, n_features, class_names)
    if edit.feature is not None:
        feature_index(edit.feature, n_features)
    if edit.of is not None:
        class_index(edit.of, class_names)
    if edit.component is not None and edit.of is None:
        raise InputError(f"the edit {edit.kind!r} of a component needs the class whose it is")
    if edit.direction is not None and len(edit.direction) != n_features:
        raise InputError(
            f"a direction needs n_features = {n_features} numbers, found {len(edit.direction)}"
        )
    _require_numbers(edit)
    if isinstance(edit.at, str) and edit.at not in ("mean", "class"):
        raise InputError(f"at: expected mean, class or a number, found {edit.at!r}")


def _require_numbers(edit: Edit) -> None:
    """Refuse numbers that would leave a head without meaning."""
    for name, value in (("value", edit.value), ("at", edit.at)):
        if isinstance(value, int | float) and not math.isfinite(value):
            raise InputError(f"the edit {edit.kind!r}: {name}: expected a number, found {value}")
    if edit.direction is not None:
        length = math.hypot(*edit.direction)
        if not (math.isfinite(length) and length > 0):
            raise InputError(
                f"the edit {edit.kind!r}: expected a direction of finite numbers, not all 0"
            )
    if edit.kind == "drop" and edit.value is not None and not 0 <= edit.value <= 1:
        raise InputError(f"the edit 'drop' takes a fraction from 0 to 1, found {edit.value:g}")


def apply_edit(head: Head, edit: Edit, setting: EditSetting) -> Head:
    """The head after an edit; the given one stays as it is.

    Raises:
        InputError: see `check_edit`; an edit that leaves a class without features.
    """
    check_edit(edit, head.n_features, setting.class_names)
    made = EDITS[edit.kind].apply(bounded(head), edit, setting)
    tensors = (made.weight, made.bias, made.directions, made.bounds, made.scales)
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise InputError(
            f"{edit.described()} would make the head's numbers larger than float32 can hold "
            "(3.4e38): expected a smaller number"
        )
    empty = ~reads_features(made) & reads_features(bounded(head))
    if bool(empty.any()):
        names = [setting.class_names[c] for c in empty.nonzero()[:, 0].tolist()]
        raise InputError(
            f"{edit.described()} would leave {some(names)} without a feature: the logit would be "
            "the same for every sample; keep one feature, or refit the head first"
        )
    return simplest(made)


def reads_features(head: BoundedHead) -> torch.Tensor:
    """Which classes read any feature, (n_classes,) bool."""
    return (head.weight != 0).any(1)
