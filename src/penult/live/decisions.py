"""Decisions: what a head makes of one sample, also with values of features that a person chose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from penult.edit.effects import taken_by_bounds
from penult.errors import InputError
from penult.explain.given_classes import one_class
from penult.explain.reasons import Box, sufficient_reason
from penult.explain.survey import called
from penult.heads.bounded_head import BoundedHead, bounded
from penult.network.head import Head
from penult.network.link import decided, probabilities

CLASSES_LISTED = 10
TERMS_LISTED = 40
PROOF_SECONDS = 0.05  # while a person drags a value


def with_values(z: Tensor, values: Mapping[str, Any]) -> Tensor:
    """Features (n_features,) with some of them as given.

    Raises:
        InputError: no such feature, no finite number.
    """
    made = z.clone()
    for name, value in values.items():
        if not (name.isascii() and name.isdecimal() and len(name) < 10) or int(name) >= len(z):
            raise InputError(f"there is no feature {name:.20}: expected 0 to {len(z) - 1}")
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not abs(value) < 3e38:
            raise InputError(f"feature {name}: expected a number, found {value!r:.40}")
        made[int(name)] = float(value)
    return made


def decision_on(
    head: Head,
    z: Tensor,
    box: Box,
    label: int | tuple[int, ...] | None,
    of: int | None = None,
    also: Sequence[int] = (),
) -> dict[str, Any]:
    """What a head makes of a sample, feature by feature; the parts add up to the total.

    Args:
        head: with bounds or without.
        z: (n_features,) float32.
        box: the range of each feature in the analysed data.
        label: class that the data says, or classes of multi-label data; None where it does not.
        of: the class that is taken apart; the one predicted, or that of the largest logit.
        also: features that are listed however little they add.

    Returns:
        As the page holds it; `against` is the label where the prediction is wrong, else the class
        that comes next.
    """
    if of is not None and not 0 <= of < head.n_classes:
        raise InputError(f"there is no class {of}: expected 0 to {head.n_classes - 1}")
    with torch.no_grad():
        logits = head(z[None].double())[0]
    several = head.multi_label
    likely = probabilities(logits[None], head.link)[0]
    order = logits.sort(descending=True, stable=True).indices.tolist()
    c = order[0] if of is None else of
    against = None if several else _against(c, order, label)
    listed = order[:CLASSES_LISTED]
    others = label if isinstance(label, tuple) else (label,)
    listed += [one for one in (c, *others) if one is not None and one not in listed]
    return {
        "predicted": called(decided(logits[None], head.link)[0]),
        "label": label,
        "classes": [[one, float(logits[one]), float(likely[one])] for one in listed],
        **_parts(head, z, box, c, against, also),
        "reason": _reason(head, z, box, c),
    }


def _against(c: int, order: list[int], label: int | tuple[int, ...] | None) -> int | None:
    """The class whose logit is subtracted."""
    if isinstance(label, int) and label != c:
        return label
    return next((other for other in order if other != c), None)


def _parts(
    head: Head, z: Tensor, box: Box, c: int, against: int | None, also: Sequence[int]
) -> dict[str, Any]:
    """A logit, or a difference of two, feature by feature."""
    edited, wide = bounded(head), z[None].double()
    weight, bias = edited.weight[c].double(), edited.bias[c].double()
    parts = weight * wide[0] - taken_by_bounds(edited, wide, torch.tensor([c]))[0]
    read = weight != 0
    if against is not None:
        other = edited.weight[against].double()
        parts = parts - other * wide[0]
        parts = parts + taken_by_bounds(edited, wide, torch.tensor([against]))[0]
        weight, read = weight - other, read | (other != 0)
        bias = bias - edited.bias[against].double()
    rows = read.nonzero()[:, 0]
    order = rows[parts[rows].abs().sort(descending=True, stable=True).indices]
    few = torch.tensor([j for j in also if j not in order[:TERMS_LISTED]], dtype=torch.int64)
    shown = torch.cat([order[:TERMS_LISTED], few])
    columns = (wide[0], weight, parts, box.low, box.high)
    total = float(parts.sum() + bias)
    return {
        "of": c,
        "against": against,
        "total": total,
        "bias": float(bias),
        "rest": total - float(bias) - float(parts[shown].sum()),
        "terms": [
            [j, *values]
            for j, values in zip(
                shown.tolist(), torch.stack([x[shown] for x in columns], 1).tolist(), strict=True
            )
        ],
    }


def _reason(head: Head, z: Tensor, box: Box, c: int) -> dict[str, Any] | None:
    """The features that guarantee the prediction; None with caps, which are not linear."""
    if isinstance(head, BoundedHead) and head.n_bounds:
        return None
    linear = one_class(head, c) if head.multi_label else head
    assert isinstance(linear, Head)
    found = sufficient_reason(linear, z, box, exact=True, seconds=PROOF_SECONDS)
    weight = bounded(linear).weight
    read = (weight != weight[found.predicted]).any(0)
    return {
        "features": list(found.features),
        "n_read": int(read.sum()),
        "exact": found.exact,
        "valid": found.valid,
    }
