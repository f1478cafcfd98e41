"""Unread channels: what makes only features that no class reads is taken out of a traced network.

From the logits backwards each operation is asked which positions along which axis of its inputs it
needs (`channel_rules.py`): an operation that treats each channel by itself needs those that are
read of it, a convolution or a linear layer only the filters that make these. What several read
must give what any of them needs: where a residual stream is read whole, it stays, and what is
needed of it is taken out behind it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from penult.export.channel_rules import LAYERS, narrowing_of
from penult.export.cut_rules import CUTS
from penult.export.narrowing import (
    Keep,
    Narrowing,
    NewCall,
    Slot,
    Wanted,
    operation_of,
    places_of,
    shape_of,
)
from penult.export.plain_graph import graph_of, held_by, plain_graph, sped_up

__all__ = ["Dropped", "drop_unread", "graph_of", "run_graph"]
START = "read"  # the buffer of `HeadLayer`
WHOLE: Wanted = {}
SHARED = "its numbers are used elsewhere too, with all channels"


@dataclass
class Dropped:
    """What was taken out of a network.

    Attributes:
        layers: name of each smaller layer, with its channels before and after.
        positions: name of each layer that is computed at fewer positions, such as the tokens of a
            transformer's last block, with their number before (None where it is that of a text's
            tokens) and after.
        kept: where the network had to stay as it is, and why.
    """

    layers: list[dict[str, Any]] = field(default_factory=list)
    positions: list[dict[str, Any]] = field(default_factory=list)
    kept: list[dict[str, str]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As `export.json` has it."""
        return {"layers": self.layers, "positions": self.positions, "kept": self.kept}


def drop_unread(program: torch.export.ExportedProgram) -> tuple[fx.GraphModule, Dropped]:
    """A program without what makes only channels that no class reads.

    Args:
        program: whose head first selects the features that are read (`head_layer` with `drop`).
    """
    module = plain_graph(program)
    stopped: set[fx.Node] = set()
    while True:
        demands = _Demands.of(module.graph, stopped)
        clashing = demands.clashing()
        if not clashing:
            break
        stopped |= clashing
    dropped = _Rewriting(module, demands).run()
    module.graph.eliminate_dead_code()
    sped_up(module.graph)
    module.graph.lint()
    # A new module holds only what its graph names.
    held = {str(n.target): held_by(module, n) for n in module.graph.nodes if n.op == "get_attr"}
    return fx.GraphModule(held, module.graph), dropped


@dataclass
class _Demands:
    """What is read of each node.

    Attributes:
        given: positions that each node has to give, by axis; dead nodes are not in it.
        needs: what each node needs of its inputs by their place.
        narrowings: how each node gives less, by axis; by None what it leaves unread in any case.
        features: the axes that the features lie along, as far as they can be followed.
        why: reasons why a node gives more than is read of it along an axis.
        stopped: nodes that stay as they are.
    """

    given: dict[fx.Node, Wanted] = field(default_factory=dict)
    needs: dict[fx.Node, dict[Slot, Wanted]] = field(default_factory=dict)
    narrowings: dict[fx.Node, dict[int | None, Narrowing]] = field(default_factory=dict)
    features: set[tuple[fx.Node, int]] = field(default_factory=set)
    why: dict[tuple[fx.Node, int], str] = field(default_factory=dict)
    stopped: set[fx.Node] = field(default_factory=set)

    @classmethod
    def of(cls, graph: fx.Graph, stopped: set[fx.Node]) -> _Demands:
        """From the last node to the first."""
        self = cls(stopped=stopped)
        for node in reversed(graph.nodes):
            # What is only done for its effect; attention counts as random, but gives something.
            if node.op == "output" or (node.is_impure() and not node.users):
                self.given[node] = WHOLE
            if node in self.given:
                self._look_at(node)
        for node, own in self.given.items():
            if operation_of(node) == "getitem" and own:
                self.given[node] = self.given[_node(node.args[0])]
        return self

    def _look_at(self, node: fx.Node) -> None:
        asked = {a: k for a, k in self.given[node].items() if len(k) != shape_of(node)[a]}
        narrowings: dict[int | None, Narrowing] = {}
        own: Wanted = {}
        cut = CUTS.get(operation_of(node))
        whole = cut(node) if cut is not None else None
        if whole is not None:
            narrowings[None] = whole
        for axis, keep in asked.items():
            narrowing = self._narrowing(node, axis, keep)
            if isinstance(narrowing, str):
                self.why[node, axis] = narrowing
                continue
            if narrowing.keep != keep:
                self.why[node, axis] = narrowing.why
            if len(narrowing.keep) == shape_of(node)[axis]:
                continue
            own[axis] = narrowing.keep
            narrowings[axis] = narrowing
        self.given[node], self.narrowings[node] = own, narrowings
        needs = self.needs[node] = _together(node, narrowings.values())
        for slot, x in _inputs(node):
            self._follow(node, slot, x)
            if not any(len(keep) == 0 for keep in needs.get(slot, WHOLE).values()):
                self._read(x, needs.get(slot, WHOLE))

    def _narrowing(self, node: fx.Node, axis: int, keep: Keep) -> Narrowing | str:
        if node.op == "placeholder":
            return "it is the network's input"
        if node.op == "get_attr":
            return Narrowing(keep, [])
        return SHARED if node in self.stopped else narrowing_of(node, axis, keep)

    def _follow(self, node: fx.Node, slot: Slot, x: fx.Node) -> None:
        start = _selects_features(node)
        for axis, narrowing in self.narrowings[node].items():
            if start if axis is None else (node, axis) in self.features:
                self.features |= {(x, a) for place, a, _ in narrowing.needs if place == slot}

    def _read(self, node: fx.Node, wanted: Wanted) -> None:
        if node not in self.given:
            self.given[node] = dict(wanted)
            return
        before = self.given[node]
        self.given[node] = {
            axis: tuple(sorted({*before[axis], *wanted[axis]}))
            for axis in before.keys() & wanted.keys()
        }

    def clashing(self) -> set[fx.Node]:
        """Nodes that need a part of parameters of which others need more.

        The part would have to be taken out each time that the network runs.
        """
        return {
            node
            for node, needs in self.needs.items()
            for slot, x in _inputs(node)
            if x.op == "get_attr"
            and node not in self.stopped
            and needs.get(slot, WHOLE) != self.given[x]
            and not all(len(keep) == 0 for keep in needs.get(slot, {0: ()}).values())
        }

    def readers(self, node: fx.Node, axis: int) -> list[fx.Node]:
        """Who needs all positions along an axis that a node gives."""
        return [
            user
            for user in node.users
            if user in self.needs
            and any(
                x is node
                and self.needs[user].get(slot, WHOLE).get(axis) == self.given[node].get(axis)
                for slot, x in _inputs(user)
            )
        ]


