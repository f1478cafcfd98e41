"""The command that ships a network or a head: `penult export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from penult.cli import options as given
from penult.cli.console import progress_bars
from penult.cli.export_pages import export_page
from penult.cli.opened import open_run
from penult.cli.option_groups import MovedOptions
from penult.cli.output import print_json
from penult.cli.pages import print_page
from penult.cli.spread import option, spread
from penult.errors import InputError
from penult.export.export import MOST_IN_BATCH, Export
from penult.export.formats import FORMATS
from penult.export.head_forms import EXPLAINED
from penult.export.onnx_graph import OPSET
from penult.export.shipment import ExportOptions
from penult.export.shipped_head import TUNED, shipped_head

ShippedK = Annotated[int | None, option("Features per class of the sparse head.", "-k")]
ShippedSelect = Annotated[str | None, option("How that head's features were chosen.")]
ShippedRecipe = Annotated[
    Path | None, option("Edits of that head, or of the dense head where no -k is given.")
]
ShippedFile = Annotated[Path | None, option("A head file to ship instead.", "--head")]
ShippedTuned = Annotated[
    str | None,
    option(
        "What `penult tune` made of the sparse head: with the network, or the head alone.",
        choices=TUNED,
    ),
]
FormatName = Annotated[str, option("What is written.", "--format", choices=tuple(FORMATS))]
ShippedOut = Annotated[
    Path, option("Folder for the export; RUN/exported/NAME lies in the run.", "--out")
]
Preprocessing = Annotated[
    bool,
    option(
        "Put scaling and normalising into the network: it then takes the pixels of images that "
        "are resized and cropped already.",
        "--preprocessing",
    ),
]
Opset = Annotated[int | None, option(f"Version of ONNX's operations; {OPSET} by default.")]
DropUnread = Annotated[
    bool,
    option("Take out what makes only features that no class reads.", "--drop-unread"),
]
Int8 = Annotated[
    bool,
    option("Weights and activations of 8 bits (ONNX); the accuracy is measured.", "--int8"),
]
NoCost = Annotated[
    bool, option("Leave out what it costs beside the network as it was.", "--no-cost")
]
FixedBatch = Annotated[
    int | None, option("The only batch size that the export takes; by default it takes any.")
]
Form = Annotated[
    str | None,
    option(
        "How the head is computed; by default the fastest is measured.", choices=tuple(EXPLAINED)
    ),
]
Samples = Annotated[int, option("Samples of the run on which the export is compared.")]
Timed = Annotated[str, option("Batch sizes that are timed.", "--timed")]
ReplaceExport = Annotated[bool, option("Replace the export that --out holds.", "--overwrite")]


@spread
def export(
    run: given.RunFolder,
    *,
    format: FormatName,
    out: ShippedOut,
    k: ShippedK = None,
    select: ShippedSelect = None,
    recipe: ShippedRecipe = None,
    head: ShippedFile = None,
    tuned: ShippedTuned = None,
    preprocessing: Preprocessing = False,
    opset: Opset = None,
    batch_size: FixedBatch = None,
    form: Form = None,
    drop_unread: DropUnread = False,
    int8: Int8 = False,
    no_cost: NoCost = False,
    samples: Samples = 256,
    timed: Timed = "1,8,32",
    overwrite: ReplaceExport = False,
    as_json: given.AsJson = False,
    moved: MovedOptions,
) -> None:
    """Write the network, or the head alone, for programs without penult, and prove it equal."""
    opened = open_run(run)
    if opset is not None and format != "onnx":
        raise InputError(f"--opset is for --format onnx, found --format {format}: leave it out")
    options = ExportOptions(
        format,
        preprocessing=preprocessing,
        opset=OPSET if opset is None else opset,
        batch_size=batch_size,
        form=form,
        n_samples=samples,
        timed=_sizes(timed, batch_size),
        drop_unread=drop_unread,
        int8=int8,
        cost=not no_cost,
    )
    shipped = shipped_head(opened, k=k, select=select, recipe=recipe, file=head, tuned=tuned)
    with progress_bars("opening the run") as heard:
        made = Export.of(
            opened,
            shipped,
            out,
            options,
            places=moved.sources(),
            overwrite=overwrite,
            begin=heard,
        )
    if as_json:
        print_json(made.document)
        return
    print_page(export_page(made.document))
    print(f"\nExport: {out}")


def _sizes(text: str, fixed: int | None) -> tuple[int, ...]:
    """The batch sizes of `--timed 1,8,32`."""
    if fixed is not None:
        return (fixed,)
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and 0 < int(part[:9]) <= MOST_IN_BATCH for part in parts):
        raise InputError(
            f"--timed: expected numbers from 1 to {MOST_IN_BATCH:,} like 1,8,32, found {text!r:.80}"
        )
    return tuple(dict.fromkeys(map(int, parts)))
