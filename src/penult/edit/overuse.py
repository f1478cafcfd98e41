"""Overuse: whether a head gives a feature more weight for a class than new samples bear out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from penult.edit.balance import Balance, Calibrated, Direction
from penult.progress import Progress

MEDIAN = 0.6744897501960817  # half of all normal values are that near to 0
CALM = 0.2  # of the classes: those whose scores spread the least
WIDEST = 1.3  # background of a network that knows its training by heart: wider is a shift


@dataclass(frozen=True, eq=False)
class Overuse:
    """Score tests: by how many standard errors weights are too large for new samples.

    Attributes:
        score: standard normal at most where nothing is overused, but for the background.
        by_class: the same, calibrated class by class: what `background` is told from.
    """

    score: Tensor
    by_class: Tensor

    @classmethod
    def of(cls, new: Balance, trained: Balance | None, sign: Tensor | float = 1.0) -> Overuse:
        """Compare the balance on new samples with that on the samples of the training.

        A weight is overused if it is too large for the new samples, and if it is more so than for
        those that the head was trained on: in a head that was not trained to the end, or whose
        weights were held small, none suits its own samples either. The score is the smaller of
        both. Each holds for a head fitted to the samples of the training, whose weights are off by
        what these had by chance, and the second one for any head.

        Args:
            new, trained: of the same quantities; without the latter only the first is asked.
            sign: 1 where more of the quantity speaks for the class, else -1.
        """
        n, variance = new.n_samples, new.square
        if trained is None:
            alone = _standard(sign * new.gradient, variance)
            return cls(alone[0], alone[1])
        m = trained.n_samples
        alone = _standard(sign * new.gradient, variance * (1 + n / m))
        # On samples that the head knows by heart nothing spreads: they would have, had they not.
        within = torch.maximum(variance / n, trained.square / m)
        against = _standard(
            sign * (new.gradient / n - trained.gradient / m), variance / n / n + within / m
        )
        return cls(torch.minimum(alone[0], against[0]), against[1])


def _standard(gradient: Tensor, variance: Tensor) -> Tensor:
    size = variance.sqrt()
    return torch.where(size > 0, gradient / size.clamp_min(1e-300), 0.0)


def background(by_class: Tensor, of: Tensor) -> float:
    """How much wider than by chance the scores of pairs spread without any shortcut, 1 to 1.3.

    In a network that is too sure of what it was trained on, every feature is a little off: Efron's
    (2004) empirical null. The spread in a class is told from the half of its scores that is nearest
    to zero; a shortcut of one class moves the scores of others as well, where these are taken for
    it, so what counts is the spread that four of five classes exceed. Overfitting was not seen to
    widen that by more than a fifth: where it is much wider, new samples are unlike those of the
    training throughout, which is what a suspect is to tell of.

    Args:
        by_class: (n,) scores of pairs, see `Overuse`.
        of: (n,) int64 the class of each pair.
    """
    order = of.argsort(stable=True)
    sizes = torch.unique(of, return_counts=True)[1].tolist()
    spreads = [part.abs().median() for part in torch.split(by_class[order], sizes)]
    if not spreads:
        return 1.0
    return min(WIDEST, max(1.0, float(torch.stack(spreads).quantile(CALM)) / MEDIAN))


@dataclass(frozen=True, eq=False)
class Contrast:
    """New samples, and those that the head was trained on, with which they are compared.

    Attributes:
        new: the head on samples that it was not trained on.
        trained: on those that it was, or some of them; None where there are no others.
    """

    new: Calibrated
    trained: Calibrated | None

    def weights(self, progress: Progress | None = None) -> Overuse:
        """Of every weight, (n_classes, n_features)."""
        weight = self.new.table.head.weight.double()
        parts = [self.new] if self.trained is None else [self.new, self.trained]
        whole, before = sum(part.table.n_samples for part in parts), 0
        found: list[Balance] = []
        for part in parts:
            found.append(part.of_weights(_within(progress, before, whole)))
            before += part.table.n_samples
        sign = torch.sign(weight - weight.mean(0))
        return Overuse.of(found[0], found[1] if len(found) > 1 else None, sign)

    def directions(self, directions: Sequence[Direction]) -> Overuse:
        """Of directions, each in the logit of its class, (n,)."""
        trained = None if self.trained is None else self.trained.of_directions(directions)
        return Overuse.of(self.new.of_directions(directions), trained)

    def factors(self, chosen: Tensor) -> Overuse:
        """Of each feature over several classes together, (n_features,).

        Were what the feature adds to the logits of all these classes multiplied by one factor,
        which would suit the samples best? Every sample counts once, however few of a class there
        are.

        Args:
            chosen: (n_classes,) bool, the classes.
        """
        trained = None if self.trained is None else self.trained.of_factors(chosen)
        return Overuse.of(self.new.of_factors(chosen), trained)


def _within(progress: Progress | None, before: int, whole: int) -> Progress | None:
    """Progress of one part of several that are heard as one."""
    return None if progress is None else lambda done, _: progress(before + done, whole)
