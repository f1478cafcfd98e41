"""Weight sets: all that a checkpoint holds several times over, and which of it is meant."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from penult.errors import InputError
from penult.network.reparametrised import fused
from penult.network.unpickling import StandIn, tensors_of_parts
from penult.text import some

_DEEPEST = 6
# What libraries put around a layer; such a part of a name says nothing of the network.
_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
)
STATISTICS = re.compile(r"(^|\.)(running|moving)_")
_START = r"(?:^|[^a-z])"
_END = r"(?:[^a-z]|$)"
_MOMENTS = re.compile(
    rf"{_START}(exp_avg(_sq)?|exp_inf|momentum(_buffer)?s?(?!_?(enc|net|mod))|opt\w*|grads?|"
    rf"gradients?|velocity|moments?|adam\w*|sgd|fisher|hessian){_END}"
)
_AVERAGES = re.compile(
    rf"{_START}(\w*ema|ema\w*|swa\w*|avg|averaged?|shadow|polyak|teacher|target|momentum){_END}"
)
_EARLIER = re.compile(rf"{_START}(init\w*|old|prev\w*|backup|pretrained){_END}")
_USUAL = re.compile(
    r"^(state_?dict|model|net|network|weights|params|model_?state(_?dict)?|net_?state_?dict|"
    r"student|module|generator)?(\.|$)"
)


@dataclass(frozen=True, eq=False)
class WeightSet:
    """Tensors of a checkpoint that fit a network.

    Attributes:
        label: where it lies in the file, dotted, `prefix` included.
        prefix: what its names begin with and the network's do not.
        inside: how many levels inside of the network the part lies that has these names.
        state: by the network's own names; what the network does not have by the file's, without
            the prefix.
        beside: names of the same mapping that do not begin with the prefix.
        n_parameters, n_shapes, n_all: how many of the network's parameters it has, how many of
            them in the network's shapes, and how many of all of its tensors.
    """

    label: str
    prefix: str
    inside: int
    state: dict[str, Tensor]
    beside: tuple[str, ...]
    n_parameters: int
    n_shapes: int
    n_all: int

    @property
    def named(self) -> str:
        """What messages and `--weights-key` call it."""
        return self.label or "the outermost"

    @property
    def rank(self) -> int:
        """0 for what is called as weights usually are, up to 4 for an optimiser's moments."""
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", self.label).lower()
        if _MOMENTS.search(words):
            return 4
        if _EARLIER.search(words):
            return 3
        if _AVERAGES.search(words):
            return 2
        return 0 if _USUAL.match(words) else 1


def find_state(
    content: Any,
    own: Collection[str] | Mapping[str, Any],
    path: Path,
    *,
    key: str | None = None,
    buffers: Collection[str] = (),
) -> dict[str, Tensor]:
    """The weights in `content` that are meant for a network whose tensors are named `own`.

    Mappings are searched at any depth, for names that are the network's own after a prefix
    (`module.`, `model.`, …) is taken off or one of the network's own is put in front. Of several
    sets that fit as well, the network's own come before their average, and an optimiser's moments
    are never taken; all sets are named in a warning. Running statistics that the set lacks come
    from another.

    Args:
        content: what `read_checkpoint` found.
        own: names of the network's tensors, with the tensors where shapes are to count.
        path: the file, for messages.
        key: dotted name of the set to take (`--weights-key`).
        buffers: those of `own` that are no parameters.

    Raises:
        InputError: there are no tensors in `content`, no name fits, or no set has the name `key`.
    """
    mappings = list(_tensor_sets(content))
    if not mappings:
        kind = type(content).__name__
        raise InputError(f"{path} holds no weights: expected names with tensors, found {kind}")
    sets = _fitting(mappings, own, path, set(buffers))
    if key is not None:
        sets = _of_key(sets, mappings, key, path)
    if not sets:
        _, tensors = max(mappings, key=lambda labelled: len(labelled[1]))
        raise InputError(
            f"{path} holds the weights of another network: its names are {some(list(tensors), 3)}; "
            f"expected {some(list(own), 3)}"
        )
    if key is None and all(one.rank == 4 for one in sets):
        raise InputError(
            f"{path} holds no weights, only what an optimiser keeps of them "
            f"({some([one.named for one in sets], 3)}): give the checkpoint of the network, or "
            f"--weights-key {sets[0].label} to take it nonetheless"
        )
    chosen, rivals = _chosen(sets)
    if rivals and key is None:
        warnings.warn(
            f"{path} holds several sets of weights that fit: {chosen.named} is taken, not "
            f"{some([one.named for one in rivals])} (--weights-key NAME takes another)",
            stacklevel=2,
        )
    if chosen.beside:
        warnings.warn(
            f"{path}: not used, since their names do not begin with {chosen.prefix}: "
            f"{some(list(chosen.beside))}",
            stacklevel=2,
        )
    everything = _fitting(mappings, own, path, set(buffers)) if key is not None else sets
    return _with_statistics(chosen, everything, own, path)


def _chosen(sets: list[WeightSet]) -> tuple[WeightSet, list[WeightSet]]:
    """The set that is meant, and the others that fit as well."""
    weights = [one for one in sets if one.rank < 4] or sets
    most = max((one.n_parameters, one.n_shapes) for one in weights)
    equal = [one for one in weights if (one.n_parameters, one.n_shapes) == most]
    # A list is sorted stably: of equals the first in the file comes first.
    chosen, *rivals = sorted(equal, key=lambda one: (one.inside, one.rank, -one.n_all))
    return chosen, [one for one in rivals if one.inside == chosen.inside]


