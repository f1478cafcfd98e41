"""State: weights from a checkpoint into a network, names fitted, what is left over judged."""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from penult.errors import InputError
from penult.network.calling import evaluating
from penult.network.reparametrised import make_plain, unreadable
from penult.network.watch import tensors_of
from penult.network.weight_sets import STATISTICS, find_state
from penult.text import described as one_line
from penult.text import some

_COUNTS = "num_batches_tracked"
# What profilers and averages of weights leave in a state, which no layer reads.
_COUNTERS = re.compile(
    r"(^|\.)(total_ops|total_params|n_averaged|num_batches_tracked|num_updates|__flops__|"
    r"__params__|step|global_step|_metadata)$"
)
# Parts that training needs and evaluation does not run.
_TRAINING_ONLY = re.compile(
    r"aux|head|classif|logit|loss|criter|metric|teacher|ema$|momentum|queue|projector|predictor|"
    r"decoder|discrim|domain|distill|rotat|jigsaw|prototypes|accura",
    re.IGNORECASE,
)
_SIDES = (32, 224, 64, 28, 96, 128, 299, 384, 8)


@dataclass(frozen=True)
class Shapes:
    """A tensor whose shape in the file is not the network's."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


def load_weights(
    model: nn.Module,
    content: Any,
    path: Path,
    class_option: str | None = None,
    *,
    key: str | None = None,
) -> None:
    """Load the weights in `content` into `model`, all that its output depends on.

    What either side has more is judged: counters and heads of training that only the file has are
    left out, constants that only the network has keep its values, and so do parameters that
    provably have no effect in evaluation. Each is said in a warning.

    Args:
        model: the network that the weights belong to.
        content: what `read_checkpoint` found in `path`; the weights are looked for by `find_state`.
        path: the file, for errors.
        class_option: name of the option that sets the number of classes, for the advice in errors.
        key: dotted name of the set of weights to take where there are several.

    Raises:
        InputError: there are no weights, or their names or shapes do not fit the network.
    """
    make_plain(model, _all_names(content))
    own = model.state_dict()
    buffers = own.keys() - dict(model.named_parameters(remove_duplicate=False)).keys()
    state = find_state(content, own, path, key=key, buffers=buffers)
    state = _sequential(state, own, path)
    different = [
        Shapes(name, tuple(state[name].shape), tuple(own[name].shape))
        for name in own
        if name in state and _has_shape(own[name]) and state[name].shape != own[name].shape
    ]
    check_fit(path, (), (), different, class_option)
    state = _without_extra(state, own, path)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network: {one_line(error)}") from error
    # A layer that was in another form until now may still ask for its parts.
    asked = [name for name in result.missing_keys if name in own]
    missing = _truly_missing(model, asked, buffers, path)
    check_fit(path, missing, result.unexpected_keys, (), class_option)


def check_fit(
    path: Path,
    missing: Collection[str],
    unexpected: Collection[str],
    different: Collection[Shapes],
    class_option: str | None,
) -> None:
    """Raise one line on what does not fit between a file and a network; nothing where all does.

    Batch norm's counts of batches may be missing: older files lack them and evaluation needs none.

    Raises:
        InputError: names the first few tensors, how many there are, and what to do.
    """
    missing = [name for name in missing if not name.endswith(_COUNTS)]
    problems = [
        f"{shapes.name} is {_size(shapes.found)} in the file and {_size(shapes.expected)} in the "
        "network"
        for shapes in different
    ]
    found = [some(problems, 2)] if problems else []
    for what, names in (("missing", missing), ("unexpected", unexpected)):
        if names:
            found.append(f"{len(names)} {what} ({some(list(names), 3)})")
    if not found:
        return
    advice = _class_advice(different, class_option) or unreadable(unexpected)
    advice = advice or _sequential_advice(missing, unexpected)
    if advice is None and unexpected and not missing and not different:
        advice = (
            "expected the weights of this network; if evaluation never runs these, let the factory "
            "load the file itself (load_state_dict with strict=False) and leave out --weights"
        )
    advice = advice or "expected the weights of this network"
    raise InputError(f"{path} does not fit the network: {'; '.join(found)}: {advice}")


def _all_names(content: Any, depth: int = 0) -> set[str]:
    if isinstance(content, nn.Module):
        return set(content.state_dict())
    if not isinstance(content, Mapping) or depth > 6:
        return set()
    names = {name for name, value in content.items() if isinstance(value, Tensor)}
    return names.union(*(_all_names(value, depth + 1) for value in content.values()))


def _sequential(state: dict[str, Tensor], own: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """A layer that is inside a Sequential on one side only: `fc.1.weight` for `fc.weight`."""
    renamed = dict(state)
    for name in [name for name in own if name not in state and name.endswith(".weight")]:
        layer = name.removesuffix(".weight")
        outer = layer.rpartition(".")[0]
        inner = {n for n in state if re.fullmatch(rf"{re.escape(layer)}\.\d+\.\w+", n)}
        numbers = {n.removeprefix(f"{layer}.").partition(".")[0] for n in inner}
        if len(numbers) == 1 and not any(n in own for n in inner):
            old = f"{layer}.{numbers.pop()}"
        elif layer[len(outer) + 1 :].isdecimal() and f"{outer}.weight" not in own:
            beside = f"{layer}."
            if any(n.startswith(f"{outer}.") and not n.startswith(beside) for n in own):
                continue
            old = outer
        else:
            continue
        weight, expected = state.get(f"{old}.weight"), own[name]
        if weight is None or (_has_shape(expected) and weight.ndim != expected.ndim):
            continue
        for part in ("weight", "bias"):
            if f"{old}.{part}" in renamed and f"{old}.{part}" not in own:
                renamed[f"{layer}.{part}"] = renamed.pop(f"{old}.{part}")
        warnings.warn(
            f"{path}: {old} is taken for {layer}, the only layer there with weights; this is right "
            "if what else stands there does nothing in evaluation, as dropout",
            stacklevel=3,
        )
    return renamed


def _without_extra(
    state: dict[str, Tensor], own: Mapping[str, Any], path: Path
) -> dict[str, Tensor]:
    """Leave out counters, and whole parts that training alone runs."""
    extra = [name for name in state if name not in own]
    counters = [name for name in extra if _COUNTERS.search(name)]
    places = {name[: dot.start()] for name in own for dot in re.finditer(r"\.", name)}
    parts: dict[str, list[str]] = {}
    for name in extra:
        if name not in counters and (part := _foreign_part(name, places)):
            parts.setdefault(part, []).append(name)
    if counters:
        warnings.warn(f"{path}: counters are left out: {some(counters, 3)}", stacklevel=3)
    if parts:
        sizes = {part: len(names) for part, names in parts.items()}
        named = [f"{part} ({n} tensor{'s' * (n != 1)})" for part, n in sizes.items()]
        warnings.warn(
            f"{path} has parts that the network does not have, taken to be needed in training "
            f"only, and left out: {some(named)}",
            stacklevel=3,
        )
    left = {*counters, *(name for names in parts.values() for name in names)}
    return {name: tensor for name, tensor in state.items() if name not in left}


def _foreign_part(name: str, places: set[str]) -> str | None:
    """The part of training that a name belongs to and the network has no place for, or None."""
    steps = name.split(".")[:-1]
    for depth in range(1, len(steps) + 1):
        place = ".".join(steps[:depth])
        if place in places:
            continue
        stem = steps[depth - 1].rstrip("0123456789")
        above = ".".join(steps[: depth - 1])
        brothers = {
            p.rpartition(".")[2].rstrip("0123456789")
            for p in places
            if p.rpartition(".")[0] == above
        }
        # One more of what the network has several of would run in evaluation too.
        if not stem or (stem in brothers and stem != steps[depth - 1]):
            return None
        return place if _TRAINING_ONLY.search(steps[depth - 1]) else None
    return None


def _truly_missing(
    model: nn.Module, names: Collection[str], buffers: Collection[str], path: Path
) -> list[str]:
    """Those of the missing tensors that the network's output may depend on."""
    missing = [name for name in names if not name.endswith(_COUNTS)]
    constants = [n for n in missing if n in buffers and not STATISTICS.search(n)]
    parameters = [name for name in missing if name not in constants]
    unused = [] if not parameters else _without_effect(model, parameters)
    for what, kept in (
        ("the constants", constants),
        ("parameters that have no effect in evaluation", unused),
    ):
        if kept:
            warnings.warn(
                f"{path} does not have {what} {some(kept, 3)}: they stay as the network was built",
                stacklevel=3,
            )
    return [name for name in parameters if name not in unused]


