"""Reparametrised weights: those that other tensors of the file or of the network determine."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from penult.errors import InputError
from penult.text import some

_PARAMETRIZED = re.compile(r"^(.*?)parametrizations\.([^.]+)\.(.+)$")
_OLD = re.compile(r"^(.+)_(orig|mask|g|v|u)$")
_FORMS = {
    frozenset({"orig", "mask"}): "pruning",
    frozenset({"g", "v"}): "weight normalisation",
    frozenset({"orig", "u"}): "spectral normalisation",
    frozenset({"orig", "u", "v"}): "spectral normalisation",
    frozenset({"original0", "original1"}): "weight normalisation",
    frozenset({"original", "0._u", "0._v"}): "spectral normalisation",
}


def fused(tensors: Mapping[str, Tensor], own: Collection[str], path: Path) -> dict[str, Tensor]:
    """The tensors, with each weight that others determine computed from them.

    Pruning, weight normalisation and spectral normalisation are fused, in the older and in the
    newer form of torch; what the network itself keeps in that form is left as it is.

    Raises:
        InputError: a weight in a form that the file alone does not determine; says what to do.
    """
    result = dict(tensors)
    for (owner, weight), parts in _groups(tensors).items():
        raw = [_raw_name(owner, weight, part, tensors) for part in parts]
        if any(_same_tail(name, other) for name in raw for other in own):
            continue
        values = {part: tensors[name] for part, name in zip(parts, raw, strict=True)}
        whole = _fuse(values)
        if whole is None:
            if "parametrizations." not in raw[0]:
                continue
            raise InputError(
                f"{path} holds {owner}{weight} in a form that cannot be undone without its code "
                f"({some(raw, 3)}): in the script that made it run "
                f"torch.nn.utils.parametrize.remove_parametrizations(layer, {weight!r}) and save "
                "again, or give the layer the same parametrization in the factory"
            )
        for name in raw:
            del result[name]
        result[f"{owner}{weight}"] = whole
    return result


def make_plain(model: nn.Module, in_file: Collection[str]) -> None:
    """Undo the network's own reparametrisations of weights that the file holds as they are."""
    for name, module in model.named_modules():
        start = f"{name}." if name else ""
        if parametrize.is_parametrized(module):
            for weight in list(module.parametrizations):
                if _only_plain(f"{start}{weight}", f"{start}parametrizations.{weight}.", in_file):
                    parametrize.remove_parametrizations(module, weight)
            continue
        own = {*dict(module.named_parameters(recurse=False))}
        for weight in {n.rpartition("_")[0] for n in own if n.endswith(("_orig", "_g"))}:
            if not _only_plain(f"{start}{weight}", f"{start}{weight}_", in_file):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if prune.is_pruned(module) and hasattr(module, f"{weight}_mask"):
                    prune.remove(module, weight)  # type: ignore[no-untyped-call]
                elif f"{weight}_g" in own:
                    nn.utils.remove_weight_norm(module, weight)
                else:
                    nn.utils.remove_spectral_norm(module, weight)


def _only_plain(weight: str, raw: str, in_file: Collection[str]) -> bool:
    """Whether the file has the weight itself, behind any prefix, and not what determines it."""
    whole = any(_same_tail(name, weight) for name in in_file)
    return whole and not any(name.startswith(raw) or f".{raw}" in name for name in in_file)


def _groups(names: Collection[str]) -> dict[tuple[str, str], list[str]]:
    """The parts of each weight that others may determine, by (its layer with a dot, its name)."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        if match := _PARAMETRIZED.match(name):
            groups.setdefault((match[1], match[2]), []).append(match[3])
        elif match := _OLD.match(name):
            layer, dot, weight = match[1].rpartition(".")
            groups.setdefault((layer + dot, weight), []).append(match[2])
    return {
        key: parts
        for key, parts in groups.items()
        if frozenset(parts) in _FORMS or any(part.startswith("original") for part in parts)
    }


def _raw_name(owner: str, weight: str, part: str, names: Collection[str]) -> str:
    old = f"{owner}{weight}_{part}"
    return old if old in names else f"{owner}parametrizations.{weight}.{part}"


def _same_tail(a: str, b: str) -> bool:
    return a == b or a.endswith(f".{b}") or b.endswith(f".{a}")


def _fuse(parts: Mapping[str, Tensor]) -> Tensor | None:
    """The weight that its parts determine; None where the parts alone do not."""
    form = _FORMS.get(frozenset(parts))
    if form == "pruning":
        return parts["orig"] * parts["mask"].to(parts["orig"].dtype)
    if form == "weight normalisation":
        length = parts["g"] if "g" in parts else parts["original0"]
        return _scaled(parts["v"] if "v" in parts else parts["original1"], length)
    if form == "spectral normalisation":
        weight = parts["orig"] if "orig" in parts else parts["original"]
        u = parts["u"] if "u" in parts else parts["0._u"]
        return _divided(weight, u, parts.get("v", parts.get("0._v")))
    return None


def _scaled(direction: Tensor, length: Tensor) -> Tensor | None:
    """Weight normalisation: lengths along the axes that `length` keeps."""
    if length.numel() == 1:
        length = length.reshape([1] * direction.ndim)
    if length.ndim != direction.ndim:
        return None
    axes = [axis for axis, size in enumerate(length.shape) if size == 1]
    scaled: Tensor = direction * (
        length / torch.linalg.vector_norm(direction, dim=axes or None, keepdim=True)
    )
    return scaled


def _divided(weight: Tensor, u: Tensor, v: Tensor | None) -> Tensor | None:
    """Spectral normalisation: by the largest singular value, of the singular vectors kept."""
    for axis in range(weight.ndim):
        if weight.shape[axis] != len(u):
            continue
        matrix = weight.movedim(axis, 0).reshape(len(u), -1)
        if v is None or len(v) == matrix.shape[1]:
            largest: Tensor = (u @ matrix).norm() if v is None else u @ matrix @ v
            return weight / largest
    return None


def unreadable(names: Collection[str]) -> str | None:
    """What to do about names that no plain network has, or None."""
    adapters = [name for name in names if re.search(r"\.?lora_", name)]
    if adapters:
        return (
            f"it holds a LoRA adapter ({some(adapters, 2)}): in the script that made it run "
            "model.merge_and_unload() and save the result"
        )
    packed = [name for name in names if re.search(r"_packed_params|\.zero_point$", name)]
    if packed:
        return (
            f"it holds quantised weights ({some(packed, 2)}): give those of the float network that "
            "was quantised"
        )
    return None


def is_quantised(module: nn.Module) -> bool:
    """Whether a layer computes on integers, by torch's own quantisation."""
    kind: Any = type(module)
    return ".quantized." in f"{kind.__module__}." or hasattr(module, "_packed_params")
