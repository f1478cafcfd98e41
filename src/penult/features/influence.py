"""Influence: how much each feature speaks for each class, by one registry of scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from penult.errors import InputError
from penult.features.features import Features
from penult.features.moments import Moments

Top = int | float
KS = (1, 2, 3, 5, 8, 10, 15, 20, 32)


def sizes_within(n_features: int) -> tuple[int, ...]:
    """The sizes of `KS` that a layer of `n_features` allows."""
    return tuple(k for k in KS if k <= n_features)


@dataclass(eq=False)
class TopCounts:
    """How often each feature is among a sample's top ones, per class; merging is addition.

    The activation share of feature j in a sample is |z_j| / Σ|z|, for non-negative features
    z_j / Σz. With an integer, a sample takes that many features with the largest shares (of
    equals, the first); with a fraction, the fewest whose shares reach it. A sample whose features
    are all zero has no shares and, for a fraction, takes none.

    Attributes:
        tops: what a sample takes: integers ≥ 1 or fractions in (0, 1).
        counts: (len(tops), n_classes, n_features) int64, samples of the class that take it.
        shares: (n_classes, n_features) float64, sum of the shares over the samples of each class.
    """

    tops: tuple[Top, ...]
    counts: Tensor
    shares: Tensor

    @classmethod
    def zeros(
        cls,
        tops: Sequence[Top],
        n_classes: int,
        n_features: int,
        device: torch.device | str | None = None,
    ) -> TopCounts:
        """Counts of no samples at all."""
        for top in tops:
            check_top(top, n_features)
        shape = (n_classes, n_features)
        return cls(
            tuple(tops),
            torch.zeros(len(tops), *shape, dtype=torch.int64, device=device),
            torch.zeros(shape, dtype=torch.float64, device=device),
        )

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, n_classes: int, tops: Sequence[Top]) -> TopCounts:
        """Counts over features (n_samples, n_features) with labels (n_samples,) in one call."""
        counts = cls.zeros(tops, n_classes, features.shape[1], features.device)
        counts.update(features, labels)
        return counts

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add samples: features (n_samples, n_features), labels (n_samples,) int64.

        A sample of several classes, labels (n_samples, n_classes) bool, counts for each of them.
        """
        if labels.ndim == 2:
            rows, labels = labels.nonzero().unbind(1)
            features = features[rows]
        size = features.abs().to(self.shares.device)
        labels = labels.to(self.shares.device)
        total = size.sum(1, dtype=torch.float64, keepdim=True)
        shares = size.double() / torch.where(total > 0, total, 1)
        self.shares.index_add_(0, labels, shares)
        if not self.tops:  # sorting takes most of the time, and only `frequency` needs it
            return
        order = size.sort(dim=1, descending=True, stable=True)
        places = labels[:, None] * size.shape[1] + order.indices
        for t, top in enumerate(self.tops):
            if isinstance(top, int):
                taken = places[:, :top].reshape(-1)
            else:
                sorted_shares = shares.gather(1, order.indices)
                before = sorted_shares.cumsum(1) - sorted_shares
                # A share of the last bit must not draw in one feature more.
                taken = places[(before < top - 1e-9) & (total > 0)]
            ones = torch.ones_like(taken)
            self.counts[t].view(-1).index_add_(0, taken, ones)

    def __add__(self, other: TopCounts) -> TopCounts:
        """Counts of both sets of samples together."""
        if self.tops != other.tops or self.shares.shape != other.shares.shape:
            raise InputError("counts of different tops or sizes cannot be merged")
        return TopCounts(self.tops, self.counts + other.counts, self.shares + other.shares)

    def to(self, device: torch.device | str) -> TopCounts:
        """The same counts on another device."""
        return TopCounts(self.tops, self.counts.to(device), self.shares.to(device))

    def at(self, top: Top) -> Tensor:
        """Counts for one of the tops, (n_classes, n_features)."""
        if top not in self.tops:
            listed = ", ".join(map(str, self.tops))
            raise InputError(f"no counts were kept for a top of {top}; there are {listed}")
        return self.counts[self.tops.index(top)]


def check_top(top: Top, n_features: int) -> None:
    """Refuse a top that is neither an integer in [1, n_features] nor a fraction in (0, 1)."""
    good = 1 <= top <= n_features if isinstance(top, int) else 0 < top < 1
    if not good:
        raise InputError(
            f"a top is a number of features in [1, {n_features}] or a fraction in (0, 1), "
            f"found {top}"
        )


