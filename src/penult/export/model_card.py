"""The model card: what was done to a network, and how well each class and group is told."""

from __future__ import annotations

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from penult.export.shipment import Shipment
from penult.intervals import accuracy_interval
from penult.network.link import SIGMOID, decided
from penult.runs.groups import evaluated_part, groups_of
from penult.text import in_markdown, percent


def model_card(shipment: Shipment) -> str:
    """The card in Markdown, with the front matter that model hubs read.

    Accuracies are those of the head on all stored features of the run's evaluation data.
    """
    shipped, run = shipment.shipped, shipment.run
    head, about = shipped.head, shipped.document()
    features = run.evaluation()
    right, labels = [], []
    for z, own in features.blocks():
        right.append(decided(head(z), head.link) == own)
        labels.append(own)
    part = "evaluation data" if run.has_evaluation else "analysed data"
    front = "---\nlibrary_name: transformers\ntags: [penult, sparse-head]\n---"
    lines = [
        front,
        "# A classifier with another head, made by penult",
        f"The network is `{run.about['network']['spec']}`. Its last layer was replaced: of "
        f"{head.n_features:,} features it reads {about['n_read']:,}, with {about['n_weights']:,} "
        f"weights that are not zero for {head.n_classes:,} classes. All other weights are "
        + ("tuned with it." if shipped.origin.get("tuned") == "network" else "as they were."),
        "## Accuracy",
        f"On {features.n_samples:,} samples, the run's {part}, with 95 % intervals:",
        "\n".join(_table(shipment, torch.cat(right), torch.cat(labels))),
    ]
    if "recipe" in shipped.origin:
        recipe = json.dumps(shipped.origin["recipe"], indent=2, ensure_ascii=False)
        lines += ["## The edits", f"```json\n{recipe}\n```"]
    return "\n\n".join(lines) + "\n"


def _table(shipment: Shipment, right: Tensor, labels: Tensor) -> Iterator[str]:
    yield "| of | samples | right |"
    yield "| --- | ---: | ---: |"
    yield _row("all", right.flatten())
    names = shipment.class_names
    for c, name in enumerate(names):
        if shipment.shipped.head.link == SIGMOID:
            yield _row(name, right[:, c])
        elif bool((labels == c).any()):
            yield _row(name, right[labels == c])
    groups = groups_of(shipment.run, evaluated_part(shipment.run))
    if groups is None or right.ndim > 1:
        return
    for attribute in groups.attributes.values():
        of = attribute.groups(labels)
        for group in sorted(set(of[of >= 0].tolist())):
            class_name, value = attribute.named(group, names)
            yield _row(f"{class_name}, {attribute.name} {value}", right[of == group])


def _row(name: str, right: Tensor) -> str:
    n, n_right = right.numel(), int(right.sum())
    low, high = accuracy_interval(n_right, n)
    shown = in_markdown(name)
    return f"| {shown} | {n:,} | {percent(n_right / n)} % ({percent(low)} to {percent(high)}) |"