def _together(node: fx.Node, narrowings: Iterable[Narrowing]) -> dict[Slot, Wanted]:
    """What several axes need of each input: along one axis of it, what all of them need."""
    found: dict[Slot, Wanted] = {}
    shapes = {slot: shape_of(x) for slot, x in _inputs(node)}
    for narrowing in narrowings:
        for slot, axis, keep in narrowing.needs:
            own = found.setdefault(slot, {})
            known = set(own.get(axis, keep))
            own[axis] = tuple(j for j in keep if j in known)
    return {
        slot: {axis: keep for axis, keep in own.items() if len(keep) != shapes[slot][axis]}
        for slot, own in found.items()
    }


def _inputs(node: fx.Node) -> Iterator[tuple[Slot, fx.Node]]:
    """Every node that a node reads, by its place; what is given by name has a negative one."""
    for i, one in enumerate((*node.args, *node.kwargs.values())):
        first = i if i < len(node.args) else len(node.args) - i - 1
        if isinstance(one, fx.Node):
            yield (first,), one
        elif isinstance(one, list | tuple):
            yield from (((first, j), x) for j, x in enumerate(one) if isinstance(x, fx.Node))


def _selects_features(node: fx.Node) -> bool:
    """Whether the head selects the features that it reads here."""
    if operation_of(node) != "index_select":
        return False
    index = _node(node.args[2])
    return str(index.target).split(".")[-1] == START


def _node(value: Any) -> fx.Node:
    assert isinstance(value, fx.Node)
    return value


