"""The model card: what was done to a network, how to load it, and how well each class is told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from penult.data.transform import Transform
from penult.edit.edit import parse_edit
from penult.export.head_page import preparation, short_name
from penult.export.huggingface_network import TEXTS, loader_of
from penult.export.shipment import Shipment
from penult.features.groups import Groups
from penult.heads.comparison import Comparison, PairedCounts, compare_heads
from penult.intervals import accuracy_interval
from penult.network.link import SIGMOID, decided
from penult.runs.groups import evaluated_part, groups_of
from penult.text import as_code, code_block, in_markdown, number_of, percent

CLASSES_SHOWN = 30  # more are folded away
CHANGED_SHOWN = 10
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
    found, groups = _compared(shipment)
    parts = [
        _front(shipment, is_timm),
        f"# {_title(shipment)}",
        _what_was_done(shipment),
        "## Use",
        *_use(shipment, is_timm, unprepared),
        "## Accuracy",
        _overall(shipment, found.overall),
        *_by_class(shipment, found),
        *_by_group(shipment, found, groups),
        *_edits(shipment),
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


def _compared(shipment: Shipment) -> tuple[Comparison, Groups | None]:
    """Decisions of the network as it was and as it is now, and the groups of these samples."""
    run, shipped, samples = shipment.run, shipment.shipped, shipment.samples
    dense, features = run.train().require_head(), run.evaluation()
    if shipped.origin.get("tuned") != "network":
        groups = groups_of(run, evaluated_part(run))
        return compare_heads(dense, [shipped.head], features)[0], groups
    # The stored features are not those of the tuned network.
    assert shipment.logits is not None
    before = decided(dense(samples.features), dense.link)
    after = decided(shipment.logits, dense.link)
    return Comparison(samples.labels, before, after, dense.n_classes), None


def _overall(shipment: Shipment, counts: PairedCounts) -> str:
    run, about = shipment.run, counts.document()
    part = "evaluation data" if run.has_evaluation else "analysed data"
    if shipment.shipped.origin.get("tuned") == "network":
        part += ", spread evenly over them"
    whose = (
        "the labels are the classes that the network itself gave, so that being right means to "
        "agree with it; "
        if run.own_labels
        else ""
    )
    decisions = f", {counts.n_decisions:,} decisions yes or no" if counts.per_sample > 1 else ""
    low, high = (100 * value for value in counts.interval)
    rows = "\n".join(
        f"| {name} | {percent(about[key])} % | {_range(about[f'{key}_interval'])} |"
        for name, key in (("the network as it was", "before"), ("this one", "after"))
    )
    return (
        f"On {counts.n_samples:,} samples of the run's {part}{decisions} ({whose}all intervals are "
        f"of 95 % confidence):\n\n| | right | interval |\n| --- | ---: | ---: |\n{rows}\n\n"
        f"{number_of(counts.lost, 'decisions')} that {'was' if counts.lost == 1 else 'were'} right "
        f"became wrong, {counts.won:,} that {'was' if counts.won == 1 else 'were'} wrong became "
        f"right: the change is {-high:+z.2f} to {-low:+z.2f} points."
    )


def _by_class(shipment: Shipment, found: Comparison) -> Iterator[str]:
    names = shipment.class_names
    rows = [
        (in_markdown(name), counts)
        for name, counts in zip(names, found.by_class(), strict=True)
        if counts.n_samples
    ]
    yield "### By class"
    if len(rows) <= CLASSES_SHOWN:
        yield _table(rows)
        return
    changed = sorted(rows, key=lambda row: -abs(row[1].lost - row[1].won))[:CHANGED_SHOWN]
    changed = [row for row in changed if row[1].lost != row[1].won]
    if changed:
        yield "The classes that change most:"
        yield _table(changed)
    yield f"<details><summary>All {len(rows):,} classes with samples</summary>"
    yield _table(rows)
    yield "</details>"


def _by_group(shipment: Shipment, found: Comparison, groups: Groups | None) -> Iterator[str]:
    if groups is None or found.labels.ndim > 1:
        return
    for attribute in groups.attributes.values():
        of = attribute.groups(found.labels)
        rows = []
        for group in sorted(set(of[of >= 0].tolist())):
            name, value = attribute.named(group, shipment.class_names)
            words = f"{in_markdown(name)}, {in_markdown(value)}"
            rows.append((words, _counts(found, of == group)))
        if rows:
            yield f"### By class and {in_markdown(attribute.name)}"
            yield _table(rows)


def _counts(found: Comparison, of: Tensor) -> PairedCounts:
    return PairedCounts.of(found.labels[of], found.before[of], found.after[of])


def _table(rows: list[tuple[str, PairedCounts]]) -> str:
    lines = [
        "| | samples | as it was | this one | interval |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for name, counts in rows:
        interval = accuracy_interval(counts.n_after, counts.n_samples)
        before, after = (
            f"{percent(n / counts.n_samples)} %" for n in (counts.n_before, counts.n_after)
        )
        n = f"{counts.n_samples:,}"
        lines.append(f"| {name} | {n} | {before} | {after} | {_range(interval)} |")
    return "\n".join(lines)


def _range(interval: Any) -> str:
    low, high = interval
    return f"{percent(low)} to {percent(high)} %"


def _edits(shipment: Shipment) -> Iterator[str]:
    recipe = shipment.shipped.origin.get("recipe")
    if recipe is None:
        return
    yield "## The edits"
    if recipe.get("note"):
        yield in_markdown(recipe["note"], 1000)
    lines = []
    for number, edit in enumerate(recipe["edits"], 1):
        why = f": {in_markdown(edit['reason'], 1000)}" if edit.get("reason") else ""
        lines.append(f"{number}. {in_markdown(parse_edit(edit, 'edit').described())}{why}")
    yield "\n".join(lines) or "None."
    yield "<details><summary>The same as a file for <code>penult edit --recipe</code></summary>"
    yield code_block(json.dumps(recipe, indent=2, ensure_ascii=False), "json")
    yield "</details>"


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
