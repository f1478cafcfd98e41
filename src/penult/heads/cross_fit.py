"""Cross-fit: judge heads on samples that they were not fitted to, where no others are given."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from penult.features.draw import folds
from penult.features.features import Features
from penult.heads.comparison import Classifier, PairedCounts, paired_counts

Fit = Callable[[Features], Sequence[Classifier]]
MANY_FOLDS, FEW_FOLDS = 5, 2
# n_samples · n_features · n_classes up to which so many folds are fitted.
QUICK, LONG = 1e8, 4e9


def cross_fit(
    features: Features,
    fit: Fit,
    n_folds: int,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    on_fold: Callable[[Sequence[Classifier], Features], None] | None = None,
) -> list[PairedCounts]:
    """Fit to all but one fold of the samples and compare with the dense head on that one.

    This takes the advantage from heads that fit the very samples that judge them. It does not
    take it from the network: if it was trained on these samples, it knows them.

    Args:
        features: with their dense head; each class is dealt out evenly to the folds.
        fit: gives the same number of heads for any part of the features.
        n_folds: at least 2; fitting takes about so many times as long as one fit.
        seed: of the folds.
        progress: called with (folds done, folds in all).
        on_fold: called with the heads of each fold and the samples that judge them.

    Returns:
        The counts of each head, over all the samples.
    """
    fold = folds(features.labels(), n_folds, seed)
    dense = features.require_head()
    found: list[PairedCounts] = []
    for i in range(n_folds):
        heads = fit(features.subset(fold != i))
        judges = features.subset(fold == i)
        counts = paired_counts(dense, heads, judges, divergence=True)
        if on_fold is not None:
            on_fold(heads, judges)
        found = [a + b for a, b in zip(found, counts, strict=True)] if found else counts
        if progress is not None:
            progress(i + 1, n_folds)
    return found


def affordable_folds(n_samples: int, n_features: int, n_classes: int, n_further: int = 0) -> int:
    """How many folds to fit: 5 where that is quick, 2 where a fit takes longer, 0 beyond.

    Args:
        n_samples: each fold needs one to judge and some to fit.
        n_features, n_classes: of the dense head.
        n_further: samples that heads are fitted to and never judged on.
    """
    work = float(n_samples + n_further) * n_features * n_classes
    n_folds = MANY_FOLDS if work <= QUICK else FEW_FOLDS if work <= LONG else 0
    return n_folds if n_samples >= 2 * n_folds else 0