@dataclass(eq=False)
class Evidence:
    """What the scores read: the dense weight and the sums of one pass over the samples.

    Begin with `Evidence.zeros` and `update` it block by block, or take all of some features with
    `Evidence.of`.

    Attributes:
        weight: (n_classes, n_features), the dense head's.
        moments: of the features.
        top_counts: of the features.
        seed: for the random control.
        top: what a sample takes in `frequency`; None takes as many features as the subspace keeps.
    """

    weight: Tensor
    moments: Moments
    top_counts: TopCounts
    seed: int = 0
    top: Top | None = None

    @classmethod
    def zeros(
        cls,
        weight: Tensor,
        ks: Sequence[int] = KS,
        *,
        seed: int = 0,
        top: Top | None = None,
        device: torch.device | str | None = None,
    ) -> Evidence:
        """Evidence of no samples, for subspaces of the sizes `ks`; the sums live on `device`."""
        tops = tuple(ks) if top is None else (top,)
        n_classes, n_features = weight.shape
        moments = Moments.zeros(n_classes, n_features, device)
        return cls(weight, moments, TopCounts.zeros(tops, n_classes, n_features, device), seed, top)

    @classmethod
    def of(cls, features: Features, ks: Sequence[int] | None = None, *, seed: int = 0) -> Evidence:
        """Evidence of all samples of some features that come with their head."""
        weight = features.require_head().weight
        sizes = sizes_within(features.n_features) if ks is None else ks
        evidence = cls.zeros(weight, sizes, seed=seed)
        for z, labels in features.blocks():
            evidence.update(z, labels)
        return evidence

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Add samples: features (n_samples, n_features), labels (n_samples,) int64."""
        self.moments.update(features, labels)
        self.top_counts.update(features, labels)

    def __add__(self, other: Evidence) -> Evidence:
        """Evidence of both sets of samples together, of the same network and options."""
        if (self.seed, self.top) != (other.seed, other.top):
            raise InputError("evidence of different seeds or tops cannot be merged")
        sums = self.moments + other.moments, self.top_counts + other.top_counts
        return Evidence(self.weight, *sums, self.seed, self.top)

    def to(self, device: torch.device | str) -> Evidence:
        """The same evidence on another device."""
        return replace(
            self,
            weight=self.weight.to(device),
            moments=self.moments.to(device),
            top_counts=self.top_counts.to(device),
        )


Score = Callable[[Evidence, int], Tensor]
SCORES: dict[str, Score] = {}


def _score(function: Score) -> Score:
    SCORES[function.__name__] = function
    return function


@_score
def frequency(evidence: Evidence, k: int) -> Tensor:
    """Fraction of the class's samples that have the feature among their top k.

    Source: Badola et al. 2023, arXiv 2112.07719.
    """
    counts = evidence.top_counts.at(k if evidence.top is None else evidence.top)
    return counts.double() / evidence.moments.counts.clamp(min=1)[:, None]


@_score
def mass(evidence: Evidence, k: int) -> Tensor:
    """Mean share of the feature in the activation of the class's samples."""
    return evidence.top_counts.shares / evidence.moments.counts.clamp(min=1)[:, None]


@_score
def contribution(evidence: Evidence, k: int) -> Tensor:
    """Weight × class mean: what the feature adds to the class's logit, on average."""
    return evidence.weight.double() * evidence.moments.class_means()


@_score
def wanda(evidence: Evidence, k: int) -> Tensor:
    """|Weight| × root mean square of the feature (Sun et al. 2023, arXiv 2306.11695)."""
    return evidence.weight.double().abs() * evidence.moments.root_mean_square()


@_score
def magnitude(evidence: Evidence, k: int) -> Tensor:
    """|Weight|, the features not looked at."""
    return evidence.weight.double().abs()


@_score
def random(evidence: Evidence, k: int) -> Tensor:
    """The control: uniform numbers from the seed."""
    generator = torch.Generator().manual_seed(evidence.seed)
    return torch.rand(evidence.weight.shape, generator=generator, dtype=torch.float64)


def influence(name: str, evidence: Evidence, k: int) -> Tensor:
    """Score of the registry by its name, (n_classes, n_features) float64; larger speaks more.

    A class without samples has no frequency, mass or contribution: its row is that of `magnitude`.

    Args:
        name: one of `SCORES`.
        evidence: weight and sums.
        k: size of the subspace asked for; only `frequency` depends on it.
    """
    if name not in SCORES:
        raise InputError(f"no score is called {name!r}; there are {', '.join(SCORES)}")
    scores = SCORES[name](evidence, k)
    empty = evidence.moments.counts == 0
    if name in ("frequency", "mass", "contribution") and bool(empty.any()):
        scores = torch.where(empty[:, None], magnitude(evidence, k), scores)
    return scores
