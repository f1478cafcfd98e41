"""Whether a feature of one network is the feature of the same number in another."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from penult.errors import InputError
from penult.runs.run import Run
from penult.text import some

ALIKE = 0.5  # correlation of class means from which two features count as the same
PERMUTATIONS = 100


def require_fine_tune(old: Run, new: Run, features: Iterable[int] = ()) -> float:
    """Refuse to match two runs' features by their numbers unless the networks are of one stock.

    A fine-tune of a network keeps its features in their places: feature j is high in the same
    classes as before. In two networks trained from the beginning it is not, whatever the order.
    TwoSides are the features' class means, correlated over the classes; matched by number they
    must be more alike than in any of 100 random orders, and by 0.5 in the mean.

    Args:
        old: the run that a recipe was made for.
        new: the run of the other network.
        features: those that must be alike one by one as well (with three classes or more).

    Returns:
        The mean correlation.

    Raises:
        InputError: other classes, another n_features, or features that are not the same.
    """
    names = (tuple(old.summary()["class_names"]), tuple(new.summary()["class_names"]))
    if names[0] != names[1]:
        raise InputError(
            f"{new.folder} has other classes than {old.folder}: expected the same in the same order"
        )
    first, second = (run.moments().class_means().double() for run in (old, new))
    if first.shape != second.shape:
        raise InputError(
            f"{new.folder} has n_features = {second.shape[1]} and {old.folder} {first.shape[1]}: "
            "features cannot be matched by their numbers"
        )
    found = _alike(first, second)
    generator = torch.Generator().manual_seed(0)
    orders = [torch.randperm(first.shape[1], generator=generator) for _ in range(PERMUTATIONS)]
    chance = max(float(_alike(first, second[:, order]).mean()) for order in orders)
    mean = float(found.mean())
    if mean < ALIKE or mean <= chance:
        raise InputError(
            f"{new.folder} is no fine-tune of {old.folder}: features of the same number agree in "
            f"their class means by {mean:.2f} (correlation; {ALIKE} or more expected, by chance "
            f"up to {chance:.2f}), so a recipe's features would be others here"
        )
    if len(names[0]) >= 3:
        moved = [j for j in dict.fromkeys(features) if float(found[j]) < ALIKE]
        if moved:
            texts = some([f"{j} ({float(found[j]):.2f})" for j in moved])
            raise InputError(
                f"features that the recipe edits are others in {new.folder}: their class means "
                f"agree by {texts}, expected {ALIKE} or more (correlation)"
            )
    return mean


def _alike(first: Tensor, second: Tensor) -> Tensor:
    """Correlation over the classes of each feature's class means, (n_features,)."""
    a, b = first - first.mean(0), second - second.mean(0)
    size = a.norm(dim=0) * b.norm(dim=0)
    return torch.where(size > 0, (a * b).sum(0) / size.clamp_min(1e-300), 0.0)
