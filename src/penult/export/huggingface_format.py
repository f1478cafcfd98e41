"""The format `hf`: a folder that `transformers` loads by itself, with a model card."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from penult.data.tokens import TokenTransform
from penult.errors import InputError
from penult.export.model_card import model_card
from penult.export.proof import Trial
from penult.export.shipment import ExportOptions, Shipment, Written
from penult.export.shipped_head import ShippedHead
from penult.export.traced import quiet
from penult.export.weights_format import check_weights, put_head, require_place
from penult.extras import import_extra
from penult.runs.run import Run
from penult.storage import write_atomically

LOADERS = ("AutoModelForImageClassification", "AutoModelForSequenceClassification")


def check_huggingface(options: ExportOptions) -> None:
    """Refuse what the library cannot load, before any work."""
    check_weights(options)
    import_extra("transformers", "hf")


def require_huggingface(shipped: ShippedHead, run: Run) -> None:
    """Refuse a network that is none of the library's, or a head that has no place in it.

    Raises:
        InputError: says which formats can.
    """
    if "network" not in run.about:
        return  # which is said for all formats of whole networks alike
    spec = str(run.about["network"].get("spec", ""))
    if not spec.startswith("hf:"):
        raise InputError(
            f"--format hf is for networks of transformers (hf:NAME), and this one is "
            f"{spec or 'not known'}: transformers has no architecture to load it into; export with "
            "--format onnx, torch or safetensors"
        )
    if shipped.head.kept is not None:
        raise InputError(
            "--format hf writes all classes of the network, and the run keeps only some: export "
            "with --format onnx, torch or head"
        )
    require_place(shipped, run)


def write_huggingface(shipment: Shipment, folder: Path) -> Written:
    """Write the folder.

    Raises:
        InputError: the head has no place in the architecture.
    """
    put_head(shipment)
    network: Any = shipment.network
    transform, spec = shipment.samples.transform, str(shipment.run.about["network"]["spec"])
    with quiet():
        network.save_pretrained(folder)
        if isinstance(transform, TokenTransform):
            transform.tokenizer.save_pretrained(folder)
        else:
            _save_processor(spec.removeprefix("hf:"), folder)
    card = model_card(shipment)
    write_atomically(folder / "README.md", lambda place: place.write_text(card, encoding="utf-8"))
    loader = LOADERS[isinstance(transform, TokenTransform)]
    trial = Trial("huggingface", [folder], shipment.options.batch_size, more={"loader": loader})
    return Written(sorted(_files(folder)), trial, shipment.inputs, {"loader": loader})


def _save_processor(name: str, folder: Path) -> None:
    """The image processor that lies with the network, where there is one."""
    transformers = import_extra("transformers", "hf")
    with suppress(OSError, ValueError):
        found = transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
        found.save_pretrained(folder)


def _files(folder: Path) -> Iterator[Path]:
    return (file for file in folder.iterdir() if file.is_file())