class _Rewriting:
    """A graph made anew, from the first node to the last."""

    def __init__(self, module: fx.GraphModule, demands: _Demands) -> None:
        self._module, self._graph, self._demands = module, module.graph, demands
        self._made: dict[fx.Node, fx.Node] = {}
        self._selected: dict[tuple[fx.Node, int, Keep, Any], fx.Node] = {}
        self._tensors = _NewTensors(module)
        self.dropped = Dropped()

    def run(self) -> Dropped:
        """Change the graph."""
        before = list(self._graph.nodes)
        for node in before:
            if node not in self._demands.given or node.op == "placeholder":
                continue
            with self._graph.inserting_before(node):
                if node.op == "get_attr":
                    self._made[node] = self._parameter(node)
                else:
                    self._remake(node)
        # Nothing that counts as random is ever taken for dead.
        for node in reversed(before):
            stays = node in self._demands.given and self._made.get(node, node) is node
            if not stays and not node.users and node.op != "placeholder":
                self._graph.erase_node(node)
        return self.dropped

    def _parameter(self, node: fx.Node) -> fx.Node:
        own = self._demands.given[node]
        return self._graph.get_attr(self._tensors.sliced(node, own)) if own else node

    def _remake(self, node: fx.Node) -> None:
        own, narrowings = self._demands.given[node], self._demands.narrowings[node]
        needs = self._demands.needs[node]
        inputs = {
            slot: self._narrowed(x, needs.get(slot, WHOLE), node) for slot, x in _inputs(node)
        }
        if not narrowings and all(inputs[slot] is x for slot, x in _inputs(node)):
            return
        call = NewCall(node.target, *_arguments(node, inputs), self._constant)
        for narrowing in narrowings.values():
            if narrowing.change is not None:
                narrowing.change(call)
        if node.op == "output":
            node.args = tuple(call.args)
            return
        if call.passes:
            self._made[node] = call.args[0]
            return
        new = self._graph.call_function(call.target, tuple(call.args), call.kwargs)
        new.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
        self._made[node] = new
        self._tell(node, own)

    def _tell(self, node: fx.Node, own: Wanted) -> None:
        name = operation_of(node)
        if name not in LAYERS:
            return
        for axis, keep in own.items():
            filters = any(slot == (1,) for slot, *_ in self._demands.narrowings[node][axis].needs)
            told = self.dropped.layers if filters else self.dropped.positions
            size = shape_of(node)[axis]
            before = None if isinstance(size, torch.SymInt) else int(size)
            told.append({"layer": name_of(node), "before": before, "after": len(keep)})

    def _constant(self, positions: Keep) -> fx.Node:
        return self._graph.get_attr(self._tensors.index(positions))

    def _narrowed(self, x: fx.Node, need: Wanted, user: fx.Node) -> fx.Node:
        """A node with only what is needed of it: made so, or taken out behind it."""
        made = self._made.get(x, x)
        if any(len(keep) == 0 for keep in need.values()):
            return made
        given = self._demands.given.get(x, WHOLE)
        for axis, keep in need.items():
            if given.get(axis) == keep or operation_of(user) == "getitem":
                continue
            if (x, axis) in self._demands.features:
                self._tell_kept(x, axis)
            made = self._take(x, made, axis, keep)
        return made

    def _take(self, x: fx.Node, made: fx.Node, axis: int, keep: Keep) -> fx.Node:
        known = (x, axis, keep, made)
        if known not in self._selected:
            held = self._demands.given.get(x, WHOLE).get(axis)
            places = keep if held is None else places_of(keep, held)
            with self._graph.inserting_after(made):
                step = places[1] - places[0] if len(places) > 1 else 1
                if places == tuple(range(places[0], places[-1] + 1, step)):
                    cut = (made, axis, places[0], places[-1] + 1, step)
                    new = self._graph.call_function(torch.ops.aten.slice.Tensor, cut)
                else:
                    index = self._constant(places)
                    with self._graph.inserting_after(index):
                        new = self._graph.call_function(
                            torch.ops.aten.index_select.default, (made, axis, index)
                        )
            self._selected[known] = new
        return self._selected[known]

    def _tell_kept(self, x: fx.Node, axis: int) -> None:
        about = {"at": name_of(x), "why": self._why(x, axis)}
        if about not in self.dropped.kept:
            self.dropped.kept.append(about)

    def _why(self, x: fx.Node, axis: int) -> str:
        """Why a node gives more than one of its readers needs."""
        said = self._demands.why.get((x, axis))
        if said:
            return said
        others = self._demands.readers(x, axis)
        readers = ", ".join(dict.fromkeys(name_of(user) for user in others[:3]))
        return f"its other channels are read as well (by {readers}): a residual stream"


def _arguments(node: fx.Node, inputs: Mapping[Slot, fx.Node]) -> tuple[list[Any], dict[str, Any]]:
    """A node's arguments with other inputs."""
    found: list[Any] = []
    for i, one in enumerate((*node.args, *node.kwargs.values())):
        first = i if i < len(node.args) else len(node.args) - i - 1
        if isinstance(one, list | tuple):
            found.append([inputs.get((first, j), x) for j, x in enumerate(one)])
        else:
            found.append(inputs.get((first,), one))
    n = len(node.args)
    return found[:n], dict(zip(node.kwargs, found[n:], strict=True))


class _NewTensors:
    """New tensors of a module, each under a name of its own."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module, self._names = module, self._new_names()
        self._indices: dict[Keep, str] = {}

    def _new_names(self) -> Iterator[str]:
        number = 0
        while True:
            yield f"kept{number}"
            number += 1

    def index(self, keep: Keep) -> str:
        """Name of a buffer with some positions."""
        if keep not in self._indices:
            self._indices[keep] = next(self._names)
            self._module.register_buffer(self._indices[keep], torch.tensor(keep))
        return self._indices[keep]

    def sliced(self, node: fx.Node, wanted: Wanted) -> str:
        """Name of a parameter: a part of the one that a node names."""
        whole = held_by(self._module, node)
        name = next(self._names)
        part = whole.detach()
        for axis, keep in wanted.items():
            part = part.index_select(axis, torch.tensor(keep, device=whole.device))
        if isinstance(whole, nn.Parameter):
            self._module.register_parameter(name, nn.Parameter(part, requires_grad=False))
        else:
            self._module.register_buffer(name, part)
        return name


def name_of(node: fx.Node) -> str:
    """Dotted name of the layer that a node belongs to, else of its operation."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    last = paths[-1] if paths else ""
    # As the user's network has it, without what was put around it.
    name = last.split("network.", 1)[-1] if "network" in last else last
    operation = operation_of(node)
    return f"{name} ({operation})" if name and name != "network" else operation


def run_graph(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Logits of a module made by `graph_of` or `drop_unread`."""
    with torch.no_grad():
        logits: Tensor = module(**inputs)
    return logits
