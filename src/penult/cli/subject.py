"""A network with its images, as the command line names them: opened, checked, head found."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from penult.cli import options as given
from penult.cli.console import warn
from penult.data.open import check_data, open_data
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.features.collect import usable_head
from penult.network.head import Head
from penult.network.load import load_model
from penult.runs.analyze import align_classes


@dataclass(frozen=True)
class Subject:
    """What is analysed or measured.

    Attributes:
        network: on its device.
        head: its final linear map.
        images: what is analysed.
        held_out: what accuracies are measured on, or None.
        transform: preprocessing of images.
        class_names: in the order of the logits.
        network_about: what a run says of the network.
        how: of the pass over the images.
    """

    network: nn.Module
    head: Head
    images: Any
    held_out: Any
    transform: Transform
    class_names: Sequence[str]
    network_about: dict[str, Any]
    how: Pass


def open_subject(
    model: str, data: str, eval_: str | None, options: Mapping[str, Any], where: torch.device
) -> Subject:
    """Load the network and open its data.

    Args:
        model: see `penult.network.load.load_model`.
        data: see `penult.data.open.open_data`.
        eval_: the same, for what accuracies are measured on.
        options: of the command, by their parameter's names: weights, set_, trust_checkpoint, head,
            labels, class_names, size, resize, interpolation, mean, std, batch_size, workers, dtype,
            store, strict.
        where: the device.

    Raises:
        InputError: any of them cannot be used.
    """
    how = Pass(
        options["batch_size"],
        given.workers_of(options["workers"], where),
        given.dtype_of(options["dtype"]),
        given.dtype_of(options["store"]),
        options["labels"],
        options["strict"],
    )
    names = options["class_names"]
    names = None if names is None else given.names_of(Path(names))
    settings = list(options["set_"] or [])
    # What a network or a library prints is no part of what is asked for.
    with redirect_stdout(sys.stderr):
        loaded = load_model(
            model,
            weights=options["weights"],
            options=given.pairs_of(settings),
            trust_checkpoint=options["trust_checkpoint"],
        )
        changes = (options[name] for name in ("size", "resize", "mean", "std", "interpolation"))
        transform = given.transform_of(loaded, *changes)
        images = open_data(data, labelled=how.given)
        held_out = open_data(eval_, labelled=how.given) if eval_ is not None else None
        for part in (images, held_out):
            if part is not None:
                check_data(part, transform)
        network = loaded.model.to(where)
        examples = ImageSource(images, transform, Pass(batch_size=4))
        head = usable_head(network, examples, options["head"])
        if not head.verified:
            warn(f"the logits are taken from {head.name}, whatever becomes of them later")
        aligned = align_classes(head, images, held_out, names, loaded.class_names)
    about = {"spec": model, "weights": options["weights"], "set": settings}
    about["fingerprint"] = loaded.fingerprint
    return Subject(network, head, images, held_out, transform, aligned, about, how)
