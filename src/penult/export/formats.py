"""The formats of `penult export`, by name."""

from __future__ import annotations

from penult.errors import InputError
from penult.export.head_format import check_head, write_head_alone
from penult.export.huggingface_format import (
    check_huggingface,
    require_huggingface,
    write_huggingface,
)
from penult.export.huggingface_network import require_architecture
from penult.export.onnx_format import check_onnx, write_onnx
from penult.export.shipment import ExportFormat
from penult.export.torch_format import check_torch, write_torch
from penult.export.weights_format import check_weights, require_place, write_weights

FORMATS: dict[str, ExportFormat] = {
    "onnx": ExportFormat(write_onnx, "the whole network for ONNX runtimes", check=check_onnx),
    "torch": ExportFormat(
        write_torch, "the whole network as a program of torch.export", check=check_torch
    ),
    "safetensors": ExportFormat(
        write_weights,
        "weights of the original architecture, the head dense with zeros",
        check=check_weights,
        fits=require_place,
    ),
    "hf": ExportFormat(
        write_huggingface,
        "a folder that transformers loads, with a model card",
        check=check_huggingface,
        fits=require_huggingface,
        takes=require_architecture,
    ),
    "head": ExportFormat(
        write_head_alone,
        "the head alone, with a page and a program of a few lines",
        whole=False,
        check=check_head,
    ),
}


def format_named(name: str) -> ExportFormat:
    """A format by its name.

    Raises:
        InputError: there is none.
    """
    if name not in FORMATS:
        raise InputError(f"--format: expected one of {', '.join(FORMATS)}, found {name!r}")
    return FORMATS[name]
