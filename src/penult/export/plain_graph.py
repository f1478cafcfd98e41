"""PlainGraph: a traced program as a graph in which nothing is changed in place."""

from __future__ import annotations

import inspect
import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from penult.export.narrowing import operation_of, shape_of
from penult.export.traced import quiet

aten = torch.ops.aten
CHECKS = {"_assert_tensor_metadata"}  # of a trace; the next trace makes its own
STORED = "_native_batch_norm_legit_no_training"
IN_PLACE = {"relu", "hardtanh", "silu", "hardswish", "leaky_relu", "elu"}
# Operations whose output is a tensor of its own, and not a part or another view of an input.
FRESH = {"conv1d", "conv2d", "conv3d", "linear", "batch_norm", "add", "mul"}
FLAT = {"view", "_unsafe_view"}


def graph_of(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """A program as a module whose graph can be changed."""
    options = {}
    if "check_guards" in inspect.signature(program.module).parameters:
        options["check_guards"] = False
    module = program.module(**options)
    assert isinstance(module, fx.GraphModule)
    return module


def plain_graph(program: torch.export.ExportedProgram) -> fx.GraphModule:
    """A program's graph in fewer kinds of operations, which gives the same.

    Operations that change a tensor in place make a new one, and parts of a split are slices.
    """
    with quiet():
        functional = program.run_decompositions({})
    module = graph_of(functional)
    for node in list(module.graph.nodes):
        if node.op == "get_attr":
            _hold(module, node)
        elif operation_of(node) in CHECKS:
            module.graph.erase_node(node)
        elif node.op == "call_function":
            _simplify(module.graph, node)
    module.graph.eliminate_dead_code()
    return module


def sped_up(graph: fx.Graph) -> None:
    """Use the operations again that networks are written with, since they are faster.

    Batch norm gives one thing and not three; an activation changes what nobody else reads.
    """
    for node in list(graph.nodes):
        name = operation_of(node)
        if name == STORED:
            _batch_norm_of(graph, node)
        elif name in IN_PLACE and _only_reader(node):
            node.target = getattr(aten, f"{name}_").default


def _batch_norm_of(graph: fx.Graph, node: fx.Node) -> None:
    *tensors, momentum, epsilon = node.args
    with graph.inserting_after(node):
        new = graph.call_function(
            aten.batch_norm.default, (*tensors, False, momentum, epsilon, False)
        )
    new.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
    for user in list(node.users):
        if user.args[1] != 0:
            return
        user.replace_all_uses_with(new)
        graph.erase_node(user)
    graph.erase_node(node)


def _only_reader(node: fx.Node) -> bool:
    """Whether an activation reads a tensor that is made for it alone."""
    x = node.args[0]
    return isinstance(x, fx.Node) and len(x.users) == 1 and operation_of(x) in FRESH


def held_by(module: nn.Module, node: fx.Node) -> Any:
    """What a node names: a parameter, a buffer, or a part of the graph of its own."""
    found: Any = module
    for part in str(node.target).split("."):
        found = getattr(found, part)
    return found


def _hold(module: fx.GraphModule, node: fx.Node) -> None:
    """Note what a node names."""
    value = held_by(module, node)
    if isinstance(value, Tensor):
        node.meta["held"] = value
        node.meta.setdefault("val", value)


def _simplify(graph: fx.Graph, node: fx.Node) -> None:
    name = operation_of(node)
    if name in FLAT and not isinstance(node.args[1], torch.dtype):
        # What is narrowed may lie otherwise in memory.
        node.target = aten.reshape.default
    elif (name == "slice" and _whole(node)) or (name == "clone" and not node.kwargs):
        # Nothing is changed in place, so that a copy is as good as what it was made of.
        x = node.args[0]
        assert isinstance(x, fx.Node)
        node.replace_all_uses_with(x)
    elif node.target is operator.getitem and isinstance(node.args[0], fx.Node):
        _cut_out(graph, node, node.args[0])


def _whole(node: fx.Node) -> bool:
    return shape_of(node) == shape_of(node.args[0])


def _cut_out(graph: fx.Graph, node: fx.Node, source: fx.Node) -> None:
    """A part of a split as a slice, one of several positions as a selection."""
    name = operation_of(source)
    x, index = source.args[0], node.args[1]
    assert isinstance(index, int)
    if name not in ("split", "split_with_sizes", "chunk", "unbind"):
        return
    place = 1 if name == "unbind" else 2
    axis: Any = source.args[place] if len(source.args) > place else 0
    with graph.inserting_before(node):
        if name == "unbind":
            new = graph.call_function(aten.select.int, (x, axis, index))
        else:
            sizes = [one.shape[axis] for one in source.meta["val"]]
            begin = sum(sizes[:index])
            if any(isinstance(size, torch.SymInt) for size in sizes):
                return
            new = graph.call_function(aten.slice.Tensor, (x, axis, begin, begin + sizes[index]))
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)
