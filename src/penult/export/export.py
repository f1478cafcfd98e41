"""Export: a run's network or head written in a format, and proven equal to the network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from penult.errors import InputError
from penult.export.cost import timed
from penult.export.formats import format_named
from penult.export.proof import BATCH, FreshRun, compared, run_fresh
from penult.export.quantised import CALIBRATION
from penult.export.samples import ProofSamples, features_for_proof, samples_for_proof
from penult.export.shipment import ExportFormat, ExportOptions, Shipment, Written, open_network
from penult.export.shipped_head import ShippedHead
from penult.export.shipped_network import logits_in_batches
from penult.network.link import decided
from penult.progress import Begin, Progress
from penult.runs.outputs import check_output_folder
from penult.runs.reopen import Places
from penult.runs.run import Run
from penult.storage import read_json, write_folder, write_json

FORMAT = "penult-export/1"
NAME = "export.json"
MOST_IN_BATCH = 4096  # samples
RUNTIME_NAMES = {"onnx": "onnxruntime"}


@dataclass(frozen=True, eq=False)
class Export:
    """An export that was written and proven.

    Attributes:
        folder: of its files.
        document: what its `export.json` says.
    """

    folder: Path
    document: dict[str, Any]

    @classmethod
    def of(
        cls,
        run: Run,
        shipped: ShippedHead,
        folder: Path,
        options: ExportOptions,
        *,
        places: Places | None = None,
        overwrite: bool = False,
        begin: Begin | None = None,
    ) -> Export:
        """Write an export of a run, load it in a fresh process, and keep it if it is equal.

        Args:
            run: a finished run.
            shipped: the head, see `shipped_head`.
            folder: made by this; must not hold anything else.
            options: what the export is to be.
            places: where the run's network and samples are now.
            overwrite: replace an export that the folder holds.
            begin: called with the name of each stage.

        Raises:
            InputError: what is asked for cannot be had, see the formats.
            MismatchError: the export does not give the network's logits; nothing is kept.
        """
        begin = begin or _unheard
        format = format_named(options.format)
        _check(run, folder, options, format, overwrite)
        format.fits(shipped, run)
        begin("opening the network and the samples")
        shipment = _shipment(run, shipped, options, format, places or Places())
        format.takes(shipment)
        begin("the network's logits")
        reference = _reference(shipment)
        shipment = replace(shipment, logits=reference)
        document: dict[str, Any] = {}

        def fill(new: Path) -> None:
            begin("exporting")
            written = format.write(shipment, new)
            begin("comparing in a fresh process")
            document.update(_document(shipment, written, reference))
            for file in [file for file in new.iterdir() if file not in written.files]:
                file.unlink()
            write_json(new / NAME, document)

        with run.adding(folder):
            write_folder(folder, fill)
        return cls(folder, document)


def _unheard(name: str) -> Progress:
    return lambda done, total: None


def _check(
    run: Run, folder: Path, options: ExportOptions, format: ExportFormat, overwrite: bool
) -> None:
    """Refuse before any work what would fail after it."""
    format.check(options)
    if options.n_samples < 1:
        raise InputError(f"--samples: expected 1 or more, found {options.n_samples}")
    if options.batch_size is not None and not 1 <= options.batch_size <= MOST_IN_BATCH:
        raise InputError(
            f"--batch-size: expected 1 to {MOST_IN_BATCH:,}, found {options.batch_size}"
        )
    check_output_folder(folder, "the export", run)
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    if not (folder / NAME).is_file():
        raise InputError(f"{folder} holds something else: choose another folder (--out)")
    held = read_json(folder / NAME, FORMAT)
    if not overwrite:
        raise InputError(
            f"{folder} holds an export already ({held.get('what', {}).get('format')}): choose "
            "another folder (--out), or --overwrite to replace it"
        )
    known = {NAME, *held.get("files", {})}
    foreign = sorted(file.name for file in folder.iterdir() if file.name not in known)
    if foreign:
        raise InputError(
            f"{folder} holds {foreign[0]}, which no export wrote: choose another folder (--out)"
        )


def _shipment(
    run: Run, shipped: ShippedHead, options: ExportOptions, format: ExportFormat, places: Places
) -> Shipment:
    if not format.whole:
        return Shipment(run, shipped, features_for_proof(run, options.n_samples), options)
    network = open_network(run, shipped, places)
    samples = samples_for_proof(run, options.n_samples, places)
    if options.preprocessing:
        _require_pixels(samples)
    fitting = None
    if options.int8:
        fitting = samples_for_proof(run, CALIBRATION, places, "data")
    return Shipment(run, shipped, samples, options, network, fitting)


def _require_pixels(samples: ProofSamples) -> None:
    if samples.pixels is None:
        raise InputError(
            "--preprocessing is for images that penult scales and normalises, and these samples "
            "come ready for the network: export without it"
        )


def _reference(shipment: Shipment) -> torch.Tensor:
    if shipment.network is None:
        with torch.no_grad():
            return shipment.shipped.head(shipment.samples.features).float()
    with shipment.reference() as network:
        return logits_in_batches(network, shipment.inputs, shipment.options.batch_size or BATCH)


def _document(shipment: Shipment, written: Written, reference: torch.Tensor) -> dict[str, Any]:
    """What `export.json` says, once the export has been compared."""
    fresh = run_fresh(written.trial, written.inputs)
    samples, link = shipment.samples, shipment.shipped.head.link
    tolerance = shipment.tolerance if written.exact else None
    proof = compared(reference, fresh.logits, samples.labels, link, tolerance)
    run, options = shipment.run, shipment.options
    stored = shipment.shipped.head(samples.features)
    if shipment.network is None and shipment.shipped.origin.get("tuned") == "network":
        proof.pop("accuracy", None)
        written.notes.append(
            "No accuracy is given: the run holds features of the network before it was tuned."
        )
    if "accuracy" in proof:
        own = decided(run.train().require_head()(samples.features), link)
        proof["accuracy"]["own_head"] = float((own == samples.labels).float().mean())
    others, versions = {}, dict(fresh.versions)
    for trial in written.others:
        try:
            again = run_fresh(trial, written.inputs)
            about = compared(reference, again.logits, samples.labels, link, tolerance)
        except InputError as error:  # the runtime of the format gives the network's logits
            reason = str(error).removesuffix(": it is not kept")
            written.notes.append(f"Nothing is promised for {trial.runtime}: {reason}.")
            continue
        others[trial.runtime] = again
        versions |= again.versions
        proof[trial.runtime] = {"greatest_difference": about["greatest_difference"]}
    if shipment.shipped.tuned is None:
        proof["difference_from_run"] = float((stored - fresh.logits).abs().max())
    made_of = run.about.get("network", {})
    return {
        "format": FORMAT,
        "run": {
            "folder": str(run.folder),
            "network": made_of.get("spec"),
            "fingerprint": made_of.get("fingerprint"),
        },
        "what": {
            "format": options.format,
            "preprocessing_inside": options.preprocessing,
            "batch_size": options.batch_size,
            **written.document,
        },
        "head": shipment.shipped.document(),
        "class_names": shipment.class_names,
        "files": {file.name: _described(file) for file in written.files},
        "proof": {"part": samples.part, **proof, "versions": versions},
        "cost": _cost(written, fresh, others),
        "notes": written.notes,
        "versions": {"penult": version("penult"), "torch": torch.__version__},
    }


def _cost(written: Written, fresh: FreshRun, others: Mapping[str, FreshRun]) -> dict[str, Any]:
    """What the export costs, beside the network as it was; the head's share where it was timed."""
    runtime = RUNTIME_NAMES.get(written.trial.runtime, written.trial.runtime)
    seconds = {runtime: timed(fresh.seconds)}
    seconds |= {name: timed(run.seconds) for name, run in others.items()}
    form = written.document.get("head_form", {})
    for row in form.get("measured", ()):
        size = str(row["batch_size"])
        forms = {"after": row["forms"][form["form"]], "before": row["forms"]["dense"]}
        whole = seconds[runtime].get(size, {})
        for side in whole.keys() & forms.keys():
            whole[side]["head_share"] = forms[side]["median"] / whole[side]["median"]
    return {**written.cost, "seconds": seconds}


def _described(file: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while part := opened.read(1 << 20):
            digest.update(part)
    return {"bytes": file.stat().st_size, "sha256": digest.hexdigest()}
