"""How much memory a fit takes, said before it starts."""

from __future__ import annotations

from penult.heads.samples import MEMORY_LIMIT, n_few
from penult.heads.select.models import Limits
from penult.heads.select.registry import GROUP

# Python, torch and their libraries, before any data.
LIBRARIES = 400_000_000
# Tiles of samples in work: a few arrays of a million numbers, and allocators that keep some.
WORKING = 200_000_000


def memory_needed(n_samples: int, n_features: int, n_classes: int, k: int, select: str) -> int:
    """Bytes that fitting a path of sparse heads takes at most, about.

    Args:
        n_samples: of the features.
        n_features: of the features.
        n_classes: of the dense head.
        k: features per class of the largest head.
        select: how features are chosen, one of `SELECTIONS`.
    """
    mapped = 4 * n_samples * n_features  # the features' own files, as far as the system keeps them
    few = min(n_samples, n_few(n_classes))
    # The few samples once more, and once in standardised coordinates.
    kept = min(MEMORY_LIMIT, 4 * n_samples * (n_features + n_classes))
    kept += 4 * few * (2 * n_features + n_classes) + 8 * 2 * n_features**2
    refit = 3 * 8 * n_classes * (k + 1) ** 2 + 8 * 4 * n_classes * n_features
    moments = 8 * (3 * n_features**2 + 4 * n_classes * n_features)
    selection = moments if select != "curvature" else 0
    if select == "curvature":
        limits = Limits()
        sizes = few, n_features, n_classes
        m = limits.n_candidates(*sizes, min(k, limits.most_walked(*sizes))) + 1
        coupled = limits.is_coupled(few, n_classes)
        n_curved = n_classes if coupled else min(n_classes, max(1, GROUP // m**2))
        selection = 3 * 8 * n_curved * m**2 + 6 * 4 * few * (n_classes if coupled else n_curved)
        if limits.is_joint(*sizes):
            selection += 3 * 8 * (n_classes * m) ** 2
    return LIBRARIES + WORKING + mapped + kept + max(refit, selection)
