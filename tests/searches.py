"""Searches to choose features with, made of plain arrays."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from penult.features.influence import Evidence
from penult.features.moments import Moments
from penult.heads.samples import Samples
from penult.heads.select.budget import Budget
from penult.heads.select.models import Limits
from penult.heads.select.registry import SELECTIONS, Search
from penult.heads.subspaces import Subspaces


def search(
    z: Tensor,
    labels: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    budget: Budget | None = None,
    limits: Limits | None = None,
) -> Search:
    """A search over samples in memory."""
    bias = torch.zeros(len(weight)) if bias is None else bias
    samples = Samples([(z, labels)], weight, bias)

    def moments() -> Moments:
        return Moments.of(z, labels, len(weight))

    def evidence() -> Evidence:
        made = Evidence.zeros(weight, (1, 2, 3))
        made.update(z, labels)
        return made

    return Search(samples, evidence, moments, budget or Budget(), limits or Limits())


def chosen(name: str, found: Search, ks: Sequence[int]) -> dict[int, Subspaces]:
    """Subspaces of each size by a selection of the registry."""
    heads = SELECTIONS[name].choose(found, sorted(ks))
    return {k: head.subspaces for k, head in heads}


def kept(subspaces: Subspaces) -> list[list[int]]:
    """Features of each class in rising order."""
    return [sorted(features.tolist()) for features in subspaces]
