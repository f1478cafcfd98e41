"""The format `torch`: the whole network as a program of torch.export, which needs no code."""

from __future__ import annotations

from pathlib import Path

import torch

from penult.export.choose_form import check_form, choose_form
from penult.export.head_forms import head_layer
from penult.export.onnx_format import notes_of, signature_of
from penult.export.proof import Trial
from penult.export.shipment import ExportOptions, Shipment, Written
from penult.export.traced import quiet, trace

NAME = "network.pt2"


def check_torch(options: ExportOptions) -> None:
    """Refuse what is asked for in vain, before any work."""
    check_form(options.form)


def write_torch(shipment: Shipment, folder: Path) -> Written:
    """Write `network.pt2`.

    Raises:
        InputError: the network cannot be traced.
    """
    options, inputs = shipment.options, shipment.inputs
    form, about = choose_form(
        shipment.shipped, "torch", options.timed, opset=options.opset, form=options.form
    )
    with shipment.whole(head_layer(shipment.shipped, form)) as network:
        program = trace(network, inputs, options.batch_size)
        save_program(program, folder / NAME, notes_of(shipment))
    trial = Trial("torch", [folder / NAME], options.batch_size, options.timed)
    document = {"head_form": about, **signature_of(shipment)}
    return Written([folder / NAME], trial, inputs, document)


def save_program(
    program: torch.export.ExportedProgram, path: Path, notes: dict[str, str] | None = None
) -> None:
    """Write a program without the samples that it was traced with."""
    program.example_inputs = None  # they would be pickled
    with quiet():
        torch.export.save(program, path, extra_files=dict(notes or {}))
