"""What each edit does to a head: pure functions from a head to a head."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from penult.edit.edit import Edit, Place
from penult.edit.setting import EditSetting
from penult.errors import InputError
from penult.heads.bounded_head import BoundedHead

ROUNDING = 1e-6  # of float32, up to which directions and slopes are the same


def switch_off(head: BoundedHead, edit: Edit, setting: EditSetting) -> BoundedHead:
    """Let a feature or a direction count as if it always stood at one place (its mean)."""
    return scaled(head, edit, setting, 0.0)


def scale(head: BoundedHead, edit: Edit, setting: EditSetting) -> BoundedHead:
    """Multiply what a feature or a direction does, measured from its mean, by a factor."""
    assert edit.value is not None
    return scaled(head, edit, setting, edit.value)


def scaled(head: BoundedHead, edit: Edit, setting: EditSetting, factor: float) -> BoundedHead:
    """Replace the feature z by `place + factor · (z − place)` in the logits of the classes."""
    rows = classes_of(edit, head, setting)
    if edit.feature is not None:
        j = edit.feature
        place = place_of(edit, setting, "mean")[j]
        weight, bias = head.weight.clone(), head.bias.clone()
        taken = (1 - factor) * head.weight[rows, j].double()
        bias[rows] = (head.bias[rows].double() + taken * place[rows]).float()
        weight[rows, j] = (factor * head.weight[rows, j].double()).float()
        if factor == 0:
            weight[rows, j] = 0.0
        return _bounds_moved(_with(head, weight, bias), rows, j, place, factor)
    moved = 1 - factor
    weight, bias = head.weight.double().clone(), head.bias.double().clone()
    place = place_of(edit, setting, "mean" if edit.component is None else "class")
    for c in rows.tolist():
        vector = _logit_direction(head, edit, setting, c)
        weight[c] -= moved * vector
        bias[c] += moved * (vector @ place[:, c])
    return _with(head, weight.float(), bias.float())


def cap(head: BoundedHead, edit: Edit, setting: EditSetting) -> BoundedHead:
    """Take away what a feature, or a direction's share of a class's logit, exceeds a bound by."""
    rows = classes_of(edit, head, setting)
    default = "class" if edit.of is not None else "mean"
    place = place_of(edit, setting, default)
    if edit.feature is not None:
        j = edit.feature
        scales = torch.zeros(head.n_classes, dtype=head.weight.dtype)
        scales[rows] = head.weight[rows, j]
        direction = torch.zeros(head.n_features, dtype=torch.float32)
        direction[j] = 1.0
        return _bounded(head, direction, place[j], scales)
    for c in rows.tolist():
        vector = _logit_direction(head, edit, setting, c)
        own = torch.zeros(head.n_classes, dtype=torch.float32)
        own[c] = 1.0
        head = _bounded(head, vector.float(), vector @ place, own)
    return head


def set_weight(head: BoundedHead, edit: Edit, setting: EditSetting) -> BoundedHead:
    """Give a class another weight on a feature."""
    assert edit.feature is not None
    assert edit.value is not None
    rows = classes_of(edit, head, setting)
    weight = head.weight.clone()
    weight[rows, edit.feature] = torch.tensor(edit.value, dtype=torch.float64).float()
    return _with(head, weight, head.bias)


def drop_unused(head: BoundedHead, edit: Edit, setting: EditSetting) -> BoundedHead:
    """Switch the features off that the head hardly uses.

    A feature's use is its weight's largest distance from the mean over the classes (from 0 where
    each class is decided by itself), times its standard deviation; those that come to less than a
    fraction of the most used one are off.
    """
    common = 0.0 if head.multi_label else head.weight.mean(0)
    spread = (head.weight - common).abs().amax(0).double() * setting.std
    for j in (spread < edit.least_used * spread.max()).nonzero()[:, 0].tolist():
        if bool((head.weight[:, j] != 0).any()):
            head = switch_off(head, Edit("off", feature=j), setting)
    return head


def classes_of(edit: Edit, head: BoundedHead, setting: EditSetting) -> Tensor:
    """Classes that an edit is about, (n,) int64."""
    if edit.of is None:
        return torch.arange(head.n_classes)
    return torch.tensor([setting.class_index(edit.of)])


def place_of(edit: Edit, setting: EditSetting, default: Place) -> Tensor:
    """Where each feature stays, for each class: (n_features, n_classes) float64."""
    at = default if edit.at is None else edit.at
    n_classes = len(setting.class_names)
    if at == "mean":
        return setting.mean[:, None].expand(-1, n_classes)
    if at == "class":
        return setting.class_means.T
    return torch.full((len(setting.mean), n_classes), float(at), dtype=torch.float64)


def _logit_direction(head: BoundedHead, edit: Edit, setting: EditSetting, c: int) -> Tensor:
    """What a direction gives to a class's logit: the (n_features,) vector v of `v · z`, float64."""
    weight = head.weight[c].double()
    if edit.component is not None:
        components, _ = setting.components(c)
        if not 1 <= edit.component <= len(components):
            raise InputError(
                f"class {setting.class_names[c]} has {len(components)} principal directions, there "
                f"is no number {edit.component}"
            )
        v: Tensor = components[edit.component - 1]
        share: Tensor = v.sum() * v * weight
        return share
    assert edit.direction is not None
    u: Tensor = torch.tensor(edit.direction, dtype=torch.float64)
    u = u / u.norm()
    along: Tensor = (weight @ u) * u
    return along


