"""A network with its images, as the command line names them: opened, checked, head found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from penult.cli.console import progress_bars, tell, warn
from penult.cli.option_groups import ImageOptions, NetworkOptions, PassOptions
from penult.cli.values import device_of
from penult.data.chosen_classes import ClassImages, chosen_classes
from penult.data.classes import align_classes
from penult.data.dataset import CHANGES
from penult.data.multi_hot_images import alike
from penult.data.open import check_data, open_data
from penult.data.source import ImageSource, Pass
from penult.data.tokens import Preparation, TokenTransform
from penult.errors import InputError
from penult.features.collect import usable_network
from penult.network.head import Head
from penult.network.inputs import fitted_transform
from penult.network.link import SIGMOID
from penult.network.text_inputs import fitted_tokens


@dataclass(frozen=True)
class Subject:
    """What is analysed or measured.

    Attributes:
        network: on its device.
        head: its final linear map.
        images: what is analysed.
        held_out: what accuracies are measured on, or None.
        also: what heads are fitted to as well, or None.
        transform: preprocessing of images, or of texts.
        class_names: in the order of the logits.
        network_about: what a run says of the network.
        how: of the pass over the images.
    """

    network: nn.Module
    head: Head
    images: Any
    held_out: Any
    also: Any
    transform: Preparation
    class_names: Sequence[str]
    network_about: dict[str, Any]
    how: Pass

    def part(self, name: str) -> tuple[Any, Pass]:
        """The images of "train", "eval" or "also", or None, and how they are read."""
        images = {"train": self.images, "eval": self.held_out, "also": self.also}[name]
        return images, replace(self.how, labels="predicted") if name == "also" else self.how


def open_subject(
    model: str,
    data: str,
    eval_: str | None,
    network: NetworkOptions,
    images: ImageOptions,
    passing: PassOptions,
    also: str | None = None,
) -> Subject:
    """Load the network and open its data.

    Args:
        model: see `penult.network.load.load_model`.
        data: see `penult.data.open.open_data`.
        eval_: the same, for what accuracies are measured on.
        network, images, passing: what the command was told of them.
        also: see `open_data`, for images whose labels are not read.

    Raises:
        InputError: any of them cannot be used.
    """
    where = device_of(passing.device)
    how = passing.how(where, images)
    names = images.names()
    # What a network or a library prints is no part of what is asked for.
    with progress_bars("opening the network and the images"):
        loaded = network.load(model)
        transform = images.transform(loaded)
        texts = isinstance(transform, TokenTransform)
        read = images.reading(data, texts)
        opened = open_data(data, labelled=how.given, options=read)
        held_out = None
        if eval_ is not None:
            held_out = open_data(eval_, labelled=how.given, options=images.reading(eval_, texts))
        opened, held_out = alike(opened, held_out)
        more = None
        if also is not None:
            more = open_data(also, labelled=False, options=images.reading(also, texts))
        for name, part in ((data, opened), (eval_, held_out), (also, more)):
            if part is not None:
                for note in part.notes:
                    (warn if note == CHANGES else tell)(f"{name}: {note}")
                check_data(part, transform)
        on_device = loaded.model.to(where)
        if isinstance(transform, TokenTransform):
            transform, alone = fitted_tokens(on_device, opened, transform)
        else:
            fixed = images.mean is not None
            transform, alone = fitted_transform(on_device, opened, transform, fixed=fixed)
        if alone:
            how = replace(how, batch_size=1)
        examples = ImageSource(opened, transform, Pass(batch_size=1 if alone else 4))
        classes = (names and names.names) or opened.class_names or ()
        found = usable_network(on_device, examples, network.head, len(classes) or None)
        if found.said:
            warn(found.said)
        head = found.head
        if texts and head.reduce not in ("none", "mean", "position:0"):
            raise InputError(
                f"{model} takes its logits from the last token of a text, whose place changes from "
                "text to text: expected a network that reads the first token or their mean"
            )
        if not head.verified:
            warn(f"the logits are taken from {head.name}, whatever becomes of them later")
        if opened.multi_label or (read.multi_label and not how.given):
            head = replace(head, link=SIGMOID)
        places = align_classes(head.n_classes, opened, held_out, names, loaded.class_names)
        aligned = places.names
        if images.classes is not None:
            kept = chosen_classes(images.classes, places, opened, held_out)
            opened = ClassImages(opened, kept, aligned)
            held_out = held_out and ClassImages(held_out, kept, aligned)
            head, aligned = head.restricted(kept), tuple(aligned[i] for i in kept)
    about = network.about(model) | {"fingerprint": loaded.fingerprint}
    if found.reading is not None:
        about["reading"] = found.reading.to_json()
    return Subject(found.network, head, opened, held_out, more, transform, aligned, about, how)