def _of_key(
    sets: list[WeightSet],
    mappings: list[tuple[str, dict[str, Tensor]]],
    key: str,
    path: Path,
) -> list[WeightSet]:
    """The sets that are called `key`, or that lie in it."""
    wanted = key.strip(".")
    found = [one for one in sets if one.label == wanted]
    found = found or [one for one in sets if one.label.startswith(f"{wanted}.")]
    if found:
        return found
    if any(label == wanted or label.startswith(f"{wanted}.") for label, _ in mappings):
        raise InputError(
            f"{path}: {wanted} does not fit the network; sets that do: "
            f"{some([one.named for one in sets]) or 'none'}"
        )
    names = [one.named for one in sets] or [label or "the outermost" for label, _ in mappings]
    raise InputError(f"{path} has no set of weights {key!r}: it has {some(names)}")


def _with_statistics(
    chosen: WeightSet,
    sets: list[WeightSet],
    own: Collection[str],
    path: Path,
) -> dict[str, Tensor]:
    """The chosen set's state; running statistics that an average lacks come from the other set."""
    state = chosen.state
    lacking = [name for name in own if name not in state and STATISTICS.search(name)]
    if not lacking:
        return state
    others = [one for one in sets if one is not chosen and one.rank < 4]
    for other in sorted(others, key=lambda one: one.rank):
        if other.n_parameters == chosen.n_parameters and all(n in other.state for n in lacking):
            warnings.warn(
                f"{path}: {chosen.named} has no running statistics ({some(lacking, 2)}): those of "
                f"{other.named} are taken",
                stacklevel=3,
            )
            return state | {name: other.state[name] for name in lacking}
    return state


def _fitting(
    mappings: list[tuple[str, dict[str, Tensor]]],
    own: Collection[str],
    path: Path,
    buffers: set[str],
) -> list[WeightSet]:
    """All sets that fit a network at least in part, in the order of the file."""
    starts = _inner_starts([name for name in own if name not in buffers])
    sets: list[WeightSet] = []
    for label, tensors in mappings:
        plain = fused(tensors, own, path)
        best = 0
        for inside in starts:
            inner = {_unwrapped(n[len(inside) :]): n for n in own if n.startswith(inside)}
            counts = _prefixes(plain, inner)
            sets += [
                _weight_set(label, plain, prefix, inside, inner, own, buffers)
                for prefix, count in counts.items()
                # A part of the network is meant only where it explains more than the whole.
                if not inside or count > best
            ]
            best = max(best, *counts.values(), 0)
    return sets


def _weight_set(
    label: str,
    tensors: Mapping[str, Tensor],
    prefix: str,
    inside: str,
    inner: Mapping[str, str],
    own: Collection[str],
    buffers: set[str],
) -> WeightSet:
    state: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            rest = name.removeprefix(prefix)
            plain = _unwrapped(rest)
            state.setdefault(inner.get(plain, inside + plain), tensor)
    having = [name for name in state if name in own]
    parameters = [name for name in having if name not in buffers]
    expected = own if isinstance(own, Mapping) else {}
    shapes = [name for name in parameters if _same_shape(expected.get(name), state[name])]
    where = ".".join(part for part in (label, prefix.rstrip(".")) if part)
    beside = tuple(name for name in tensors if not name.startswith(prefix))
    return WeightSet(
        where, prefix, inside.count("."), state, beside, len(parameters), len(shapes), len(having)
    )


def _same_shape(expected: Any, found: Tensor) -> bool:
    known = isinstance(expected, Tensor) and not is_lazy(expected)
    return not known or expected.shape == found.shape


def _inner_starts(names: list[str]) -> list[str]:
    """Prefixes of the network's names behind which most of it lies: "", then longer ones."""
    counts: Counter[str] = Counter()
    for name in names:
        counts.update(name[: dot.end()] for dot in re.finditer(r"\.", name))
    most = [start for start, count in counts.items() if 2 * count > len(names)]
    return ["", *sorted(most, key=len)]


def _unwrapped(name: str) -> str:
    parts = name.split(".")
    kept = [part for part in parts[:-1] if part not in _WRAPPERS]
    return ".".join([*kept, parts[-1]])


def _prefixes(names: Collection[str], own: Collection[str]) -> Counter[str]:
    """How many of `names` are the network's own after each prefix, no prefix first."""
    counts: Counter[str] = Counter()
    for name in names:
        # Wrappers are taken off all the same, so none of them ends a prefix.
        ends = (dot for dot in re.finditer(r"([^.]*)\.", name) if dot[1] not in _WRAPPERS)
        starts = [0, *(dot.end() for dot in ends)]
        counts.update(name[:start] for start in starts if _unwrapped(name[start:]) in own)
    return Counter(dict(sorted(counts.items(), key=lambda item: item[0] != "")))


def _tensor_sets(
    content: Any, label: str = "", depth: int = 0
) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """All mappings of names to tensors in `content`, outer ones first."""
    if isinstance(content, nn.Module):
        content = content.state_dict()
    elif isinstance(content, StandIn):
        parts = dict(tensors_of_parts(content))
        content = parts or {**vars(content), **content}
    elif isinstance(content, list | tuple):
        content = {str(index): value for index, value in enumerate(content)}
        content = {n: v for n, v in content.items() if not isinstance(v, Tensor)}
    # A mapping can hold itself.
    if not isinstance(content, Mapping) or depth > _DEEPEST:
        return
    named = {name: _as_tensor(value) for name, value in content.items() if isinstance(name, str)}
    tensors = {name: value for name, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield label, tensors
    for name, value in named.items():
        yield from _tensor_sets(value, f"{label}.{name}" if label else name, depth + 1)


def _as_tensor(value: Any) -> Any:
    """Weights that were saved as NumPy arrays."""
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
        return torch.from_numpy(np.ascontiguousarray(value))
    return value
