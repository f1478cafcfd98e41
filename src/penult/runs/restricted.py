"""Restricted: the dense weights on the features that each score selects, and how well they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from penult.features.features import Features
from penult.features.influence import SCORES, Evidence, influence, sizes_within
from penult.heads.comparison import PairedCounts, paired_counts
from penult.heads.cross_fit import affordable_folds, cross_fit
from penult.heads.judge import CROSS_FIT, EVALUATION, FITTED, Judge
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import Subspaces, top_k
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.run import Run


@dataclass(frozen=True, eq=False)
class Restricted:
    """What every score selects at every size.

    Attributes:
        scores: (n_classes, n_features) float32 by name, "frequency@5" where a score goes with k.
        subspaces: by score and k; heads: the dense weights on them.
    """

    scores: dict[str, Tensor]
    subspaces: dict[tuple[str, int], Subspaces]
    heads: dict[tuple[str, int], SparseHead]

    @classmethod
    def of(cls, evidence: Evidence, head: Head, progress: Progress | None = None) -> Restricted:
        """From the sums of one pass; `progress` hears of (subspaces done, subspaces in all)."""
        sizes = sizes_within(head.n_features)
        scores: dict[str, Tensor] = {}
        subspaces: dict[tuple[str, int], Subspaces] = {}
        for name in SCORES:
            for k in sizes:
                found = influence(name, evidence, k)
                key = f"{name}@{k}" if name == "frequency" and evidence.top is None else name
                scores[key] = found.float()
                subspaces[name, k] = top_k(found, k)
                if progress is not None:
                    progress(len(subspaces), len(SCORES) * len(sizes))
        heads = {
            key: SparseHead.from_dense(head.weight, head.bias, kept, head.name)
            for key, kept in subspaces.items()
        }
        return cls(scores, subspaces, heads)

    def measured(
        self,
        train: Features,
        evaluation: Features | None,
        evidence: Evidence,
        judge: Judge,
        progress: Progress | None = None,
    ) -> dict[tuple[str, int], PairedCounts]:
        """Each head against the dense one.

        Args:
            train: the analysed samples.
            evaluation: other samples, or None.
            evidence: of the analysed samples.
            judge: says which samples judge; a cross-fit selects anew without each fold.
            progress: called with (samples done, samples in all), or folds.
        """
        head, heads = train.require_head(), list(self.heads.values())
        if judge.kind != CROSS_FIT:
            found = paired_counts(head, heads, evaluation or train, progress=progress)
        else:

            def again(part: Features) -> Sequence[SparseHead]:
                sizes = sizes_within(head.n_features)
                sums = Evidence.zeros(head.weight, sizes, seed=evidence.seed, top=evidence.top)
                for z, labels in part.blocks():
                    sums.update(z, labels)
                return list(Restricted.of(sums, head).heads.values())

            found = cross_fit(train, again, judge.n_folds, evidence.seed, progress)
        return dict(zip(self.heads, found, strict=True))


def judge_of(run: Run, n_further: int = 0) -> Judge:
    """The samples that judge the heads of a run: others where it has them, else a cross-fit.

    Args:
        run: with its features.
        n_further: further samples that its heads are fitted to.
    """
    train, evaluation = run.train(), run.held_out()
    if evaluation is not None:
        return Judge(EVALUATION, evaluation.n_samples, own_labels=run.own_labels)
    n_folds = affordable_folds(train.n_samples, train.n_features, train.n_classes, n_further)
    return Judge(CROSS_FIT if n_folds else FITTED, train.n_samples, n_folds, run.own_labels)
