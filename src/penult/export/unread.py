"""Unread channels: what makes only features that no class reads is taken out of a traced network.

From the features backwards: an operation that treats each channel by itself (activation, batch
norm, pooling, depthwise convolution, sum of two paths) needs only the channels that are read of it,
and a convolution or a linear layer only the filters that make these. Where something else reads the
other channels as well (a residual stream), or an operation mixes them (layer norm), the network
stays as it is from there on, and the channels that are read are taken out behind it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn

from penult.export.channel_rules import Wanted, needs_of, rewritten

START = "read"  # the buffer of `HeadLayer`


@dataclass
class Dropped:
    """What was taken out of a network.

    Attributes:
        layers: name of each smaller layer, with its channels before and after.
        kept: where the network had to stay as it is, and why.
    """

    layers: list[dict[str, Any]] = field(default_factory=list)
    kept: list[dict[str, str]] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """As `export.json` has it."""
        return {"layers": self.layers, "kept": self.kept}


def graph_of(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """A program as a module whose graph can be changed."""
    options = {}
    if "check_guards" in inspect.signature(program.module).parameters:
        options["check_guards"] = False
    module = program.module(**options)
    assert isinstance(module, fx.GraphModule)
    return module


def drop_unread(program: torch.export.ExportedProgram) -> tuple[fx.GraphModule, Dropped]:
    """A program without what makes only channels that no class reads.

    Args:
        program: whose head first selects the features that are read (`head_layer` with `drop`).
    """
    module = graph_of(program)
    start = _start(module)
    keep = module.get_buffer(str(start.args[2].target))  # type: ignore[union-attr]
    first = start.args[0]
    assert isinstance(first, fx.Node)
    wanted = _narrowable(first, Wanted(_axis(start), tuple(keep.tolist())), start)
    dropped = Dropped()
    _rewrite(module, start, wanted, dropped)
    module.graph.eliminate_dead_code()
    module.graph.lint()
    # A new module holds only what its graph names.
    held = {str(n.target): _held(module, n) for n in module.graph.nodes if n.op == "get_attr"}
    return fx.GraphModule(held, module.graph), dropped


def _start(module: fx.GraphModule) -> fx.Node:
    """Where the head selects what it reads."""
    nodes: list[fx.Node] = list(module.graph.nodes)
    for node in nodes:
        if node.target is torch.ops.aten.index_select.default:
            index = node.args[2]
            if isinstance(index, fx.Node) and str(index.target).split(".")[-1] == START:
                return node
    raise AssertionError("the program's head selects no features")


def _axis(node: fx.Node) -> int:
    axis = node.args[1]
    assert isinstance(axis, int)
    return axis % len(shape_of(node.args[0]))


def shape_of(node: Any) -> tuple[Any, ...]:
    """Sizes of what a node gives; those of free axes are symbols."""
    return tuple(node.meta["val"].shape)


def _narrowable(first: fx.Node, wanted: Wanted, start: fx.Node) -> dict[fx.Node, Wanted]:
    """The nodes of which nobody needs more than some channels, each with these.

    First all that the channels come from, then less and less, until no node is left that anything
    outside reads.
    """
    found: dict[fx.Node, Wanted] = {}
    clashing: set[fx.Node] = set()
    pending = [(first, wanted)]
    while pending:
        node, own = pending.pop()
        if node in clashing or node.op != "call_function":
            continue
        if node in found:
            if found[node] != own:
                clashing.add(node)
            continue
        needs = needs_of(node, own)
        if isinstance(needs, str):
            continue
        found[node] = own
        pending += needs
    left = {node: own for node, own in found.items() if node not in clashing}

    while True:
        foreign = [
            node
            for node, own in left.items()
            if not all(_content(user, node, own, left, start) for user in node.users)
        ]
        # What is changed in place is seen by all others that read it.
        foreign += [n for n in left if _in_place(n) and len(_input(n).users) > 1]
        if not foreign:
            return left
        for node in foreign:
            left.pop(node, None)


def _content(
    user: fx.Node, node: fx.Node, own: Wanted, wanted: dict[fx.Node, Wanted], start: fx.Node
) -> bool:
    """Whether a user needs no more of a node than these channels."""
    if user is start:
        return True
    needs = needs_of(user, wanted[user]) if user in wanted else ""
    return not isinstance(needs, str) and (node, own) in needs


def _in_place(node: fx.Node) -> bool:
    name = str(getattr(node.target, "overloadpacket", node.target))
    return name.endswith("_") and not name.endswith("__")


def _input(node: fx.Node) -> fx.Node:
    first = node.args[0]
    assert isinstance(first, fx.Node)
    return first


def _rewrite(
    module: fx.GraphModule, start: fx.Node, wanted: dict[fx.Node, Wanted], dropped: Dropped
) -> None:
    made: dict[fx.Node, fx.Node] = {}
    selected: dict[tuple[fx.Node, Wanted], fx.Node] = {}
    tensors = _Tensors(module)

    def narrowed(node: fx.Node, own: Wanted) -> fx.Node:
        """A node with only some channels: made so, or with these taken out behind it."""
        if wanted.get(node) == own:
            return made[node]
        if (node, own) not in selected:
            dropped.kept.append({"at": name_of(node), "why": _why(node, own, wanted, start)})
            with module.graph.inserting_after(node):
                index = module.graph.get_attr(tensors.index(own.keep))
            with module.graph.inserting_after(index):
                new = module.graph.call_function(
                    torch.ops.aten.index_select.default, (node, own.axis, index)
                )
            new.meta["val"] = None
            selected[node, own] = new
        return selected[node, own]

    for node in [node for node in module.graph.nodes if node in wanted]:
        with module.graph.inserting_before(node):
            new, layer = rewritten(module.graph, node, wanted[node], narrowed, tensors)
        made[node] = new
        size = shape_of(node)[wanted[node].axis]
        if layer and size != len(wanted[node].keep):
            about = {"layer": name_of(node), "before": int(size), "after": len(wanted[node].keep)}
            dropped.layers.append(about)
    first = _input(start)
    own = Wanted(_axis(start), tuple(module.get_buffer(str(start.args[2].target)).tolist()))  # type: ignore[union-attr]
    if first in made:
        start.replace_all_uses_with(made[first])
        module.graph.erase_node(start)
    else:
        dropped.kept.append({"at": name_of(first), "why": _why(first, own, wanted, start)})
    # What changes a tensor in place is never taken for dead.
    for node in [node for node in reversed(module.graph.nodes) if node in wanted]:
        if not node.users:
            module.graph.erase_node(node)


class _Tensors:
    """New tensors of a module, each under a name of its own."""

    def __init__(self, module: fx.GraphModule) -> None:
        self._module, self._names = module, self._new_names()
        self._indices: dict[tuple[int, ...], str] = {}

    def _new_names(self) -> Iterator[str]:
        number = 0
        while True:
            yield f"kept{number}"
            number += 1

    def index(self, keep: tuple[int, ...]) -> str:
        """Name of a buffer with some channels."""
        if keep not in self._indices:
            self._indices[keep] = next(self._names)
            self._module.register_buffer(self._indices[keep], torch.tensor(keep))
        return self._indices[keep]

    def sliced(self, node: fx.Node, axis: int, keep: tuple[int, ...]) -> str:
        """Name of a parameter: a part of the one that a node names."""
        whole = _held(self._module, node)
        name = next(self._names)
        part = whole.detach().index_select(axis, torch.tensor(keep)).clone()
        if isinstance(whole, nn.Parameter):
            self._module.register_parameter(name, nn.Parameter(part, requires_grad=False))
        else:
            self._module.register_buffer(name, part)
        return name


def _held(module: nn.Module, node: fx.Node) -> Any:
    found: Any = module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found


def _why(node: fx.Node, own: Wanted, wanted: dict[fx.Node, Wanted], start: fx.Node) -> str:
    """Why a node has to give all of its channels."""
    if node.op == "placeholder":
        return "it is the network's input"
    needs = needs_of(node, own)
    if isinstance(needs, str):
        return needs
    others = [
        user
        for user in node.users
        if user.meta.get("val") is not None and not _content(user, node, own, wanted, start)
    ]
    if others:
        readers = ", ".join(dict.fromkeys(name_of(user) for user in others[:3]))
        return f"its other channels are read as well (by {readers}): a residual stream"
    return "it is read in several ways"


def name_of(node: fx.Node) -> str:
    """Dotted name of the layer that a node belongs to, else of its operation."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [str(path) for path, _ in stack.values()]
    last = paths[-1] if paths else ""
    # As the user's network has it, without what was put around it.
    name = last.split("network.", 1)[-1] if "network" in last else last
    operation = str(getattr(node.target, "overloadpacket", node.target)).split(".")[-1]
    return f"{name} ({operation})" if name and name != "network" else operation


def run_graph(module: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Logits of a module made by `graph_of` or `drop_unread`."""
    with torch.no_grad():
        logits: Tensor = module(**inputs)
    return logits
