"""How much memory a fit takes, said before it starts."""

from __future__ import annotations

from penult.heads.refit.distillation import MEMORY_LIMIT
from penult.heads.select.coupled import is_affordable
from penult.heads.select.curvature import n_candidates
from penult.heads.select.joint import JOINT_FEATURES

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
        select: how features are chosen, one of `penult.heads.path.SELECTIONS`.
    """
    mapped = 4 * n_samples * n_features  # the features' own files, as far as the system keeps them
    samples = min(MEMORY_LIMIT, 4 * n_samples * (n_features + n_classes))
    # The same again for the part that is fitted first; and while blocks are turned into tiles.
    kept = samples + min(MEMORY_LIMIT, samples // 8) + 4 * min(n_samples, 8192) * n_features
    moments = 8 * (3 * n_features**2 + 4 * n_classes * n_features)
    refit = 4 * 8 * n_classes * (k + 1) ** 2 + 8 * 4 * n_classes * n_features
    selection = 0
    if select == "curvature":
        m = n_candidates(n_features, n_classes, k)
        alternates = is_affordable(n_samples, n_features, n_classes)
        if n_classes * n_features <= JOINT_FEATURES:
            selection = 8 * 6 * (n_classes * (n_features + 1)) ** 2
        elif not alternates:
            selection = 8 * 2 * n_classes * (m + 2) ** 2
        if alternates:
            arrays = 4 * n_samples * (2 * n_features + 10 * n_classes)
            selection += arrays + 8 * 5 * n_classes * (m + 1) ** 2
    return LIBRARIES + WORKING + mapped + kept + moments + max(refit, selection)
