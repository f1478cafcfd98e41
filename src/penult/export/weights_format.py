"""The format `safetensors`: weights of the original architecture, the head dense with zeros."""

from __future__ import annotations

from pathlib import Path

from penult.errors import InputError
from penult.export.proof import Trial
from penult.export.shipment import ExportOptions, Shipment, Written, require_float
from penult.export.shipped_head import ShippedHead
from penult.export.torch_format import save_program
from penult.export.traced import trace
from penult.heads.bounded_head import BoundedHead
from penult.network.write_head import write_head
from penult.runs.run import Run
from penult.storage import write_tensors

NAME = "network.safetensors"


def check_weights(options: ExportOptions) -> None:
    """Refuse what weights alone cannot hold, before any work."""
    require_float(options)
    asked = {
        "--preprocessing": options.preprocessing,
        "--form": options.form,
        "--drop-unread": options.drop_unread,
    }
    for option, value in asked.items():
        if value:
            raise InputError(
                f"{option} changes the network's structure, and --format {options.format} holds "
                "weights for the structure that there is: export with --format onnx or torch"
            )


def require_place(shipped: ShippedHead, run: Run) -> None:
    """Refuse a head that no layer of the network can hold.

    Raises:
        InputError: says why, and which formats can.
    """
    if isinstance(shipped.head, BoundedHead):
        raise InputError(
            "a head with caps is no linear layer, so it has no place in the network's weights: "
            "export it with --format onnx, torch or head"
        )
    if "reading" in run.about.get("network", {}):
        raise InputError(
            "several layers, or none, compute the network's logits, so the head has no place in "
            "its weights: export it with --format onnx, torch or head"
        )


def put_head(shipment: Shipment) -> None:
    """Write the head's weights into the network's own layer."""
    assert shipment.network is not None
    # The weights of a tuned network hold the tuned head already.
    new, tuned = shipment.shipped.head, shipment.shipped.tuned
    kept = tuned is not None and not tuned.document["head_only"]
    write_head(shipment.network, new if kept else shipment.run.train().require_head(), new)


def write_weights(shipment: Shipment, folder: Path) -> Written:
    """Write `network.safetensors`.

    The fresh process has no code of the network's architecture, so it gets the architecture, traced
    with its old weights, and takes every weight from the file.

    Raises:
        InputError: the head has no place in the architecture, or that cannot be traced.
    """
    inputs, options = shipment.inputs, shipment.options
    with shipment.whole(None) as network:
        program = trace(network, inputs, options.batch_size, shipment.most_tokens)
    put_head(shipment)
    assert shipment.network is not None
    write_tensors(folder / NAME, shipment.network.state_dict(), {"format": "pt"})
    architecture = folder / "architecture.pt2"  # removed once it has served the proof
    save_program(program, architecture)
    files, more = [architecture, folder / NAME], {"prefix": "network."}
    trial = Trial("torch", files, options.batch_size, more=more)
    head, document, notes = shipment.shipped.head, {}, list[str]()
    if head.kept is not None:
        document["kept"] = list(head.kept)
        notes.append(
            f"The file holds all {head.n_outputs or head.layer_classes:,} outputs of the network; "
            f"the run keeps {head.n_classes:,} of them, and the others have the weights that they "
            "had."
        )
    return Written([folder / NAME], trial, inputs, document, notes=notes)