def _without_effect(model: nn.Module, names: list[str]) -> list[str]:
    """The names if the network's output stays finite with NaN in all of them, else none."""
    own = model.state_dict(keep_vars=True)
    tensors = [own[name] for name in names]
    if any(not _has_shape(t) or not t.is_floating_point() for t in tensors):
        return []
    saved = [tensor.detach().clone() for tensor in tensors]
    example = runnable_example(model)
    if example is None:
        return []
    try:
        with torch.no_grad(), evaluating(model):
            for tensor in tensors:
                tensor.fill_(torch.nan)
            output = model(example)
    except Exception:  # whatever a network raises on NaN, it depends on these parameters
        return []
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, saved, strict=True):
                tensor.copy_(value)
    found = [*tensors_of(output)]
    return names if found and all(bool(values.isfinite().all()) for values in found) else []


def runnable_example(model: nn.Module, dtype: torch.dtype | None = None) -> Tensor | None:
    """Two random images of a size on which the network runs, in the dtype of its weights."""
    generator = torch.Generator().manual_seed(0)
    if dtype is None:
        own = (p.dtype for p in model.parameters() if p.is_floating_point())
        dtype = next(own, torch.float32)
    linear = next((m for m in model.modules() if isinstance(m, nn.Linear)), None)
    whole = [] if linear is None else [linear.in_features, linear.in_features / 3]
    sides = [math.isqrt(int(n)) for n in whole if n == int(n) and math.isqrt(int(n)) ** 2 == n]
    device = next((p.device for p in model.parameters()), None)
    for side in dict.fromkeys([*sides, *_SIDES]):
        for channels in (3, 1):
            example = torch.randn(2, channels, side, side, generator=generator)
            example = example.to(device, dtype)
            try:
                with torch.no_grad(), evaluating(model):
                    model(example)
            except Exception:  # a network raises what it likes on images of the wrong size
                continue
            return example
    return None


