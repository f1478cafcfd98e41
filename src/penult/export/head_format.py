"""The format `head`: the head file, a page about it, and a short program that runs it."""

from __future__ import annotations

from pathlib import Path

from penult.errors import InputError
from penult.export.head_page import head_page
from penult.export.proof import Trial
from penult.export.shipment import ExportOptions, Shipment, Written
from penult.export.weights_format import check_weights
from penult.features.shards import save_dense
from penult.heads.bounded_head import BoundedHead
from penult.storage import write_atomically

NAME = "head.safetensors"
PROGRAM = Path(__file__).with_name("stand_alone_head.py")


def check_head(options: ExportOptions) -> None:
    """Refuse what only a network can have."""
    check_weights(options)
    if options.batch_size is not None:
        raise InputError(
            f"--batch-size {options.batch_size}: a head alone takes any batch: leave it out"
        )


def write_head_alone(shipment: Shipment, folder: Path) -> Written:
    """Write `head.safetensors`, `head.md` and `head.py`."""
    shipped, names = shipment.shipped, shipment.class_names
    path, program, page = folder / NAME, folder / "head.py", folder / "head.md"
    if isinstance(shipped.head, BoundedHead):
        shipped.head.save(path, names)
    elif shipped.sparse is not None:
        shipped.sparse.save(path, names)
    else:
        save_dense(path, shipped.head)
    text = PROGRAM.read_text(encoding="utf-8").replace("  # type: ignore[no-untyped-def]", "")
    write_atomically(program, lambda place: place.write_text(text, encoding="utf-8"))
    about = head_page(shipment)
    write_atomically(page, lambda place: place.write_text(about, encoding="utf-8"))
    trial = Trial("head", [program, path])
    return Written([path, page, program], trial, {"features": shipment.samples.features})
