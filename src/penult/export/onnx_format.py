"""The format `onnx`: the whole network for onnxruntime and whatever else reads ONNX."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from penult.data.transform import Transform
from penult.export.choose_form import check_form
from penult.export.onnx_graph import check_opset, describe, onnx_of, require_onnx, save
from penult.export.programs import before_file, traced_network
from penult.export.proof import Trial
from penult.export.quantised import quantised
from penult.export.shipment import ExportOptions, Shipment, Written
from penult.network.onnx_file import FORMAT

NAME = "network.onnx"


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
    traced = traced_network(shipment, "onnxruntime")
    model = onnx_of(traced.program, list(inputs), options.opset)
    if options.int8:
        model = quantised(model, shipment, folder)
    describe(model, notes_of(shipment))
    files, before = save(model, folder / NAME), []
    cost: dict[str, Any] = traced.counted(shipment)
    if traced.before is not None:
        whole = onnx_of(traced.before, list(inputs), options.opset)
        before = save(whole, before_file(folder, NAME))
        cost["before"]["bytes"] = sum(file.stat().st_size for file in before)
        cost["after"]["bytes"] = sum(file.stat().st_size for file in files)
    trial = Trial("onnx", files[:1], options.batch_size, options.timed, before[:1])
    others = []
    if find_spec("openvino") is not None:
        others = [Trial("openvino", files[:1], options.batch_size, options.timed, before[:1])]
    document = {"opset": options.opset, **traced.document, **signature_of(shipment)}
    if options.int8:
        document["int8"] = True
    exact = not options.int8
    return Written(files, trial, inputs, document, exact, traced.notes, cost, others)


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
