"""Fitting: the sparse heads of a plan, one after the other, from the samples to the weights."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from penult.features.features import Features
from penult.features.influence import Evidence
from penult.features.moments import Moments
from penult.heads.comparison import PairedCounts
from penult.heads.pace import Pace
from penult.heads.plan import Plan
from penult.heads.ratings import Ratings
from penult.heads.reading import PassReader, ReadHere
from penult.heads.refit.registry import REFITS
from penult.heads.select.registry import SELECTIONS, Search
from penult.heads.sparse_head import SparseHead


@dataclass(frozen=True, eq=False)
class Step:
    """One head of a path.

    Attributes:
        k: features per class.
        head: the sparse head.
        seconds: what its selection and refit took; the selection of a whole path is shared out.
        converged: whether its refit came to its end; a warning says where it did not.
        counts: against the dense head on the samples that judge, or None before it is compared.
        ratings: on these samples, class by class; of multi-label data alone.
    """

    k: int
    head: SparseHead
    seconds: float
    converged: bool = True
    counts: PairedCounts | None = None
    ratings: Ratings | None = None

    @property
    def accuracy(self) -> float | None:
        """Fraction right on the samples that judge; None before it is measured."""
        return None if self.counts is None else self.counts.after

    @property
    def n_features_used(self) -> int:
        """How many different features all classes read together."""
        return len(torch.unique(self.head.indices))


def fit_heads(
    features: Features,
    also: Sequence[Features],
    plan: Plan,
    pace: Pace,
    reader: PassReader | None = None,
) -> Iterator[Step]:
    """The heads of a plan, the largest first, not yet measured.

    Args:
        features: with their dense head.
        also: further features, part by part, whose labels do not count.
        plan: sizes, selection and refit.
        pace: hears of the progress, and stops the fit.
        reader: what reads the features; this process where None.
    """
    head = features.require_head()
    ks = plan.sizes(head.n_classes, features.n_features)
    start = time.perf_counter()
    n = features.n_samples + sum(part.n_samples for part in also)
    reading = (reader or ReadHere()).begin(features, also, pace.phase("samples", n))
    samples = reading.samples(plan.labels)

    @cache
    def evidence() -> Evidence:
        # Counts for every k take long with many of them, and only `frequency` reads them.
        return reading.evidence(ks if plan.select == "frequency" else (), plan.seed)

    @cache
    def moments() -> Moments:
        return reading.moments()

    # What comes first is begun last: a log names the stage that was begun last.
    finished = pace.phase("heads", len(ks))
    passes = pace.phase("passes", 10 * len(ks))
    search = Search(
        samples,
        evidence,
        moments,
        plan.limits(),
        tick=pace.phase("choosing features", 20 * ks[-1]),
        fit_tick=passes,
        hear=pace.hear,
    )
    selection = SELECTIONS[plan.select]
    shared = (time.perf_counter() - start) / len(ks)
    start = time.perf_counter()
    for k, chosen in selection.choose(search, ks):
        # With all features nothing is nearer to the dense head than its own weights.
        whole = k == features.n_features and not plan.labels
        refit = REFITS["none" if whole else plan.refit]
        sparse, converged = refit(search, chosen, selection, plan.prior)
        sparse.layer = head.name
        if not converged:
            warnings.warn(
                f"the refit of k = {k} ended before it converged: its weights are not the best "
                "for these features; look for features of very unequal size",
                stacklevel=4,
            )
        now = time.perf_counter()
        yield Step(k, sparse, shared + now - start, converged)
        start = now
        finished()
