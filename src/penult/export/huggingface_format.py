"""The format `hf`: a folder that `transformers` loads by itself, with a model card."""

from __future__ import annotations

from pathlib import Path

from penult.data.tokens import TokenTransform
from penult.data.transform import Transform
from penult.export.huggingface_network import loader_of, pretrained
from penult.export.huggingface_processor import (
    check_processor,
    save_processor,
    timm_settings,
)
from penult.export.model_card import model_card
from penult.export.proof import Trial
from penult.export.shipment import ExportOptions, Shipment, Written
from penult.export.shipped_head import ShippedHead
from penult.export.traced import quiet
from penult.export.weights_format import check_weights, put_head, require_place
from penult.extras import import_extra
from penult.runs.run import Run
from penult.storage import write_atomically


def check_huggingface(options: ExportOptions) -> None:
    """Refuse what the library cannot load, before any work."""
    check_weights(options)
    import_extra("transformers", "hf")


def require_huggingface(shipped: ShippedHead, run: Run) -> None:
    """Refuse a head that has no place in any network of the library.

    Raises:
        InputError: says which formats can.
    """
    if "network" not in run.about:
        return  # which is said for all formats of whole networks alike
    require_place(shipped, run)


def write_huggingface(shipment: Shipment, folder: Path) -> Written:
    """Write the folder.

    Raises:
        InputError: the head has no place in the architecture.
    """
    put_head(shipment)
    network = pretrained(shipment)
    transform, lacking = shipment.samples.transform, list[str]()
    is_timm = network.config.model_type == "timm_wrapper"
    if is_timm and isinstance(transform, Transform):
        network.config.pretrained_cfg.update(timm_settings(transform) or {})
    with quiet():
        network.save_pretrained(folder)
        if isinstance(transform, TokenTransform):
            transform.tokenizer.save_pretrained(folder)
    if isinstance(transform, Transform):
        if is_timm:
            lacking = check_processor(folder, transform)
        else:
            lacking = save_processor(transform, _own_name(shipment), folder)
    notes = [_not_prepared(lacking)] if lacking else []
    card = model_card(shipment, is_timm=is_timm, unprepared=bool(lacking))
    write_atomically(folder / "README.md", lambda place: place.write_text(card, encoding="utf-8"))
    loader = loader_of(shipment)
    more = {"loader": loader}
    trial = Trial("huggingface", [folder], shipment.options.batch_size, more=more)
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return Written(files, trial, shipment.inputs, {"loader": loader}, notes=notes)


def _own_name(shipment: Shipment) -> str | None:
    """The folder or the name by which transformers may know a processor of the network."""
    library, _, name = str(shipment.run.about["network"]["spec"]).partition(":")
    return name if library == "hf" else None


def _not_prepared(lacking: list[str]) -> str:
    return (
        "AutoImageProcessor does not prepare images as the run did, which no processor of "
        f"transformers does for this network ({', '.join(lacking)}): prepare them as the card says."
    )
