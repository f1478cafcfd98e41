"""Accuracy by group: the worst group, the mean both ways, and what a sparse head hides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from penult.features.groups import FEWEST_RANKED, Attribute, Groups
from penult.heads.comparison import Classifier, Comparison, PairedCounts, compare_heads
from penult.intervals import accuracy_interval, benjamini_hochberg, paired_tail, sign_test
from penult.runs.groups import accuracies_file, evaluated_part, groups_of, require_groups
from penult.runs.run import Run
from penult.storage import read_json, write_json

FORMAT = "penult-group-accuracies/1"
FALSE_DISCOVERIES = 0.05


def measure_groups(run: Run) -> dict[str, Any]:
    """Accuracy of the dense head and of the run's fitted heads in every group.

    Returns:
        The document: for each attribute the accuracy of each group (a class with a value) with its
        interval and number of samples, the worst group, the means, and the groups that a sparse
        head makes worse than the accuracy over all samples tells.

    Raises:
        InputError: the run has no groups.
    """
    part = evaluated_part(run)
    summary = run.summary()
    groups = groups_of(run, part)
    if groups is None:
        # Groups of the training samples alone: nothing is measured on them.
        require_groups(run, "train")
        groups = Groups({}, run.evaluation().n_samples)
    features = run.evaluation()
    path = [(row["select"], int(row["k"])) for row in summary["path"]]
    dense = features.require_head()
    heads: list[Classifier] = [run.head(select, k) for select, k in path]
    compared = compare_heads(dense, heads or [dense], features)
    train = groups_of(run, "train") if part == "eval" else None
    train_labels = run.train().labels() if train is not None else None
    names = summary["class_names"]
    hidden = hidden_losses(compared if path else [], [*groups.attributes.values()], names)
    found = {}
    for i, (name, attribute) in enumerate(groups.attributes.items()):
        other = train.attributes.get(name) if train is not None else None
        weights = None
        if other is not None and train_labels is not None:
            weights = group_frequencies(other, attribute, train_labels, len(names))
        rows = accuracy_by_group(compared[0], attribute, names, weights)
        sparse = [
            {
                "select": select,
                "k": k,
                **_sparse(comparison, attribute, names, weights, hidden[h][i]),
            }
            for h, ((select, k), comparison) in enumerate(zip(path, compared, strict=False))
        ]
        found[name] = {**rows, "sparse": sparse}
    return {"format": FORMAT, "part": part, "class_names": list(names), "attributes": found}


def groups_document(run: Run) -> dict[str, Any] | None:
    """What `measure_groups` found, from the run folder; None for a run without groups."""
    path = accuracies_file(run)
    return read_json(path, FORMAT) if path.is_file() else None


def write_groups_document(run: Run) -> dict[str, Any]:
    """Measure the groups of a run and keep the document in its folder."""
    document = measure_groups(run)
    with run.writing():
        write_json(accuracies_file(run), document)
    return document


def accuracy_by_group(
    compared: Comparison,
    attribute: Attribute,
    class_names: Sequence[str],
    weights: Tensor | None = None,
) -> dict[str, Any]:
    """Accuracy of the first head of a comparison in each group, worst first.

    Args:
        compared: on the samples of the attribute.
        attribute: of these samples.
        class_names: of the labels.
        weights: (n_classes · n_values,) how often each group is among the training samples.
    """
    counted = counts_by_group(compared, attribute)
    right = {group: (counts.n_before, counts.n_samples) for group, counts in counted.items()}
    return {
        "values": list(attribute.values),
        "n_without": int((~attribute.known).sum()),
        **accuracies_of(right, attribute, class_names, weights),
    }


def accuracies_of(
    right: Mapping[int, tuple[int, int]],
    attribute: Attribute,
    class_names: Sequence[str],
    weights: Tensor | None = None,
) -> dict[str, Any]:
    """Groups worst first, those with few samples last, the worst group and the means.

    Args:
        right: how many samples of each group are right, and how many there are.
        attribute: whose groups these are.
        class_names: of the labels.
        weights: (n_classes · n_values,) how often each group is among the training samples.
    """
    rows = []
    for group, (n_right, n) in right.items():
        c, value = attribute.named(group, class_names)
        rows.append({"class": c, "value": value, **_accuracy(n_right, n)})
    rows.sort(key=_worst_first)
    n_samples = sum(n for _, n in right.values())
    n_right = sum(k for k, _ in right.values())
    return {
        "by_value": _by_value(right, attribute),
        "groups": rows,
        "worst": rows[0] if rows and rows[0]["ranked"] else None,
        "mean": n_right / n_samples if n_samples else None,
        "mean_interval": list(accuracy_interval(n_right, n_samples)),
        "n_samples": n_samples,
        "mean_of_groups": sum(row["accuracy"] for row in rows) / len(rows) if rows else None,
        "mean_by_training": _weighted(right, weights),
    }


def _by_value(right: Mapping[int, tuple[int, int]], attribute: Attribute) -> list[dict[str, Any]]:
    """Accuracy over all samples with a value of the attribute, whatever their class."""
    counts: dict[str, tuple[int, int]] = {}
    for group, (n_right, n) in right.items():
        value = attribute.values[group % len(attribute.values)]
        before = counts.get(value, (0, 0))
        counts[value] = (before[0] + n_right, before[1] + n)
    rows = [{"value": value, **_accuracy(*found)} for value, found in counts.items()]
    return sorted(rows, key=_worst_first)


def _accuracy(n_right: int, n: int) -> dict[str, Any]:
    return {
        "n_samples": n,
        "accuracy": n_right / n,
        "interval": list(accuracy_interval(n_right, n)),
        "ranked": n >= FEWEST_RANKED,
    }


def _worst_first(row: Mapping[str, Any]) -> tuple[bool, float, int]:
    return not row["ranked"], row["accuracy"], -row["n_samples"]


def counts_by_group(compared: Comparison, attribute: Attribute) -> dict[int, PairedCounts]:
    """Paired counts of each group that has samples; samples without a value are left out."""
    known = attribute.known
    part = Comparison(
        compared.labels[known],
        compared.before[known],
        compared.after[known],
        compared.n_classes,
        attribute.groups(compared.labels)[known],
    )
    counted = enumerate(part.by_group())
    return {group: counts for group, counts in counted if counts.n_samples}


def group_frequencies(
    other: Attribute, attribute: Attribute, labels: Tensor, n_classes: int
) -> Tensor:
    """How often each group of an attribute is among other samples.

    Args:
        other: the same attribute, of these other samples (those trained on).
        attribute: whose groups are counted; values are matched by their names.
        labels: (n_other,) int64 of the other samples.
        n_classes: number of classes.

    Returns:
        (n_classes · n_values,) float64.
    """
    place = {value: i for i, value in enumerate(attribute.values)}
    known = other.known
    codes = torch.tensor([place.get(value, -1) for value in other.values])[other.codes[known]]
    groups = labels[known] * len(attribute.values) + codes
    return torch.bincount(groups[codes >= 0], minlength=n_classes * len(attribute.values)).double()


def hidden_losses(
    compared: Sequence[Comparison],
    attributes: Sequence[Attribute],
    class_names: Sequence[str],
) -> list[list[list[dict[str, Any]]]]:
    """Groups that lose surely more than twice what all samples lose, which is told of first.

    A group counts if, over all heads, attributes and groups that are looked at, the false discovery
    rate is at most 5 %. The p value is the larger one of two: that of an exact test that the group
    loses at all, and that of a loss above twice the upper end of the interval of all samples'.
    Groups of fewer than ten samples are not tested.

    Args:
        compared: the dense head with each sparse one, on the same samples.
        attributes: of these samples.
        class_names: of the labels.

    Returns:
        For each head and each attribute the groups, the largest loss first.
    """
    found: list[list[list[dict[str, Any]]]] = []
    tested: list[tuple[list[dict[str, Any]], dict[str, Any], float]] = []
    for one in compared:
        found.append([])
        bound = 2 * max(0.0, one.overall.interval[1])
        for attribute in attributes:
            rows: list[dict[str, Any]] = []
            found[-1].append(rows)
            for group, counts in counts_by_group(one, attribute).items():
                if counts.n_samples >= FEWEST_RANKED:
                    c, value = attribute.named(group, class_names)
                    row = {"class": c, "value": value, **counts.document()}
                    tested.append((rows, row, _above(counts, bound)))
    adjusted = benjamini_hochberg([p for _, _, p in tested])
    for (rows, row, _), p_adjusted in zip(tested, adjusted, strict=True):
        if p_adjusted <= FALSE_DISCOVERIES:
            rows.append({**row, "p_adjusted": float(p_adjusted)})
    for of_head in found:
        for rows in of_head:
            rows.sort(key=lambda row: -row["loss"])
    return found


def _above(counts: PairedCounts, bound: float) -> float:
    """p value of a loss above a bound, and above 0."""
    exact = sign_test(counts.lost, counts.won)
    return max(exact, paired_tail(counts.lost, counts.won, counts.n_samples, bound))


def _sparse(
    compared: Comparison,
    attribute: Attribute,
    names: Sequence[str],
    weights: Tensor | None,
    hidden: list[dict[str, Any]],
) -> dict[str, Any]:
    after = Comparison(compared.labels, compared.after, compared.after, compared.n_classes)
    rows = accuracy_by_group(after, attribute, names, weights)
    overall = compared.overall.document()
    kept = ("worst", "mean", "mean_of_groups", "mean_by_training")
    return {
        **{key: rows[key] for key in kept},
        "overall": {key: overall[key] for key in ("before", "after", "loss", "interval")},
        "hidden": hidden,
    }


def _weighted(right: Mapping[int, tuple[int, int]], weights: Tensor | None) -> float | None:
    """Mean accuracy, each group as often as among the training samples."""
    if weights is None:
        return None
    total = sum(float(weights[group]) for group in right)
    if not total:
        return None
    return sum(float(weights[group]) * k / n for group, (k, n) in right.items()) / total
