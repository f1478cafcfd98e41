"""The page `head.md`: what a head that is shipped alone reads, gives and expects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from penult.data.transform import Transform
from penult.export.judged import accuracy_parts, compared_heads, edit_parts
from penult.export.shipment import Shipment
from penult.export.shipped_head import ShippedHead
from penult.network.libraries import LIBRARIES
from penult.network.link import SIGMOID
from penult.runs.run import Run
from penult.text import as_code, in_markdown

CLASSES_SHOWN = 50


def head_page(shipment: Shipment) -> str:
    """The page in Markdown."""
    shipped, class_names, run = shipment.shipped, shipment.class_names, shipment.run
    head, read = shipped.head, shipped.read()
    means = (
        "A class is given where its logit is above 0; its probability is the sigmoid of the logit."
        if head.link == SIGMOID
        else "The class of the largest logit is meant; the probabilities are their softmax."
    )
    parts = [
        "# A head made by penult",
        f"It turns features into logits of {head.n_classes:,} classes. A sample has "
        f"{head.n_features:,} features, of which the head reads {len(read):,}. {means}",
        "```python\n"
        "from head import load_head  # needs NumPy alone; takes arrays, and tensors of torch\n\n"
        'logits = load_head("head.safetensors")\n'
        f"logits(features)  # (n_samples, {head.n_features}) → (n_samples, {head.n_classes})\n"
        "```",
        "## The features",
        _features(run, shipped),
        *_accuracy(shipment),
        *edit_parts(shipment),
        "## The file",
        _file(shipped),
        "## The classes",
        _classes(shipped, class_names),
    ]
    return "\n\n".join(parts) + "\n"


def _accuracy(shipment: Shipment) -> Iterator[str]:
    if shipment.shipped.origin.get("tuned") == "network":
        return  # the run holds features of the network before it was tuned
    yield "## Accuracy"
    yield from accuracy_parts(shipment, *compared_heads(shipment))


def _features(run: Run, shipped: ShippedHead) -> str:
    if "network" not in run.about:
        return "They come from a features file; the network that made them is not known to penult."
    said = [
        f"They are what the layer {as_code(shipped.head.name)} of the network "
        f"{as_code(short_name(run))} reads ({_positions(shipped.head.reduce)})."
    ]
    if shipped.origin.get("tuned") == "network":
        said.append("The network was trained together with this head: it needs the tuned weights.")
    about = run.about.get("transform", {})
    if "kind" not in about:
        said.append(f"Images are prepared so: {preparation(Transform.from_json(about))}.")
    return " ".join(said)


def short_name(run: Run) -> str:
    """What a run calls its network, without the folders of this computer that lead to it."""
    spec = str(run.about["network"]["spec"])
    library, colon, name = spec.partition(":")
    if library in LIBRARIES:
        return f"{library}{colon}{Path(name).name or name}" if Path(name).is_absolute() else spec
    return f"{Path(library).name}{colon}{name}"


def preparation(transform: Transform) -> str:
    """How images become what a network takes, in words."""
    steps = [f"decode as {'grey' if transform.channels == 1 else 'RGB'}"]
    if transform.upright:
        steps.append("turn as the EXIF orientation says")
    resize, crop = transform.resize, transform.crop
    if isinstance(resize, int):
        steps.append(f"resize the shorter side to {resize} pixels ({transform.interpolation})")
    elif resize is not None:
        steps.append(f"resize to {resize[1]} × {resize[0]} pixels ({transform.interpolation})")
    height, width = (crop, crop) if isinstance(crop, int) else crop or (0, 0)
    if crop is not None and (height, width) != resize:
        steps.append(f"crop {width} × {height} pixels from the centre")
    if transform.bgr:
        steps.append("put the channels in the order blue, green, red")
    mean, std = (
        ", ".join(f"{value:.6g}" for value in values) for values in (transform.mean, transform.std)
    )
    if transform.scale != 1:
        unit = abs(transform.scale * 255 - 1) < 1e-9
        steps.append(
            f"multiply the 8-bit values by {'1/255' if unit else f'{transform.scale:.6g}'}"
        )
    if set(transform.mean) != {0.0} or set(transform.std) != {1.0}:
        steps.append(f"subtract {mean} and divide by {std} (by channel)")
    return ", ".join(steps)


def _positions(reduce: str) -> str:
    kind, _, place = reduce.partition(":")
    if kind == "position":
        return f"at position {place}"
    return "averaged over its positions" if kind == "mean" else "one vector for each sample"


def _file(shipped: ShippedHead) -> str:
    begin = (
        "`head.safetensors` is a [safetensors](https://github.com/huggingface/safetensors) file: 8 "
        "bytes with the length of a JSON header (little-endian), the header with the names, types, "
        "shapes and places of the tensors, then their bytes. "
    )
    if shipped.document()["n_bounds"]:
        return begin + (
            "Its format is `penult-bounded-head/1`: logits = weight · z + bias − scales · max(0, "
            "directions · z − bounds)."
        )
    if shipped.sparse is None:
        return begin + "Its format is `penult-dense/1`: logits = weight · z + bias."
    return begin + (
        "Its format is `penult-head/1`: class c reads the features `indices[indptr[c]:indptr[c + "
        "1]]` with the weights `values[indptr[c]:indptr[c + 1]]`; its logit is their weighted sum "
        "plus `bias[c]`."
    )


def _classes(shipped: ShippedHead, class_names: Sequence[str]) -> str:
    lines = ["| class | features that it reads |", "| --- | --- |"]
    for name, row in list(zip(class_names, shipped.head.weight, strict=True))[:CLASSES_SHOWN]:
        kept = row.abs().argsort(descending=True)[: int((row != 0).sum())][:20].tolist()
        more = " …" if int((row != 0).sum()) > len(kept) else ""
        lines.append(f"| {in_markdown(name)} | {' '.join(map(str, kept))}{more} |")
    if len(class_names) > CLASSES_SHOWN:
        lines.append(f"\nand {len(class_names) - CLASSES_SHOWN:,} more, named in the file.")
    return "\n".join(lines)
