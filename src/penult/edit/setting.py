"""EditSetting: what an edit may look at besides the head: features' means, samples, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.features import Features
from penult.features.given import belonging
from penult.features.groups import Groups
from penult.features.moments import Moments
from penult.network.head import Head
from penult.runs.groups import groups_of, parts_of
from penult.runs.run import Run
from penult.text import class_index


@dataclass(frozen=True, eq=False)
class EditSetting:
    """The analysed data that edits refer to, such as the means at which a feature is switched off.

    Attributes:
        features: of the analysed data; refits are fitted to them.
        moments: of these features.
        class_names: in the order of the logits.
        groups: of these samples, where there are any.
        dense: the network's own head, whose probabilities a refit may follow.
    """

    features: Features
    moments: Moments
    class_names: Sequence[str]
    groups: Groups | None
    dense: Head

    @classmethod
    def of(cls, run: Run) -> EditSetting:
        """The setting of a run."""
        features = parts_of(run)["train"]
        names = run.summary()["class_names"]
        return cls(features, run.moments(), names, groups_of(run, "train"), features.require_head())

    @cached_property
    def mean(self) -> Tensor:
        """Mean of each feature, (n_features,) float64."""
        return self.moments.mean().double()

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of each feature, (n_features,) float64."""
        return self.moments.covariance().diagonal().double().clamp_min(0).sqrt()

    @cached_property
    def class_means(self) -> Tensor:
        """Mean of each feature in each class, (n_classes, n_features); of all where it is empty."""
        found = self.moments.class_means().double()
        return torch.where(self.moments.counts[:, None] == 0, self.mean, found)

    def class_index(self, name: str | int) -> int:
        """A class by its name, else by its number.

        Raises:
            InputError: there is none; says which names are nearest.
        """
        return class_index(name, self.class_names)

    def components(self, c: int) -> tuple[Tensor, Tensor]:
        """Principal components of a class's weighted features, and the spread along them.

        The weighted features are `W[c] ∘ z` of the class's samples, W the dense head's: their
        components with a large share of the class's logit are what the class depends on in common
        (class-wise PCA of Neuhaus et al. 2023). The sign is that which raises the class's logit.

        Returns:
            (n_components, n_features) orthonormal rows, largest spread first, and the variances.
        """
        weight = self.dense.weight[c].double()
        rows = belonging(self.features.labels(), c)
        if int(rows.sum()) < 2:
            raise InputError(
                f"class {self.class_names[c]} has {int(rows.sum())} samples: expected two or more "
                "for its principal directions"
            )
        z = self.features.subset(rows).arrays()[0].double()
        weighted = (z - z.mean(0)) * weight
        _, spread, found = torch.linalg.svd(weighted, full_matrices=False)
        sign = torch.where(found.sum(1) < 0, -1.0, 1.0).double()
        return found * sign[:, None], spread.square() / len(z)


def feature_index(number: int, n_features: int) -> int:
    """A feature, refused where the head has none of this number."""
    if not 0 <= number < n_features:
        raise InputError(
            f"there is no feature {number}: the head reads n_features = {n_features}, from 0 to "
            f"{n_features - 1}"
        )
    return number
