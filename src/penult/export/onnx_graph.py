"""ONNX graphs: made of traced programs, cleaned, and opened in onnxruntime."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from penult.errors import InputError
from penult.export.shipped_network import LOGITS
from penult.export.traced import quiet
from penult.extras import import_extra
from penult.text import one_line

EXTRA = "export"
OPSET = 20  # the exporter's own default
OLDEST = 18  # that the exporter writes
LARGEST_FILE = 1_800_000_000  # bytes: a file of ONNX may have 2 GiB, larger weights lie beside it


def require_onnx() -> None:
    """Refuse where a library that ONNX files need is missing, before any work.

    Raises:
        InputError: with the line that installs it.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        import_extra(package, EXTRA)


def check_opset(opset: int) -> None:
    """Refuse an opset that the exporter cannot write or the installed runtime does not know.

    Raises:
        InputError: says which there are.
    """
    onnx = import_extra("onnx", EXTRA)
    newest = int(onnx.defs.onnx_opset_version())
    while newest > OLDEST and not _is_known(newest):
        newest -= 1
    if not OLDEST <= opset <= newest:
        version = import_extra("onnxruntime", EXTRA).__version__
        raise InputError(
            f"--opset {opset}: the exporter and the installed onnxruntime {version} know opsets "
            f"{OLDEST} to {newest}; expected one of these"
        )


def _is_known(opset: int) -> bool:
    """Whether the runtime opens a graph of one operation of this opset."""
    onnx = import_extra("onnx", EXTRA)
    helper, number = onnx.helper, onnx.TensorProto.FLOAT
    ends = [helper.make_tensor_value_info(name, number, [1]) for name in ("x", "y")]
    node = helper.make_node("Identity", ["x"], ["y"])
    graph = helper.make_graph([node], "probe", ends[:1], ends[1:])
    version = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=version, ir_version=9)
    try:
        session_of(model.SerializeToString())
    except Exception:  # the runtime has several of its own
        return False
    return True


def onnx_of(
    program: torch.export.ExportedProgram,
    names: Sequence[str],
    opset: int,
    outputs: Sequence[str] = (LOGITS,),
) -> Any:
    """A traced program as an ONNX model, without the paths and lines of the code it comes from.

    Args:
        program: of inputs to logits.
        names: of the inputs.
        opset: version of ONNX's operations.
        outputs: names of what it gives.

    Raises:
        InputError: an operation that ONNX does not have.
    """
    _require_known_numbers(program)
    _copy_before_views(program)
    try:
        with quiet():
            made = torch.onnx.export(
                program,
                input_names=list(names),
                output_names=list(outputs),
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
    except Exception as error:  # whatever the exporter makes of it
        raise InputError(
            f"the network cannot become ONNX ({_reason(error)}): export it with --format torch, or "
            "the head alone with --format head"
        ) from error
    assert made is not None
    model = made.model_proto
    found = next(one.version for one in model.opset_import if one.domain in ("", "ai.onnx"))
    if found != opset:
        raise InputError(
            f"--opset {opset}: some operation of the network could only be written in opset "
            f"{found}: expected --opset {found}"
        )
    _clean(model)
    return model


def _require_known_numbers(program: torch.export.ExportedProgram) -> None:
    """Refuse numbers that onnxruntime does not compute with, such as those of autocast."""
    graphs = [m for m in program.graph_module.modules() if isinstance(m, torch.fx.GraphModule)]
    for node in (node for module in graphs for node in module.graph.nodes):
        made = getattr(node.meta.get("val"), "dtype", None)
        if node.op == "call_function" and made == torch.bfloat16:
            raise InputError(
                f"the network computes in bfloat16 (at {node.name}), which onnxruntime does not on "
                "a CPU: export it with --format torch, or analyse it in float32 (network.float(), "
                "without autocast) and export that run"
            )


def _copy_before_views(program: torch.export.ExportedProgram) -> None:
    """Let what takes another shape, once axes have changed places, read a copy: the same numbers.

    The exporter replaces operations such as attention by others whose results lie otherwise in
    memory, so that this shape may not be had of them as they are.
    """
    graph, aten = program.graph, torch.ops.aten
    moving = (aten.transpose.int, aten.permute.default)
    views = (aten.view.default, aten.reshape.default, aten.flatten.using_ints)
    for node in [node for node in graph.nodes if node.target in views]:
        source = node.args[0]
        if isinstance(source, torch.fx.Node) and source.target in moving:
            with graph.inserting_before(node):
                order = {"memory_format": torch.contiguous_format}
                copy = graph.call_function(aten.clone.default, (source,), order)
            copy.meta = dict(source.meta)
            node.replace_input_with(source, copy)
    program.graph_module.recompile()


def _reason(error: BaseException) -> str:
    """The innermost cause, which names the operation."""
    while error.__cause__ is not None:
        error = error.__cause__
    lacking = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
    if lacking is not None:
        return f"ONNX has no operation for {lacking[1]}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return one_line(lines[0] if lines else type(error).__name__, 200)


def _clean(model: Any) -> None:
    graph = model.graph
    for one in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del one.metadata_props[:]
    for function in model.functions:
        for node in function.node:
            del node.metadata_props[:]
    del model.metadata_props[:]
    names = dict(zip(_free_axes(graph.input[0]), ("batch", "tokens"), strict=False))
    for value in (*graph.input, *graph.output, *graph.value_info):
        for place in value.type.tensor_type.shape.dim:
            if place.dim_param in names and place.dim_param:
                place.dim_param = names[place.dim_param]


def _free_axes(value: Any) -> list[str]:
    """The exporter's names of axes of any size: the batch, and of texts the tokens."""
    return [place.dim_param for place in value.type.tensor_type.shape.dim if place.dim_param]


def describe(model: Any, notes: Mapping[str, str]) -> None:
    """Put text about a model into its metadata, where every runtime finds it."""
    for key, value in notes.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value


def save(model: Any, path: Path) -> list[Path]:
    """Write a model; weights of more than a file may hold lie beside it.

    Returns:
        The files.
    """
    onnx = import_extra("onnx", EXTRA)
    if model.ByteSize() < LARGEST_FILE:
        onnx.save(model, path)
        return [path]
    beside = path.with_name(f"{path.name}.data")
    onnx.save(model, path, save_as_external_data=True, location=beside.name)
    return [path, beside]


def session_of(model: bytes) -> Any:
    """An onnxruntime session on the CPU, with as many threads as torch has."""
    onnxruntime = import_extra("onnxruntime", EXTRA)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait busily after a run take the processor from what is timed next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