def _has_shape(value: Any) -> bool:
    """Not so for a lazy layer that has not run yet, nor for a layer's extra state."""
    return isinstance(value, Tensor) and not is_lazy(value)


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a number"


def _class_advice(different: Collection[Shapes], class_option: str | None) -> str | None:
    """What to do where the file differs in nothing but the number of classes."""
    ends = {(shapes.found[:1], shapes.expected[:1]) for shapes in different}
    if len(ends) != 1 or any(shapes.found[1:] != shapes.expected[1:] for shapes in different):
        return None
    (found, expected) = ends.pop()
    if found == expected or not found or not expected:
        return None
    option = f"--set {class_option}={found[0]}" if class_option else "tell the factory so"
    return f"the file has {found[0]} classes, the network {expected[0]}: {option}"


def _sequential_advice(missing: Collection[str], unexpected: Collection[str]) -> str | None:
    """How to build a network whose last layer is a Sequential in the file."""
    for name in missing:
        layer = name.removesuffix(".weight")
        inside = [n for n in unexpected if re.fullmatch(rf"{re.escape(layer)}\.\d+\.weight", n)]
        if len(inside) > 1:
            return (
                f"{layer} is a Sequential in the file, with weights in {some(inside)}: write a "
                f"factory that sets {layer} to the same torch.nn.Sequential, activations included, "
                "and name it as file.py:factory"
            )
    return None