def _with(head: BoundedHead, weight: Tensor, bias: Tensor) -> BoundedHead:
    return replace(head, weight=weight, bias=bias)


def _bounded(head: BoundedHead, direction: Tensor, bounds: Tensor, slopes: Tensor) -> BoundedHead:
    """The head with what exceeds a bound along a direction taken away from each class.

    Of several bounds along one direction the lowest holds: higher ones go, and only the slope that
    lower ones have left is taken away.

    Args:
        head: with or without bounds.
        direction: (n_features,) float32.
        bounds: (n_classes,) where each class's logit is to stay.
        slopes: (n_classes,) what each class's logit gains along the direction; 0 to leave it alone.
    """
    limits, rest, scales = bounds.float(), slopes.double().clone(), head.scales.clone()
    most = int(direction.abs().argmax())
    if direction[most] == 0:
        return head
    times = head.directions[:, most] / direction[most]
    apart = (head.directions - times[:, None] * direction).abs().amax(1)
    along = (times > 0) & (apart <= ROUNDING * times * direction[most].abs())
    for p in along.nonzero()[:, 0].tolist():
        above = (slopes != 0) & (head.bounds[p] / times[p] > limits)
        scales[above, p] = 0.0
        rest -= times[p].double() * scales[:, p].double()
    rest[(slopes == 0) | (rest.abs() <= ROUNDING * slopes.abs())] = 0.0
    left = torch.unique(limits[rest != 0])
    new = torch.where(limits[:, None] == left, rest[:, None], 0.0).float()
    return replace(
        head,
        directions=torch.cat([head.directions, direction.expand(len(left), -1)]),
        bounds=torch.cat([head.bounds, left]),
        scales=torch.cat([scales, new], 1),
    )


def _bounds_moved(
    head: BoundedHead, rows: Tensor, j: int, place: Tensor, factor: float
) -> BoundedHead:
    """Replace feature j by `place + factor · (z − place)` in the bounds of some classes too."""
    reading = (head.directions[:, j] != 0).nonzero()[:, 0].tolist()
    if not reading:
        return head
    directions, bounds, scales = list(head.directions), head.bounds.tolist(), head.scales.clone()
    columns = list(scales.T)
    for p in reading:
        for c in rows.tolist():
            if columns[p][c] == 0:
                continue
            v = directions[p].clone()
            bounds.append(bounds[p] - (1 - factor) * float(v[j]) * float(place[c]))
            v[j] = factor * v[j]
            directions.append(v)
            own = torch.zeros_like(columns[p])
            own[c] = columns[p][c]
            columns[p] = columns[p].clone()
            columns[p][c] = 0.0
            columns.append(own)
    return replace(
        head,
        directions=torch.stack(directions),
        bounds=torch.tensor(bounds, dtype=torch.float32),
        scales=torch.stack(columns, 1),
    )
