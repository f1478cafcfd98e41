"""Weights from a file into a network: read safely, find them in what was saved, fit the names."""

from __future__ import annotations

import pickle
import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from penult.errors import InputError
from penult.text import described as one_line
from penult.text import some

# How the restricted unpickler words its refusals; the name of what it refuses comes first.
_REFUSALS = (
    r"GLOBAL (\S+) was not an allowed global",
    r"unsupported GLOBAL (\S+) whose module",
    r"for unrecognized function (.+)",
    r"via `add_safe_globals`,? but got (.+)",
    r"Cannot use ``?weights_only=True``? with (TorchScript archives)",
)

_DEEPEST = 6


@dataclass(frozen=True)
class Shapes:
    """A tensor whose shape in the file is not the network's."""

    name: str
    found: tuple[int, ...]
    expected: tuple[int, ...]


def load_weights(
    model: nn.Module, content: Any, path: Path, class_option: str | None = None
) -> None:
    """Load the weights in `content` into `model`, all of them.

    Args:
        model: the network that the weights belong to.
        content: what `read_checkpoint` found in `path`; the weights are looked for by `find_state`.
        path: the file, for errors.
        class_option: name of the option that sets the number of classes, for the advice in errors.

    Raises:
        InputError: there are no weights, or their names or shapes do not fit the network.
    """
    own = model.state_dict()
    state = find_state(content, own, path)
    different = [
        Shapes(name, tuple(state[name].shape), tuple(own[name].shape))
        for name in own
        if name in state and _has_shape(own[name]) and state[name].shape != own[name].shape
    ]
    check_fit(path, (), (), different, class_option)
    try:
        result = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(f"{path} does not fit the network: {one_line(error)}") from error
    check_fit(path, result.missing_keys, result.unexpected_keys, (), class_option)


def read_checkpoint(path: Path, *, trust: bool = False) -> Any:
    """What was saved in `path`, tensors on the CPU; runs no code from the file unless `trust`.

    Args:
        path: a `.safetensors` file, or one that `torch.save` wrote.
        trust: unpickle arbitrary objects, which runs whatever code the file holds.

    Raises:
        InputError: no such file, not a checkpoint, damaged, or it needs trust; each in one line.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a checkpoint file")
    if not path.exists():
        raise InputError(f"{path} not found; expected a checkpoint file")
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}") from error
    if not start:
        raise InputError(f"{path} is empty; expected a checkpoint file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Only the zip format of torch.save can be mapped into memory.
        mapped = start == b"PK\x03\x04"
        with warnings.catch_warnings():
            # Advice on how to call torch, for programmers; what went wrong ends up below.
            warnings.simplefilter("ignore")
            return torch.load(str(path), map_location="cpu", weights_only=not trust, mmap=mapped)
    # A damaged pickle fails in as many ways as there are instructions in it.
    except Exception as error:
        refused = None if trust else _refused(error)
        if refused is None:
            raise InputError(
                f"{path} cannot be read as a checkpoint (is it whole, and of .safetensors or "
                f"torch.save?): {_cause(error)}"
            ) from error
        raise InputError(
            f"{path} holds more than weights: reading it would unpickle {refused}, and that can "
            "run any code the file brings; give --trust-checkpoint if you trust where it comes from"
        ) from error


def find_state(content: Any, own: Collection[str], path: Path) -> dict[str, Tensor]:
    """The weights in `content` that fit a network whose tensors are named `own`.

    Mappings are searched at any depth, for names that are the network's own after a prefix
    (`module.`, `_orig_mod.`, `model.`, …) is taken off; where most names fit, that is it. What
    else was saved there is left out, with a warning if it was beside the weights.

    Raises:
        InputError: there are no tensors in `content`, or no name fits.
    """
    sets = list(_tensor_sets(content))
    if not sets:
        kind = type(content).__name__
        raise InputError(f"{path} holds no weights: expected names with tensors, found {kind}")
    names = set(own)
    fits = [
        (count, label, prefix, tensors)
        for label, tensors in sets
        for prefix, count in _prefixes(tensors, names).items()
    ]
    if not fits:
        _, tensors = max(sets, key=lambda labelled: len(labelled[1]))
        raise InputError(
            f"{path} holds the weights of another network: its names are {some(list(tensors), 3)}; "
            f"expected {some(list(own), 3)}"
        )
    best = max(count for count, *_ in fits)
    chosen, *others = [fit for fit in fits if fit[0] == best]
    _, label, prefix, tensors = chosen
    if others:
        also = [_label(where, start) for _, where, start, _ in others]
        warnings.warn(
            f"{path} holds several sets of weights that fit: {_label(label, prefix)} is taken, "
            f"not {some(also)}",
            stacklevel=2,
        )
    beside = [name for name in tensors if not name.startswith(prefix)]
    if beside:
        warnings.warn(
            f"{path}: not used, since their names do not begin with {prefix}: {some(beside)}",
            stacklevel=2,
        )
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


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
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]
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
    advice = _class_advice(different, class_option) or "expected the weights of this network"
    raise InputError(f"{path} does not fit the network: {'; '.join(found)}: {advice}")


def _tensor_sets(
    content: Any, label: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All mappings of names to tensors in `content`, outer ones first."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    # A mapping can hold itself.
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    named = {name: value for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield label, tensors
    for name, value in named.items():
        yield from _tensor_sets(value, f"{label}.{name}" if label else name, depth + 1)


def _prefixes(names: Collection[str], own: set[str]) -> Counter[str]:
    """How many of `names` are the network's own after each prefix, the shortest prefix first."""
    counts: Counter[str] = Counter()
    for name in names:
        starts = [0, *(dot.end() for dot in re.finditer(r"\.", name))]
        counts.update(name[:start] for start in starts if name[start:] in own)
    return Counter(dict(sorted(counts.items(), key=lambda item: (len(item[0]), item[0]))))


def _has_shape(value: Any) -> bool:
    """Not so for a lazy layer that has not run yet, nor for a layer's extra state."""
    return isinstance(value, Tensor) and not is_lazy(value)


def _label(label: str, prefix: str) -> str:
    return ".".join(part for part in (label, prefix.rstrip(".")) if part) or "the outermost"


def _refused(error: Exception) -> str | None:
    """Name of what the restricted unpickler refused to load; None where the file is damaged."""
    if not isinstance(error, pickle.UnpicklingError | RuntimeError):
        return None
    matches = (re.search(pattern, str(error)) for pattern in _REFUSALS)
    return next((match[1].rstrip(".") for match in matches if match), None)


def _cause(error: Exception) -> str:
    # torch wraps the reason into paragraphs on how to switch its protection off.
    _, wrapped, reason = str(error).rpartition("WeightsUnpickler error: ")
    return one_line(type(error)(reason.splitlines()[0])) if wrapped else one_line(error)


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
