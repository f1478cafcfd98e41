"""Findings: what several passes over a run say of its chosen head, its classes and its features."""

from __future__ import annotations

import torch
from torch import Tensor

from penult.explain.choice import HeadChoice
from penult.explain.survey import Survey, kept_of
from penult.features.features import Features
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces
from penult.network.head import Head
from penult.report.album import images_each
from penult.report.relations import Relations
from penult.report.verdicts import Verdicts
from penult.runs.run import Run


class Findings:
    """All that the parts of a report are made from.

    Args:
        run: a finished one.
        choice: the sparse head that is explained.
        images: how many images each list shows; fewer where there are very many lists if None.

    Attributes:
        head: the sparse head, `subspaces` what it reads; `dense` is the dense one.
        values: (nnz,) float64, weights of the sparse head.
        train, evaluation: features.
        survey: ranges and largest values; relations: means and correlations; verdicts: what the
            heads call the evaluation samples; confusions: counts of these, class by class; reasons:
            those of each mistake that is shown.
        influences: for each class, see `Relations.influences`.
    """

    def __init__(self, run: Run, choice: HeadChoice, images: int | None) -> None:
        self.run = run
        self.choice = choice
        self.head: SparseHead = choice.head
        self.values: Tensor = choice.head.values.detach().double()
        self.bias: Tensor = choice.head.bias.detach().double()
        self.summary = run.summary()
        self.train: Features = run.train()
        self.dense: Head = self.train.require_head()
        self.evaluation: Features = run.evaluation()
        self.subspaces: Subspaces = self.head.subspaces
        n_lists = 2 * self.subspaces.nnz + self.head.n_features
        self.survey = Survey.of(self.train, self.subspaces, images_each(n_lists, images))
        self.relations = Relations.of(run.moments(), self.survey)
        self.influences = self.relations.influences(self.head)
        self.verdicts = Verdicts.of(self.evaluation, self.dense, self.head)
        self.confusions = self.verdicts.confusions()
        self.reasons = [m.reasons(self.dense, self.head) for m in self.verdicts.mistakes]

    @property
    def eval_part(self) -> str:
        """Part of the run that holds the evaluation samples."""
        return "eval" if self.summary["evaluated_on"] == "eval" else "train"

    def order(self, c: int) -> list[int]:
        """Entries of a class in the subspaces, the most influential first.

        The largest weights first where influences are unknown.
        """
        kept = kept_of(self.subspaces, c)
        sizes = self.influences[c]
        if not self.relations.compared[c]:
            sizes = self.values[kept.start : kept.stop].abs()
        return [kept[i] for i in sizes.sort(descending=True, stable=True).indices]

    def shares(self, c: int) -> Tensor:
        """Each kept feature's share of the influence on a class, (k,), in the subspaces' order.

        NaN where influences are unknown.
        """
        sizes = self.influences[c].abs()
        whole = sizes.sum()
        return sizes / torch.where(whole == 0, 1.0, whole)
