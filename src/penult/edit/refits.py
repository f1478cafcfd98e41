"""Refits: the weights of an edited head fitted anew, on the features that it still reads."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from penult.edit.edit import Edit
from penult.edit.setting import EditSetting, feature_index
from penult.errors import InputError
from penult.features.features import Features
from penult.heads.bounded_head import BoundedHead, bounded, linear_part
from penult.heads.refit.softmax import refit_softmax
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.head import Head
from penult.text import class_index

DRAWS = 10  # balanced draws whose weights are averaged, as in Kirichenko et al. 2023
LEAST = 1 / 3  # of a class's samples are taken as its least spurious
# From 1.8 on scikit-learn takes the kind of the penalty from its l1_ratio alone.
BY_RATIO = tuple(map(int, version("scikit-learn").split(".")[:2])) >= (1, 8)
ONE_LABEL = ("balanced", "least-spurious")  # refits that draw samples class by class
L1 = 0.1  # strength of the penalty on standardised weights, as scikit-learn's C


def refit(head: BoundedHead, edit: Edit, setting: EditSetting) -> BoundedHead:
    """Fit the weights that are not zero anew; classes keep the features that they read."""
    if head.n_bounds:
        raise InputError(
            "a capped head cannot be refitted, since its weights would be fitted as if there were "
            "no caps: put the refit before the caps in the recipe"
        )
    assert edit.to is not None
    if edit.to in ONE_LABEL:
        setting.features.require_one_label(f"a refit to {edit.to}")
    return bounded(REFIT_EDITS[edit.to](head, edit, setting))


def to_probabilities(head: Head, edit: Edit, setting: EditSetting) -> Head:
    """Weights whose probabilities are nearest to the network's own; labels are not looked at."""
    return _softmax(head, setting, setting.features, labels=False)


def to_labels(head: Head, edit: Edit, setting: EditSetting) -> Head:
    """Weights that fit the labels of the analysed data best."""
    return _softmax(head, setting, setting.features, labels=True)


def to_balanced_groups(head: Head, edit: Edit, setting: EditSetting) -> Head:
    """Deep feature reweighting (Kirichenko et al. 2023) on the features that are left.

    Logistic regression with an l1 penalty on standardised features, on as many samples of every
    group; averaged over several draws. Where classes read different features, the penalty is left
    out and each class keeps its own.
    """
    assert edit.attribute is not None
    if setting.groups is None:
        raise InputError(
            "the analysed samples have no groups: give them with penult groups RUN FILE --part "
            "train, or refit to least-spurious, which needs none"
        )
    labels = setting.features.labels()
    groups = setting.groups.attribute(edit.attribute).groups(labels)
    support = head.weight != 0
    draws = [balanced_draw(groups, seed) for seed in range(DRAWS)]
    same = bool((support == support[0]).all())
    if not same:
        heads = []
        for rows in draws:
            chosen = torch.zeros(len(labels), dtype=torch.bool)
            chosen[rows] = True
            heads.append(_softmax(head, setting, setting.features.subset(chosen), labels=True))
        return _mean(head, heads)
    z = setting.features.arrays()[0]
    return balanced_regression(head, z[:, support[0]], labels, draws, support[0])


def to_least_spurious(head: Head, edit: Edit, setting: EditSetting) -> Head:
    """Fit the labels of those samples of each class on which its shortcut features are lowest.

    No group labels are needed: a sample without the shortcut tells what else the class is known by
    (Moayeri et al. 2023, *Spuriosity Rankings*).
    """
    assert edit.pairs is not None
    labels = setting.features.labels()
    z = setting.features.arrays()[0]
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    pairs = [parse_pair(pair, head.n_features, setting.class_names) for pair in edit.pairs]
    for c in range(head.n_classes):
        rows = (labels == c).nonzero()[:, 0]
        own = [j for j, of in pairs if of is None or of == c]
        if not own or not len(rows):
            chosen[rows] = True
            continue
        values = z[rows][:, own].double()
        spuriosity = ((values - values.mean(0)) / values.std(0).clamp_min(1e-12)).sum(1)
        n = max(min(2, len(rows)), round(LEAST * len(rows)))
        chosen[rows[spuriosity.argsort(stable=True)[:n]]] = True
    return _softmax(head, setting, setting.features.subset(chosen), labels=True)


