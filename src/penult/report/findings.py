"""Findings: what several passes over a run say of its heads, its classes and its features."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from penult.explain.choice import HeadChoice
from penult.explain.survey import Survey
from penult.features.features import Features
from penult.heads.subspaces import Subspaces
from penult.network.head import Head
from penult.report.album import images_each
from penult.report.answers import Answers
from penult.report.relations import ClassMeans, Relations
from penult.report.rows import HeadRows
from penult.runs.run import Run

MOST_OF_NETWORK, FEWEST_OF_NETWORK = 8, 4
MOST_ENTRIES = 10_000  # pairs of a class and a feature of the network
MOST_DETAILED = 60_000  # pairs of a class and a feature that are shown with numbers and images


class Findings:
    """All that the parts of a report are made from.

    Args:
        run: a finished one.
        choice: the sparse head that is explained beside the network's own; None for the network's
            alone.
        images: how many images each list shows; fewer where there are very many lists if None.

    Attributes:
        dense: the network's own head, `network` its rows.
        sparse: rows of the sparse head, or None.
        train, evaluation: features.
        told_apart: rows and means of what the heads call samples: the classes; of multi-label data
            also that they are not, see `Answers`.
        means: of each class; influence: (n_classes, n_features) of the network's head, see
            `ClassMeans.influence`.
        features: of each class: those that move it most in the network, and all that the sparse
            head reads, in the order of the network's influence.
        shown: the first of these, which the class's page takes apart: all of them, or fewer where
            they are very many.
        deciding: (n_features,) of how many classes a feature is among the network's strongest.
        survey: ranges and largest values; relations: variances and correlations; verdicts: what
            the heads call the evaluation samples; confusions: counts of these, class by class;
    """

    def __init__(self, run: Run, choice: HeadChoice | None, images: int | None) -> None:
        self.run = run
        self.choice = choice
        self.summary = run.summary()
        self.train: Features = run.train()
        self.dense: Head = self.train.require_head()
        self.evaluation: Features = run.evaluation()
        several = self.dense.multi_label
        self.network = HeadRows.of(self.dense, several)
        self.sparse = None if choice is None else HeadRows.of(choice.head, several)
        self.means = ClassMeans.of(run.moments())
        self.told_apart = self.network, self.means
        if several:
            self.told_apart = self.network.with_opposites(), self.means.with_opposites()
        self.influence: Tensor = self.means.influence(self.network.relative())
        self.deciding: Tensor
        self.features, self.deciding = self._features()
        self.shown = self.features.first(max(1, MOST_DETAILED // max(self.n_classes, 1)))
        n_lists = 2 * self.shown.nnz + self.n_features
        self.survey = Survey.of(self.train, self.shown, images_each(n_lists, images))
        self.relations = Relations.of(run.moments(), self.survey)
        sparse_head = None if choice is None else choice.head
        self.verdicts = Answers.of(self.evaluation, self.dense, sparse_head)
        self.confusions = self.verdicts.confusions()
        self._sparse_head = sparse_head

    def reasons_of(self, mistake: int) -> list[dict[str, Any]]:
        """Why each head gives its class in a mistake that is shown, by its number."""
        return self.verdicts.mistakes[mistake].reasons(self.dense, self._sparse_head)

    @cached_property
    def reasons(self) -> list[list[dict[str, Any]]]:
        """Those of each mistake that is shown."""
        return [self.reasons_of(i) for i in range(len(self.verdicts.mistakes))]

    @property
    def n_classes(self) -> int:
        """Number of classes."""
        return self.dense.n_classes

    @property
    def n_features(self) -> int:
        """Number of features."""
        return self.dense.n_features

    @property
    def eval_part(self) -> str:
        """Part of the run that holds the evaluation samples."""
        return "eval" if self.summary["evaluated_on"] == "eval" else "train"

    def shares(self) -> Tensor:
        """Each feature's part of the network's influence on a class, (n_classes, n_features)."""
        return _shares(self.influence)

    def sparse_influence(self) -> Tensor | None:
        """The same as `influence` for the sparse head, zero where it does not read."""
        return None if self.sparse is None else self.means.influence(self.sparse.weight)

    def _features(self) -> tuple[Subspaces, Tensor]:
        """Features of each class's page, and how often each is among the network's strongest."""
        size = torch.where(
            self.means.compared[:, None], self.influence, self.network.relative()
        ).abs()
        order = size.sort(dim=1, descending=True, stable=True).indices
        n = max(FEWEST_OF_NETWORK, min(MOST_OF_NETWORK, MOST_ENTRIES // max(self.n_classes, 1)))
        n = min(n, self.n_features)
        taken = torch.zeros_like(order, dtype=torch.bool)
        taken.scatter_(1, order[:, :n], True)
        deciding = taken[self.means.counts > 0].sum(0)
        if self.sparse is not None:
            taken |= self.sparse.read
        return Subspaces.where(taken.gather(1, order), order), deciding


def shares_of_read(influence: Tensor, rows: HeadRows) -> Tensor:
    """Each feature's part of a head's influence on a class, among those that the class reads."""
    return _shares(torch.where(rows.read, influence, 0.0))


def _shares(influence: Tensor) -> Tensor:
    """Parts of each row's sum of magnitudes, (n_classes, n_features); NaN where it is unknown."""
    sizes = influence.abs()
    whole = sizes.sum(1, keepdim=True)
    return sizes / torch.where(whole == 0, 1.0, whole)
