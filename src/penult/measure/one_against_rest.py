"""One against rest: how each class of multi-label data is decided, yes or no."""

from __future__ import annotations

from typing import Any

from penult.features.features import Features
from penult.heads.ratings import MOST_LOGITS, rated
from penult.intervals import accuracy_interval
from penult.network.head import Head

SHARED = "classes share samples, so nothing lies between them: the data are multi-label"
NO_CONFUSION = (
    "no class is given in place of another where each is decided by itself: the data are "
    "multi-label (see decisions)"
)
NOT_MEANT = {
    "overlap.confusion": NO_CONFUSION,
    "dimension.within": SHARED,
    "dimension.between": SHARED,
    "dimension.collapse": SHARED,
}
TOO_MANY = f"samples times classes are more than {MOST_LOGITS:,}, of which none are put in order"


def decisions(head: Head, evaluation: Features) -> list[dict[str, Any]] | None:
    """How the dense head decides each class, by itself, on multi-label samples.

    Returns:
        For each class `n_samples`, `n_positive` (samples that have it), `accuracy` (one against
        the rest) with its `interval`, `always_no` (the accuracy of never giving the class),
        `balanced` (mean of the accuracies on the class's samples and on all others) and
        `average_precision`, whose value at chance is n_positive / n_samples; None where the
        samples are too many to be put in order.
    """
    found = rated([head], evaluation)
    if found is None:
        return None
    (own,) = found
    n = own.n_samples
    return [
        {
            "n_samples": n,
            "n_positive": n_positive,
            "accuracy": n_right / n,
            "interval": list(accuracy_interval(n_right, n)),
            "always_no": 1 - n_positive / n,
            "balanced": balanced,
            "average_precision": average_precision,
        }
        for n_positive, n_right, balanced, average_precision in zip(
            own.n_positive, own.n_right, own.balanced, own.average_precision, strict=True
        )
    ]