def balanced_draw(groups: Tensor, seed: int) -> Tensor:
    """Rows with as many samples of every group that there is; those of no group are left out.

    Args:
        groups: (n_samples,) int64, -1 for none.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(groups), generator=generator)
    shuffled = groups[order]
    there = torch.unique(shuffled).tolist()
    rows = [order[shuffled == group] for group in there if group >= 0]
    if not rows:
        raise InputError("no sample has a group: nothing can be balanced")
    n = min(len(found) for found in rows)
    return torch.cat([found[:n] for found in rows])


def balanced_regression(
    head: Head,
    z: Tensor,
    labels: Tensor,
    draws: list[Tensor],
    support: Tensor,
    strength: float = L1,
) -> Head:
    """Mean weights of logistic regressions with an l1 penalty, one for each draw.

    Args:
        head: whose shape the result has; it also gives the weights of classes without samples.
        z: (n_samples, n_support) features.
        labels: (n_samples,) int64.
        draws: rows of each regression.
        support: (n_features,) bool, which features `z` holds.
        strength: scikit-learn's C on standardised features; smaller is a stronger penalty.
    """
    fitted = [(rows, torch.ones(len(rows), dtype=torch.float32)) for rows in draws]
    return _regressions(head, z, labels, fitted, support, strength, "l1")


def weighted_regression(
    head: Head,
    z: Tensor,
    labels: Tensor,
    groups: Tensor,
    support: Tensor,
    strength: float,
    counted: Tensor | None = None,
) -> Head:
    """Logistic regression with an l2 penalty in which every group counts as much.

    Args:
        head, z, labels, support, strength: see `balanced_regression`.
        groups: (n_samples,) int64; samples of -1 are left out.
        counted: (n_groups,) how much each group counts instead.
    """
    rows = (groups >= 0).nonzero()[:, 0]
    sizes = torch.bincount(groups[rows]).double()
    weights = 1 / sizes[groups[rows]]
    if counted is not None:
        weights = weights * counted[groups[rows]]
    weights = weights * (len(rows) / weights.sum())
    return _regressions(head, z, labels, [(rows, weights)], support, strength, "l2")


def _regressions(
    head: Head,
    z: Tensor,
    labels: Tensor,
    fitted: list[tuple[Tensor, Tensor]],
    support: Tensor,
    strength: float,
    penalty: str,
) -> Head:
    mean, std = z.double().mean(0), z.double().std(0)
    std = torch.where(std > 0, std, 1.0)
    scaled = ((z.double() - mean) / std).numpy()
    weights = torch.zeros(head.n_classes, int(support.sum()), dtype=torch.float64)
    biases = torch.zeros(head.n_classes, dtype=torch.float64)
    for rows, counted in fitted:
        coef, intercept, classes = _logistic(
            scaled[rows.numpy()], labels[rows].numpy(), counted.numpy(), strength, penalty
        )
        weights[classes] += coef / len(fitted)
        biases[classes] += intercept / len(fitted)
    weight, bias = torch.zeros_like(head.weight), head.bias.clone()
    weight[:, support] = (weights / std).float()
    bias = (biases - (weights / std) @ mean).float()
    absent = torch.ones(head.n_classes, dtype=torch.bool)
    absent[torch.unique(labels)] = False
    # A class without samples can be called by nothing that was fitted.
    weight[absent], bias[absent] = head.weight[absent], head.bias[absent]
    return replace(linear_part(head), weight=weight, bias=bias)


def _logistic(
    z: NDArray[Any], labels: NDArray[Any], counted: NDArray[Any], strength: float, penalty: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (n_classes, n_support), biases and the classes that there are."""
    l1 = penalty == "l1"
    named: dict[str, Any] = {"l1_ratio": float(l1)} if BY_RATIO else {"penalty": penalty}
    # Imported here since it takes a second, which no other command should wait for.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(
        C=strength, solver="saga" if l1 else "lbfgs", tol=1e-3, max_iter=300, **named
    )
    with warnings.catch_warnings():
        # The weights are averaged over draws: a tail of small ones that still move is no matter.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(z, labels, sample_weight=counted)
    coef, intercept = torch.from_numpy(model.coef_), torch.from_numpy(model.intercept_)
    if len(coef) == 1:  # two classes: scikit-learn gives their difference
        coef, intercept = torch.cat([-coef, coef]) / 2, torch.cat([-intercept, intercept]) / 2
    return coef.double(), intercept.double(), torch.from_numpy(model.classes_)


def _softmax(head: Head, setting: EditSetting, features: Features, labels: bool) -> Head:
    subspaces = Subspaces.where(head.weight != 0)
    start = SparseHead.from_dense(head.weight, head.bias, subspaces)
    dense = setting.dense
    found = refit_softmax(
        subspaces,
        features,
        dense.weight,
        dense.bias,
        start=start,
        labels=labels,
        link=dense.link,
    ).head
    weight = found.dense_weight().detach()
    return replace(linear_part(head), weight=weight, bias=found.bias.detach())


def _mean(head: Head, heads: list[Head]) -> Head:
    weight = torch.stack([one.weight for one in heads]).mean(0)
    bias = torch.stack([one.bias for one in heads]).mean(0)
    return replace(linear_part(head), weight=weight, bias=bias)


def parse_pair(text: str, n_features: int, class_names: Sequence[str]) -> tuple[int, int | None]:
    """`57:cat` as (57, class), or `57` as (57, None).

    Raises:
        InputError: no such feature or class.
    """
    number, colon, name = text.partition(":")
    if not number.isdecimal():
        raise InputError(f"expected FEATURE or FEATURE:CLASS, such as 57:cat, found {text!r}")
    feature = feature_index(int(number), n_features)

    return feature, class_index(name, class_names) if colon else None


REFIT_EDITS: dict[str, Callable[[Head, Edit, EditSetting], Head]] = {
    "probabilities": to_probabilities,
    "labels": to_labels,
    "balanced": to_balanced_groups,
    "least-spurious": to_least_spurious,
}


def check_refit(edit: Edit, n_features: int, class_names: Sequence[str]) -> None:
    """Refuse a refit that there is not, or that lacks what it needs."""
    if edit.to not in REFIT_EDITS:
        raise InputError(f"refit: expected one of {', '.join(REFIT_EDITS)}, found {edit.to!r}")
    if (edit.to == "balanced") != (edit.attribute is not None):
        raise InputError("a refit to balanced groups, and no other, needs an attribute")
    if (edit.to == "least-spurious") != (edit.pairs is not None):
        raise InputError(
            "a refit to the least spurious samples, and no other, needs pairs of a feature and a "
            "class: shortcuts that were found, such as 57:cat"
        )
    for pair in edit.pairs or ():
        parse_pair(pair, n_features, class_names)
