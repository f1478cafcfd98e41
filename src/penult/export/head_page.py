"""The page `head.md`: what a head that is shipped alone reads, gives and expects."""

from __future__ import annotations

from collections.abc import Sequence

from penult.data.transform import Transform
from penult.export.shipped_head import ShippedHead
from penult.network.link import SIGMOID
from penult.runs.run import Run
from penult.text import in_markdown

CLASSES_SHOWN = 50


def head_page(shipped: ShippedHead, class_names: Sequence[str], run: Run) -> str:
    """The page in Markdown."""
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
        "## The file",
        _file(shipped),
        "## The classes",
        _classes(shipped, class_names),
    ]
    return "\n\n".join(parts) + "\n"


def _features(run: Run, shipped: ShippedHead) -> str:
    if "network" not in run.about:
        return "They come from a features file; the network that made them is not known to penult."
    spec = run.about["network"]["spec"]
    said = [
        f"They are what the layer `{shipped.head.name}` of the network `{spec}` reads "
        f"({_positions(shipped.head.reduce)})."
    ]
    if shipped.origin.get("tuned") == "network":
        said.append("The network was trained together with this head: it needs the tuned weights.")
    about = run.about.get("transform", {})
    if "kind" not in about:
        transform = Transform.from_json(about)
        said.append(
            f"Images are prepared so: resize {transform.resize}, centre crop {transform.crop}, "
            f"values times {transform.scale:.6g}, minus {list(transform.mean)}, divided by "
            f"{list(transform.std)}, channels {'BGR' if transform.bgr else transform.mode}."
        )
    return " ".join(said)


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
