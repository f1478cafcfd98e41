"""The format `torch`: the whole network as a program of torch.export, which needs no code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from penult.export.choose_form import check_form
from penult.export.onnx_format import notes_of, signature_of
from penult.export.programs import before_file, traced_network
from penult.export.proof import Trial
from penult.export.shipment import ExportOptions, Shipment, Written, require_float
from penult.export.traced import quiet

NAME = "network.pt2"


def check_torch(options: ExportOptions) -> None:
    """Refuse what is asked for in vain, before any work."""
    check_form(options.form)
    require_float(options)


def write_torch(shipment: Shipment, folder: Path) -> Written:
    """Write `network.pt2`.

    Raises:
        InputError: the network cannot be traced.
    """
    options = shipment.options
    traced = traced_network(shipment, "torch")
    save_program(traced.program, folder / NAME, notes_of(shipment))
    cost: dict[str, Any] = traced.counted(shipment)
    before = []
    if traced.before is not None:
        before = [before_file(folder, NAME)]
        save_program(traced.before, before[0])
        cost["before"]["bytes"] = before[0].stat().st_size
        cost["after"]["bytes"] = (folder / NAME).stat().st_size
    trial = Trial("torch", [folder / NAME], options.batch_size, options.timed, before)
    document = {**traced.document, **signature_of(shipment)}
    return Written([folder / NAME], trial, shipment.inputs, document, notes=traced.notes, cost=cost)


def save_program(
    program: torch.export.ExportedProgram, path: Path, notes: dict[str, str] | None = None
) -> None:
    """Write a program without the samples that it was traced with."""
    program.example_inputs = None  # they would be pickled
    with quiet():
        torch.export.save(program, path, extra_files=dict(notes or {}))
