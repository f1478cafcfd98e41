"""Cost: what a traced network costs: parameters, multiplications, bytes, seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from penult.export.head_forms import GatherForm, HeadLayer, RowsForm
from penult.export.timing import summary
from penult.export.traced import examples_of
from penult.export.unread import graph_of, run_graph


def counted_cost(
    program: torch.export.ExportedProgram, inputs: Mapping[str, Tensor], size: int
) -> dict[str, int]:
    """Parameters of a program, and the multiplications of convolutions and matrix products.

    Args:
        program: the program.
        inputs: samples.
        size: how many of them are run; the multiplications are those of one.
    """
    example = examples_of(inputs, size)
    named = {"images" if name == "pixels" else name: values for name, values in example.items()}
    with FlopCounterMode(display=False) as counter:
        run_graph(graph_of(program), named)
    # One multiplication and one addition count as two.
    return {
        "parameters": n_parameters(program),
        "multiplications": counter.get_total_flops() // 2 // size,
    }


def n_parameters(program: torch.export.ExportedProgram) -> int:
    """Numbers in the parameters that a program reads; a network may hold others, for training."""
    names = program.graph_signature.inputs_to_parameters
    read = {names[node.name] for node in program.graph.nodes if node.name in names and node.users}
    return sum(values.numel() for name, values in program.named_parameters() if name in read)


def gathered_products(layer: HeadLayer) -> int:
    """Multiplications of a head that no counter of matrix products sees."""
    forms = [one for one in layer.modules() if isinstance(one, GatherForm | RowsForm)]
    return sum(form.values.numel() for form in forms)


def timed(seconds: Mapping[int, Mapping[str, list[float]]]) -> dict[str, dict[str, Any]]:
    """Seconds of an export and of the network as it was, by batch size.

    Args:
        seconds: of one batch, again and again, of "export" and perhaps "before".
    """
    found = {}
    for size, times in seconds.items():
        row: dict[str, Any] = {"after": summary(times["export"])}
        if "before" in times:
            row["before"] = summary(times["before"])
            row["speed_up"] = row["before"]["median"] / row["after"]["median"]
        found[str(size)] = row
    return found
