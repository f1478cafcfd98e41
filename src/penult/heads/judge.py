"""Judge: which samples an accuracy was measured on, and which head size they can vouch for."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from penult.errors import InputError
from penult.heads.comparison import PairedCounts, bound_of, smallest_within
from penult.intervals import Z95_ONE_SIDED, samples_needed

EVALUATION = "evaluation"
CROSS_FIT = "cross-fit"
FITTED = "fitted"
OWN_LABELS = (
    "the labels are the network's own classes (--labels predicted): accuracy says how well a head "
    "agrees with the network, and nothing of what is true"
)


@dataclass(frozen=True)
class Judge:
    """The samples that accuracies were measured on.

    Attributes:
        kind: "evaluation", samples of their own; "cross-fit", the analysed samples, each judging
            heads that were fitted without it; or "fitted", the very samples that were fitted.
        n_samples: how many there are.
        n_folds: of the cross-fit, else 0.
        own_labels: whether the labels are the classes that the network itself gives.
    """

    kind: str
    n_samples: int
    n_folds: int = 0
    own_labels: bool = False

    @property
    def vouches(self) -> bool:
        """Whether what is measured can be promised for new samples."""
        return self.kind == EVALUATION

    @property
    def samples(self) -> str:
        """The samples, for a sentence."""
        by = " with the network's own classes as labels" if self.own_labels else ""
        n = f"{self.n_samples:,}"
        if self.kind == EVALUATION:
            return f"{n} evaluation samples{by}"
        if self.kind == CROSS_FIT:
            return f"{n} analysed samples{by} (cross-fitted in {self.n_folds} folds)"
        return f"{n} samples that the heads were fitted to{by}"

    @property
    def warning(self) -> str | None:
        """What must be said beside the accuracies; None where they can be taken as they are."""
        said = [OWN_LABELS if self.own_labels else None, self._no_evaluation]
        return "; ".join(filter(None, said)) or None

    @property
    def _no_evaluation(self) -> str | None:
        if self.kind == EVALUATION:
            return None
        if self.kind == CROSS_FIT:
            return (
                f"there are no evaluation samples, so accuracies are cross-fitted in "
                f"{self.n_folds} folds: heads are judged on analysed samples that they were not "
                "fitted to; if the network was trained on them, new samples may lose more"
            )
        return (
            "there are no evaluation samples, so accuracies are those on the very samples that "
            "the heads were fitted to: they say nothing about new samples"
        )

    def document(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {**asdict(self), "warning": self.warning}

    @classmethod
    def read(cls, document: Mapping[str, Any]) -> Judge:
        """From what `document` gave."""
        own_labels = document.get("own_labels", False)
        return cls(document["kind"], document["n_samples"], document["n_folds"], own_labels)


@dataclass(frozen=True)
class Sizing:
    """The smallest of several heads that loses no more than a tolerance.

    Attributes:
        index: which head; None where none passes.
        vouched: whether this holds, with 95 % confidence, for new samples too.
        why: one sentence.
    """

    index: int | None
    vouched: bool
    why: str


def size_within(
    sizes: Sequence[int], counts: Sequence[PairedCounts], judge: Judge, tolerance: float
) -> Sizing:
    """The smallest head that can be shown to lose no more than a tolerance.

    Heads are tested from the largest down, see `smallest_within`.

    Args:
        sizes: k of each head, ascending.
        counts: of each head against the dense one.
        judge: the samples of the counts.
        tolerance: fraction of accuracy, above 0.
    """
    check_tolerance(tolerance)
    if judge.kind == FITTED:
        return Sizing(
            None,
            False,
            f"No size can be chosen: accuracies are those on the {judge.samples}. Give samples "
            "that the network was not trained on for evaluation.",
        )
    index = smallest_within(counts, tolerance, sizes)
    if index is None:
        return Sizing(None, False, _none_passed(sizes[-1], counts[-1], judge, tolerance))
    k, loss, at_most = (
        sizes[index],
        counts[index].loss or 0.0,
        bound_of(counts[index], sizes[index]),
    )
    lost = _of(counts[index], " of accuracy")
    why = (
        f"k = {k} is the smallest head that can be shown, with 95 % confidence, to lose less than "
        f"{100 * tolerance:.2f} points{lost}: it loses {100 * loss:.2f} points, and at most "
        f"{100 * at_most:.2f}, on {judge.samples}; heads were tested from the largest down."
    )
    if not judge.vouches:
        why += (
            " Nothing is promised for new samples: the network may have been trained on these. "
            "Give samples that it was not trained on for evaluation."
        )
    return Sizing(index, judge.vouches, why)


def check_tolerance(tolerance: float) -> None:
    """Refuse a tolerance that is no fraction of accuracy."""
    if not 0 < tolerance < 1:
        raise InputError(f"the tolerance must lie in (0, 1), found {tolerance}")


def _none_passed(k: int, counts: PairedCounts, judge: Judge, tolerance: float) -> str:
    loss = counts.loss or 0.0
    lost, won, n = counts.effective
    said = (
        f"No head can be shown to lose less than {100 * tolerance:.2f} points"
        f"{_of(counts)}: the largest, "
        f"k = {k}, loses {100 * loss:.2f} points, and with 95 % confidence at most "
        f"{100 * bound_of(counts, k):.2f}, on {judge.samples}."
    )
    if loss >= tolerance:
        return f"{said} Try larger heads or a larger tolerance."
    differing = (lost + won) / max(n, 1)
    enough = Z95_ONE_SIDED**2 * max(0.0, differing - loss**2) / (tolerance - loss) ** 2
    enough *= counts.n_samples / max(n, 1)  # decisions of one sample are no independent ones
    needed = max(samples_needed(tolerance), math.ceil(enough))
    return (
        f"{said} About {_rounded(needed)} samples would be needed to show it of this head; or try "
        "larger heads or a larger tolerance."
    )


def _of(counts: PairedCounts, usual: str = "") -> str:
    """What is lost, where it is not the accuracy on samples."""
    several = counts.per_sample > 1
    return " of the accuracy of its yes-or-no decisions" if several else usual


def _rounded(n: int) -> str:
    """A number of samples with two significant digits, rounded up."""
    step: int = 10 ** max(0, len(str(n)) - 2)
    return f"{-(-n // step) * step:,}"


def too_few_for(tolerance: float, n_samples: int) -> str | None:
    """What to say before any fit, where so few samples cannot show that a tolerance is kept."""
    check_tolerance(tolerance)
    needed = samples_needed(tolerance)
    if n_samples >= needed:
        return None
    return (
        f"{n_samples:,} samples cannot show that no more than {100 * tolerance:.2f} points are "
        f"lost: it takes at least {needed:,}, and more where the heads differ; no head will be "
        "picked"
    )
