"""The format `onnx`: the whole network for onnxruntime and whatever else reads ONNX."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from penult.data.transform import Transform
from penult.export.choose_form import check_form, choose_form
from penult.export.head_forms import head_layer
from penult.export.onnx_graph import check_opset, describe, onnx_of, require_onnx, save
from penult.export.proof import Trial
from penult.export.shipment import ExportOptions, Shipment, Written
from penult.export.traced import trace

NAME = "network.onnx"
FORMAT = "penult-network/1"


def check_onnx(options: ExportOptions) -> None:
    """Refuse what cannot become ONNX here, before any work."""
    require_onnx()
    check_opset(options.opset)
    check_form(options.form)


def write_onnx(shipment: Shipment, folder: Path) -> Written:
    """Write `network.onnx`.

    Raises:
        InputError: the network cannot be traced, or holds an operation that ONNX does not have.
    """
    options, inputs = shipment.options, shipment.inputs
    form, about = choose_form(
        shipment.shipped, "onnxruntime", options.timed, opset=options.opset, form=options.form
    )
    with shipment.whole(head_layer(shipment.shipped, form)) as network:
        program = trace(network, inputs, options.batch_size)
        model = onnx_of(program, list(inputs), options.opset)
    describe(model, notes_of(shipment))
    files = save(model, folder / NAME)
    trial = Trial("onnx", files[:1], options.batch_size, options.timed)
    document = {"opset": options.opset, "head_form": about, **signature_of(shipment)}
    return Written(files, trial, inputs, document)


def signature_of(shipment: Shipment) -> dict[str, Any]:
    """The names, types and shapes of inputs and output; axes that may have any size by name."""
    fixed = shipment.options.batch_size
    found = {}
    for name, values in shipment.inputs.items():
        shape: list[Any] = [fixed or "batch", *values.shape[1:]]
        if name not in ("images", "pixels"):
            shape[1:2] = ["tokens"]
        found[name] = {"dtype": str(values.dtype).removeprefix("torch."), "shape": shape}
    n_classes = shipment.shipped.head.n_classes
    logits = {"dtype": "float32", "shape": [fixed or "batch", n_classes]}
    return {"inputs": found, "outputs": {"logits": logits}}


def notes_of(shipment: Shipment) -> dict[str, str]:
    """The metadata of the file."""
    transform, head = shipment.samples.transform, shipment.shipped
    made = transform.to_json() if transform is not None else None
    if isinstance(transform, Transform):
        made = {**(made or {}), "inside": shipment.options.preprocessing}
    return {
        "format": FORMAT,
        "class_names": json.dumps(shipment.class_names, ensure_ascii=False),
        "link": head.head.link,
        "preprocessing": json.dumps(made, ensure_ascii=False),
        "head": json.dumps(head.document(), ensure_ascii=False),
    }
