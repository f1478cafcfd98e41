"""Groups of a report: for whom the network is right, and for whom its sparse head is."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from penult.edit.desk import training_frequencies
from penult.features.groups import FEWEST_RANKED, Attribute
from penult.heads.comparison import Comparison, PairedCounts
from penult.measure.groups import accuracies_of, counts_by_group, hidden_losses
from penult.report.findings import Findings
from penult.runs.groups import groups_of
from penult.text import one_line

NAMED = 60  # characters of a name in a warning


def groups_part(found: Findings) -> list[dict[str, Any]]:
    """Accuracy in every group of every attribute of the evaluated samples; none without groups."""
    groups = groups_of(found.run, found.eval_part)
    if groups is None:
        return []
    training = training_frequencies(found.run)
    told = found.verdicts
    labels, dense, sparse = map(torch.from_numpy, (told.labels, told.dense, told.sparse))
    compared = Comparison(labels, dense, sparse, found.n_classes)
    heads = [] if found.sparse is None else [compared]
    names = [str(c) for c in range(found.n_classes)]  # classes by number: names may be the same
    hidden = hidden_losses(heads, [*groups.attributes.values()], names)
    return [
        _attribute(found, compared, attribute, training.get(name), hidden[0][i] if hidden else [])
        for i, (name, attribute) in enumerate(groups.attributes.items())
    ]


def group_warnings(parts: list[dict[str, Any]], class_names: list[str]) -> list[str]:
    """Groups that the sparse head makes worse than its accuracy over all samples tells."""
    said = []
    for part in parts:
        for row in part["hidden"][:3]:
            low, high = (100 * end for end in row["interval"])
            name = one_line(class_names[row["class"]], NAMED)
            said.append(
                f"the sparse head hides a loss: of the {row['n_samples']:,} samples of {name} with "
                f"{one_line(part['name'], NAMED)} = {one_line(row['value'], NAMED)} it gets "
                f"{100 * row['sparse']:.2f}% right and the network {100 * row['dense']:.2f}% "
                f"(between {low:.2f} and {high:.2f} points fewer, with 95 % confidence), while "
                f"over all samples it loses {100 * part['overall_loss']:.2f} points"
            )
    return said


def _attribute(
    found: Findings,
    compared: Comparison,
    attribute: Attribute,
    weights: Tensor | None,
    losses: list[dict[str, Any]],
) -> dict[str, Any]:
    names = [str(c) for c in range(found.n_classes)]
    counted = counts_by_group(compared, attribute)
    by_value: dict[int, PairedCounts] = {}
    rows = []
    for group, counts in counted.items():
        c, value = divmod(group, len(attribute.values))
        by_value[value] = by_value[value] + counts if value in by_value else counts
        rows.append({"class": c, "value": attribute.values[value], **_counts(counts)})
    rows.sort(key=lambda row: (not row["ranked"], row["dense"], -row["n_samples"]))
    hidden = []
    for row in losses:
        c = int(row["class"])
        place = attribute.values.index(row["value"]) + c * len(attribute.values)
        hidden.append({"class": c, "value": row["value"], **_counts(counted[place])})
    sides = {}
    for side in ("dense", "sparse") if found.sparse is not None else ("dense",):
        right = {
            group: (counts.n_before if side == "dense" else counts.n_after, counts.n_samples)
            for group, counts in counted.items()
        }
        told = accuracies_of(right, attribute, names, weights)
        worst = told["worst"]
        if worst is not None:
            worst = {**worst, "class": int(worst["class"])}
        kept = ("mean", "mean_interval", "mean_of_groups", "mean_by_training", "n_samples")
        sides[side] = {"worst": worst, **{key: told[key] for key in kept}}
    return {
        "name": attribute.name,
        "n_without": int((~attribute.known).sum()),
        "fewest": FEWEST_RANKED,
        **sides,
        "overall_loss": compared.overall.loss,
        "values": [
            {"value": attribute.values[value], **_counts(counts)}
            for value, counts in sorted(by_value.items())
        ],
        "groups": rows,
        "hidden": hidden,
    }


def _counts(counts: PairedCounts) -> dict[str, Any]:
    """Both accuracies and the change between them, with intervals."""
    told = counts.document()
    return {
        "n_samples": counts.n_samples,
        "dense": counts.before,
        "dense_interval": told["before_interval"],
        "sparse": counts.after,
        "sparse_interval": told["after_interval"],
        "loss": counts.loss,
        "interval": told["interval"],
        "ranked": counts.n_samples >= FEWEST_RANKED,
    }
