"""The model card: what was done to a network, how to load it, and how well each class is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from penult.data.transform import Transform
from penult.export.head_page import preparation, short_name
from penult.export.huggingface_network import TEXTS, loader_of
from penult.export.judged import accuracy_parts, compared_heads, edit_parts
from penult.export.shipment import Shipment
from penult.features.groups import Groups
from penult.heads.comparison import Comparison
from penult.network.link import SIGMOID
from penult.text import as_code, code_block, in_markdown, number_of

FEW = 30  # samples of a class, below which its accuracy says little


def model_card(shipment: Shipment, *, is_timm: bool = False, unprepared: bool = False) -> str:
    """The card in Markdown, with the front matter that model hubs read.

    Accuracies are those of the head on all stored features of the run's evaluation data, beside
    those of the network as it was; of a tuned network, on the samples of the proof.

    Args:
        shipment: with its logits.
        is_timm: whether transformers' wrapper for timm holds the network.
        unprepared: whether no processor of transformers prepares images as the run did.
    """
    found, groups = compared_heads(shipment)
    parts = [
        _front(shipment, is_timm),
        f"# {_title(shipment)}",
        _what_was_done(shipment),
        "## Use",
        *_use(shipment, is_timm, unprepared),
        "## Accuracy",
        *accuracy_parts(shipment, found, groups),
        *edit_parts(shipment),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(shipment, found, groups)),
        "## How it was checked",
        "penult loaded this folder in a process without penult and compared its logits with those "
        "of the network that it was made from. The greatest difference, the versions of what ran "
        "and the SHA-256 of every file are in `export.json`.",
    ]
    return "\n\n".join(parts) + "\n"


def _front(shipment: Shipment, is_timm: bool) -> str:
    task = "text" if loader_of(shipment) == TEXTS else "image"
    tags = ["penult", *(["sparse-head"] if shipment.shipped.sparse else [])]
    tags += ["timm"] if is_timm else []
    listed = "\n".join(f"- {tag}" for tag in tags)
    return (
        f"---\nlibrary_name: transformers\npipeline_tag: {task}-classification\n"
        f"tags:\n{listed}\n---"
    )


def _title(shipment: Shipment) -> str:
    name = in_markdown(short_name(shipment.run))
    origin = shipment.shipped.origin
    edited = " and edited" if "recipe" in origin else ""
    if "k" in origin:
        return f"{name}, with {number_of(int(origin['k']), 'features')} for each class{edited}"
    return f"{name}, with {'an edited' if edited else 'another'} last layer"


def _what_was_done(shipment: Shipment) -> str:
    shipped, head = shipment.shipped, shipment.shipped.head
    per_class = (head.weight != 0).sum(1)
    least, most = int(per_class.min()), int(per_class.max())
    each = f"{most:,}" if least == most else f"{least:,} to {most:,}"
    weights = shipment.run.about["network"].get("weights")
    loaded = f" (weights: {as_code(Path(str(weights)).name)})" if weights else ""
    said = [
        f"This is the network {as_code(short_name(shipment.run))}{loaded} with another last layer, "
        f"made by penult. It tells {head.n_classes:,} classes apart by {head.n_features:,} "
        "features, the numbers that the last layer reads.",
        f"Each class now reads {each} of them, all classes together {len(shipped.read()):,}; every "
        "other weight of the last layer is zero.",
    ]
    if shipped.origin.get("tuned") == "network":
        said.append("The rest of the network was trained further together with this layer.")
    else:
        said.append("All other weights of the network are as they were.")
    if head.kept is not None:
        said.append(
            f"The network had {head.n_outputs or head.layer_classes:,} outputs; those of the other "
            "classes were left out."
        )
    return " ".join(said)


def _use(shipment: Shipment, is_timm: bool, unprepared: bool) -> Iterator[str]:
    packages = "transformers torch" + (" timm torchvision" if is_timm else " pillow")
    loader, folder = loader_of(shipment), '"path/to/this/folder"'
    end = (
        "print([names[i] for i in (logits[0] > 0).nonzero()[:, 0].tolist()])"
        if shipment.shipped.head.link == SIGMOID
        else "print(names[int(logits.argmax())])"
    )
    if loader == TEXTS:
        yield "`pip install transformers torch`"
        prepare = "AutoTokenizer"
        given = f'{prepare}.from_pretrained(folder)("a text", return_tensors="pt")'
        begin = picture = ""
    else:
        yield f"`pip install {packages}`"
        prepare = "AutoImageProcessor"
        begin = "from PIL import Image\n"
        image = 'Image.open("image.jpg").convert("RGB")'
        picture = f"image = {image}\n"
        given = f'{prepare}.from_pretrained(folder)(image, return_tensors="pt")'
    if unprepared:
        prepare = begin = picture = ""
        given = '{"pixel_values": images}  # prepared as is said below'
    imports = ", ".join(sorted(name for name in (prepare, loader) if name))
    yield code_block(
        f"{begin}import torch\nfrom transformers import {imports}\n\n"
        f"folder = {folder}\n"
        f"network = {loader}.from_pretrained(folder).eval()\n"
        f"{picture}inputs = {given}\n"
        "with torch.no_grad():\n"
        "    logits = network(**inputs).logits\n"
        f"names = network.config.id2label\n{end}",
        "python",
    )
    transform = shipment.samples.transform
    if isinstance(transform, Transform):
        yield f"Images are prepared so: {preparation(transform)}." + (
            " **No processor of transformers does all of this, so that `AutoImageProcessor` gives "
            "other numbers: do it in your own code.**"
            if unprepared
            else " `AutoImageProcessor` does it."
        )
    if shipment.shipped.head.link == SIGMOID:
        yield "Each class is decided by itself: it is given where its logit is above 0."


def _limits(shipment: Shipment, found: Comparison, groups: Groups | None) -> Iterator[str]:
    run = shipment.run
    yield (
        "The numbers hold for data like those that were measured. Whatever the network was before, "
        "it still is: its other weights, what it was trained on and the terms of its licence."
    )
    if not run.has_evaluation:
        yield (
            "They were measured on the data that the features were chosen by, which the network "
            "may have been trained on: expect less on new data."
        )
    counts = [one.n_samples for one in found.by_class()]
    few = sum(n < FEW for n in counts)
    if few:
        yield (
            f"{number_of(few, 'classes')} of {len(counts):,} {'has' if few == 1 else 'have'} fewer "
            f"than {FEW} samples: their intervals are wide, and say little of a single class."
        )
    if groups is None:
        yield (
            "Nothing was measured for groups of samples (such as hospitals, or light and dark "
            "images): a class can be right in one and wrong in another."
        )
    yield "The last layer is stored dense, with zeros: it takes as much room and time as before."
