"""Blocks: the repeated parts of a network, found by running it once, never by a list of names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from penult.errors import InputError
from penult.network.calling import Example, first_tensor
from penult.network.linear_maps import channels_first, possible_weights
from penult.network.watch import Hooks, run_hooked, tensors_of

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


@dataclass(eq=False)
class Call:
    """A module's last call when the network ran on the example.

    Attributes:
        name: dotted name of the module.
        given: what it gave.
        read, output: the first tensor that it read, and the first that it gave, if any.
        version: how often `output` had been changed in place by then.
        axis: of the channels in `output`, as the linear maps up to then make likely.
        n_calls: how often it ran.
    """

    name: str
    given: Any
    read: Tensor | None
    output: Tensor | None
    version: int
    axis: int
    n_calls: int


class Trace:
    """One run of a network on an example.

    Attributes:
        calls: the modules that ran, in the order in which they gave their last outputs.
        outputs: the network's own.
        n_samples: in the example.

    Raises:
        InputError: the network does not run on the example.
    """

    def __init__(self, model: nn.Module, example: Example) -> None:
        self.calls: dict[nn.Module, Call] = {}
        self._map: tuple[tuple[int, ...], int] | None = None
        hooks: dict[nn.Module, Hooks] = {
            module: (None, self._watch(name))
            for name, module in model.named_modules()
            if not isinstance(module, torch.jit.ScriptModule)
        }
        self.outputs = list(tensors_of(run_hooked(model, example, hooks)))
        args = (example,) if isinstance(example, Tensor) else tuple(example)
        first = (
            first_tensor((), example) if isinstance(example, Mapping) else first_tensor(args, {})
        )
        self.n_samples = 0 if first is None else len(first)

    def _watch(self, name: str) -> Any:
        def after(module: nn.Module, args: Any, kwargs: Any, given: Any) -> None:
            old = self.calls.pop(module, None)
            n_calls = old.n_calls + 1 if old else 1
            read, output = first_tensor(args, kwargs), first_output(given)
            version = 0 if output is None else output._version
            self._note_map(module, read, output)
            axis = self._axis(output)
            self.calls[module] = Call(name, given, read, output, version, axis, n_calls)

        return after

    def _note_map(self, module: nn.Module, read: Tensor | None, output: Tensor | None) -> None:
        """Keep the shape that the latest map over positions gives, and the axis of its channels."""
        if read is None or output is None or output.ndim < 3:
            return
        axis, weights = possible_weights(module, read, output)
        if channels_first(module):
            self._map = tuple(output.shape), 1
        elif weights:
            self._map = tuple(output.shape), axis

    def _axis(self, output: Tensor | None) -> int:
        """Axis of the channels: the latest map's, unless its output was permuted since."""
        if output is None or output.ndim < 3:
            return -1
        usual = -1 if output.ndim == 3 else 1
        if self._map is None:
            return usual
        shape, axis = self._map
        fitting = [a for a in (1, -1) if output.shape[a] == shape[axis]]
        permuted = sorted(output.shape) == sorted(shape)
        if len(fitting) == 1 and (permuted or output.ndim != len(shape)):
            return fitting[0]
        return axis if output.ndim == len(shape) else usual


def find_blocks(model: nn.Module, example: Example) -> list[str]:
    """Names of a network's blocks, in the order in which they give their outputs.

    Runs the network once. A block is a module of at least two matrices or kernels that stands in a
    sequence: it is a child of a Sequential, ModuleList or ModuleDict, or (outside of these) has a
    sibling of its own class. Where such a module merely passes on what blocks inside it give, as
    the stages of a residual network do, those inside are meant; otherwise the outermost is. What
    gives the network's own output is no block.

    In a network without blocks, each convolution or linear map counts, with the modules after it
    that keep its shape: its batch norm, activation or dropout.

    Args:
        model: the network.
        example: a small batch as the network takes it.

    Raises:
        InputError: the network does not run on the example, or has one linear map alone.
    """
    trace = Trace(model, example)
    calls = blocks_of(model, trace)
    if not calls:
        raise InputError("the network has no layer before the one that gives its output")
    return [call.name for call in calls]


def blocks_of(model: nn.Module, trace: Trace) -> list[Call]:
    """The blocks of a network that ran."""
    order = {call: i for i, call in enumerate(trace.calls.values())}
    found = _inside(model, trace, order, siblings=True) or _chains(trace)
    own = {id(output) for output in trace.outputs}
    return [call for call in found if id(call.output) not in own]


def first_output(given: Any) -> Tensor | None:
    """The tensor that a module gave: itself, or the first of a plain tuple or list."""
    if type(given) in (tuple, list) and given:
        given = given[0]
    return given if isinstance(given, Tensor) else None


def pools(output: Tensor | None, n_samples: int) -> bool:
    """Whether a layer's output can be pooled to one vector per sample."""
    if output is None or not output.is_floating_point():
        return False
    return output.ndim >= 2 and len(output) == n_samples and output.numel() > 0


def _inside(
    module: nn.Module, trace: Trace, order: dict[Call, int], *, siblings: bool
) -> list[Call]:
    """The blocks inside a module, in order; siblings of one class count outside of containers."""
    children = [*module.children()]
    contained = isinstance(module, CONTAINERS)
    kinds = Counter(type(m) for m in children if _weighty(m) and not isinstance(m, CONTAINERS))
    sequence = contained or (siblings and max(kinds.values(), default=0) > 1)
    found: dict[Call, None] = {}
    for child in children:
        inner = _inside(child, trace, order, siblings=siblings and not contained)
        call = trace.calls.get(child)
        usable = call is not None and pools(call.output, trace.n_samples)
        if call is not None and usable and sequence and _weighty(child):
            inner = inner if _passes_on(call, inner) else [call]
        found |= dict.fromkeys(inner)
    return sorted(found, key=lambda call: order[call])


def _passes_on(call: Call, inner: list[Call]) -> bool:
    """Whether a module gives what the last block inside it gives, or those inside are a chain."""
    if not inner:
        return False
    last = inner[-1]
    if call.output is last.output and call.version == last.version:
        return True
    return any(a.output is b.read for a, b in pairwise(inner))


def _weighty(module: nn.Module) -> bool:
    """Whether a module is made of others and has at least two matrices or kernels."""
    composed = next(module.children(), None) is not None
    return composed and sum(p.ndim >= 2 for p in module.parameters()) >= 2


def _chains(trace: Trace) -> list[Call]:
    """For each convolution or linear map the last module after it that keeps its shape."""
    ends: list[Call] = []
    following: Call | None = None
    for module, call in trace.calls.items():
        if next(module.children(), None) is not None or not pools(call.output, trace.n_samples):
            continue
        if any(p.ndim >= 2 for p in module.parameters()):
            ends.append(call)
            following = call
        elif following is not None and _follows(call, following):
            ends[-1] = following = call
        else:
            following = None
    return ends


def _follows(call: Call, before: Call) -> bool:
    if call.n_calls > 1 or before.output is None or call.read is not before.output:
        return False
    return call.output is not None and call.output.shape == before.output.shape
