"""Dimension: how many directions the features use, as a whole, within and between classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from penult.features.moments import Moments
from penult.measure.class_samples import ClassSamples
from penult.measure.information import MATRIX_CLASSES
from penult.measure.uncertainty import jackknife, percentiles, resampled

VARIANCE = (0.9, 0.95, 0.99)
NEIGHBOURS_OF = 5000
NEIGHBOURS_OF_CLASS = 1000
CLASS_EIGENVALUES = 64
ONE_CLASS_EACH = ("within", "between", "collapse")  # what needs one class per sample


def eigenvalues(matrix: Tensor) -> Tensor:
    """Eigenvalues of a symmetric matrix that has none below zero, largest first."""
    values: Tensor = torch.linalg.eigvalsh(matrix)
    return values.flip(0).clamp(min=0)


def participation_ratio(values: Tensor) -> float:
    """`(Σλ)² / Σλ²`: 1 for one direction, n for n equal ones; NaN where all are zero."""
    return float(values.sum() ** 2 / (values**2).sum())


def entropy_rank(values: Tensor) -> float:
    """exp of the entropy of `λ / Σλ` (Roy and Vetterli 2007): in [1, n]; NaN where all are zero."""
    p = values / values.sum()
    return float(torch.exp(-torch.xlogy(p, p).sum()))


def n_components(values: Tensor, fraction: float) -> int | None:
    """Fewest of the eigenvalues, largest first, that sum to the fraction of all."""
    total = float(values.sum())
    if total == 0:
        return None
    # A variance of the last bit must not ask for one component more.
    return 1 + int((values.cumsum(0) < (fraction - 1e-12) * total).sum())


def scatter(moments: Moments) -> dict[str, Tensor]:
    """Second moment, covariance, and the covariance within and between classes.

    Each (n_features, n_features), divided by n_samples; covariance = within + between. The first
    two alone where classes share samples.
    """
    n = max(moments.n_samples, 1)
    second = (moments.products + moments.products.T) / (2 * n)
    if moments.overlapping:
        return {"second_moment": second, "covariance": moments.covariance()}
    means = moments.class_means()
    centred = (means - moments.mean()) * (moments.counts.double() / n).sqrt()[:, None]
    between = centred.T @ centred
    covariance = moments.covariance()
    return {
        "second_moment": second,
        "covariance": covariance,
        "within": covariance - between,
        "between": between,
    }


def collapse(moments: Moments) -> dict[str, float]:
    """Neural collapse (Papyan, Han and Donoho 2020): how far the classes have become points.

    Returns:
        `nc1`: tr(Σ_W Σ_B⁺) / n_classes, and `within_over_between`: tr Σ_W / tr Σ_B; both 0 when
        every class is one point. `equinorm`: spread of the distances of the class means from the
        overall mean, over their mean. `equiangular`: mean |cos + 1 / (n_classes − 1)| between those
        means. Both 0 for a simplex. NaN with fewer than two classes that have samples.
    """
    there = moments.counts > 0
    n_classes = int(there.sum())
    if n_classes < 2:
        names = ("nc1", "within_over_between", "equinorm", "equiangular")
        return dict.fromkeys(names, torch.nan)
    parts = scatter(moments)
    values, vectors = torch.linalg.eigh(parts["between"])
    # n_classes centred means span at most n_classes − 1 directions; the rest is rounding.
    used = values > values[-1].clamp(min=0) * 1e-10
    used[: max(0, len(values) - (n_classes - 1))] = False
    basis = vectors[:, used]
    within = ((parts["within"] @ basis) * basis).sum(0)
    means = moments.class_means()[there]
    arms = means - means.mean(0)
    norms = arms.norm(dim=1)
    cosines = (arms @ arms.T) / (norms[:, None] * norms)
    off = cosines[~torch.eye(n_classes, dtype=torch.bool)]
    return {
        "nc1": float((within / values[used]).sum()) / n_classes,
        "within_over_between": float(parts["within"].trace() / parts["between"].trace()),
        "equinorm": float(norms.std(correction=0) / norms.mean()),
        "equiangular": float((off + 1 / (n_classes - 1)).abs().mean()),
    }


def spectra(groups: Sequence[Moments]) -> dict[str, Any]:
    """Spectra whole, within and between classes, and neural collapse, with jackknife intervals.

    Of multi-label samples there is nothing within and between classes, which share samples: these
    spectra and neural collapse are None.

    Args:
        groups: moments of the samples, dealt to groups.
    """
    whole = groups[0]
    for group in groups[1:]:
        whole = whole + group
    without = [whole.without(group) for group in groups]
    found = {name: eigenvalues(matrix) for name, matrix in scatter(whole).items()}
    left = [
        {name: eigenvalues(matrix) for name, matrix in scatter(part).items()} for part in without
    ]
    document: dict[str, Any] = {
        name: {
            "eigenvalues": values,
            "participation_ratio": _with_interval(participation_ratio, name, found, left),
            "entropy_rank": _with_interval(entropy_rank, name, found, left),
            "components": {f"{f:g}": n_components(values, f) for f in VARIANCE},
        }
        for name, values in found.items()
    }
    if whole.overlapping:
        return document | dict.fromkeys(ONE_CLASS_EACH)
    collapsed, others = collapse(whole), [collapse(part) for part in without]
    document["collapse"] = {
        name: {"value": value, "interval": jackknife(value, [part[name] for part in others], 0)}
        for name, value in collapsed.items()
    }
    return document


def _with_interval(
    statistic: Callable[[Tensor], float],
    name: str,
    found: dict[str, Tensor],
    left: list[dict[str, Tensor]],
) -> dict[str, Any]:
    value = statistic(found[name])
    return {
        "value": value,
        "interval": jackknife(value, [statistic(part[name]) for part in left], 1, len(found[name])),
    }


def two_nn(z: Tensor) -> Tensor:
    """`ln(r2 / r1)` of every point, r1 and r2 the distances to its two nearest neighbours.

    Points with a copy of themselves in the sample say nothing and are left out. The intrinsic
    dimension is `(n − 1) / Σ ln(r2 / r1)`. Sources: Facco et al. 2017; the unbiased form Denti et
    al. 2022.

    Args:
        z: (n_samples, n_features).

    Returns:
        (n,) float64.
    """
    if len(z) < 3:
        return torch.zeros(0, dtype=torch.float64)
    # Most commands need no neighbours, and importing them takes most of a second.
    from sklearn.neighbors import NearestNeighbors

    points = z.double().numpy()
    distances, _ = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(points).kneighbors()
    nearest = torch.from_numpy(distances)
    # Distances are computed from squares: below this they are rounding, not distances.
    apart = nearest[:, 0] > 1e-7 * z.double().norm(dim=1).clamp(min=1e-30)
    return (nearest[apart, 1] / nearest[apart, 0]).log()


def dimension_of(ratios: Tensor) -> float:
    """Intrinsic dimension from `two_nn`; NaN with fewer than two points or no spread."""
    total = float(ratios.sum())
    return (len(ratios) - 1) / total if len(ratios) > 1 and total > 0 else torch.nan


def intrinsic(sample: ClassSamples, n_replicates: int, seed: int) -> dict[str, Any]:
    """TwoNN intrinsic dimension of all classes together and of each, from seeded subsamples.

    Args:
        sample: at most 5,000 of its samples are taken, and 1,000 of each class.
        n_replicates: of the bootstrap over the points' ratios.
        seed: of the subsamples and the bootstrap.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(sample.z), generator=generator)
    sizes = [min(NEIGHBOURS_OF, len(order)) // part for part in (1, 2, 4)]
    scales = [two_nn(sample.z[order[:n]]) for n in sizes]
    classes = []
    for z in sample.classes():
        taken = torch.randperm(len(z), generator=generator)[:NEIGHBOURS_OF_CLASS]
        classes.append(_dimension_document(two_nn(z[taken]), n_replicates, generator))
    return {
        **_dimension_document(scales[0], n_replicates, generator),
        "by_n_samples": {
            str(n): dimension_of(ratios) for n, ratios in zip(sizes, scales, strict=True)
        },
        "classes": classes,
    }


def _dimension_document(
    ratios: Tensor, n_replicates: int, generator: torch.Generator
) -> dict[str, Any]:
    value = dimension_of(ratios)
    found: dict[str, Any] = {"value": value, "interval": None, "n_samples": len(ratios)}
    if len(ratios) > 1:
        sums = resampled(len(ratios), n_replicates, generator).double() @ ratios
        found["interval"] = percentiles((len(ratios) - 1) / sums.clamp(min=1e-12))
    return found


def principal(z: Tensor, n_directions: int) -> tuple[Tensor, Tensor]:
    """Eigenvalues of the second moment of some samples, largest first, and leading directions.

    Args:
        z: (n_samples, n_features).
        n_directions: at most so many, and as many as are not zero.

    Returns:
        (min(n_samples, n_features),) and (n_features, n_directions) float64.
    """
    x = z.double()
    n, d = x.shape
    wide = n < d
    values, vectors = torch.linalg.eigh((x @ x.T if wide else x.T @ x) / n)
    values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
    used = (values[:n_directions] > values[0] * 1e-10).nonzero()[:, 0]
    directions = vectors[:, used]
    if wide:
        directions = x.T @ directions / (n * values[used]).sqrt()
    return values, directions


def class_subspaces(sample: ClassSamples, n_directions: int) -> dict[str, Any]:
    """Spectrum of each class, and the principal angles between the classes' subspaces.

    A class's subspace is spanned by the leading directions of its second-moment matrix. The
    overlap of two is the mean squared cosine of their principal angles (Björck and Golub 1973):
    0 for orthogonal, 1 for the same; two random subspaces have n_directions / n_features.

    Args:
        sample: samples of the classes; classes without samples, or only zeros, are null.
        n_directions: of each class's subspace.
    """
    spectra_found: list[dict[str, Any] | None] = []
    bases: list[Tensor | None] = []
    for z in sample.classes():
        if not len(z) or not bool(z.any()):
            spectra_found.append(None)
            bases.append(None)
            continue
        values, directions = principal(z, n_directions)
        spectra_found.append(
            {
                "eigenvalues": values[:CLASS_EIGENVALUES],
                "participation_ratio": participation_ratio(values),
                "entropy_rank": entropy_rank(values),
                "components": {f"{f:g}": n_components(values, f) for f in VARIANCE},
            }
        )
        bases.append(directions)
    overlap, smallest = _angles(bases)
    off = overlap[~torch.eye(len(bases), dtype=torch.bool)]
    shown = len(bases) <= MATRIX_CLASSES
    return {
        "spectra": spectra_found,
        "n_directions": n_directions,
        "mean_overlap": float(off.nanmean()),
        "chance": n_directions / sample.z.shape[1],
        "overlap": overlap if shown else None,
        "smallest_angle": smallest if shown else None,
    }


def _angles(bases: Sequence[Tensor | None]) -> tuple[Tensor, Tensor]:
    """Mean squared cosine and smallest angle (degrees) between all pairs of subspaces."""
    n = len(bases)
    overlap = torch.full((n, n), torch.nan, dtype=torch.float64)
    smallest = overlap.clone()
    for a, first in enumerate(bases):
        for b, second in enumerate(bases[: a + 1]):
            if first is None or second is None:
                continue
            cosines = torch.linalg.svdvals(first.T @ second).clamp(max=1)
            overlap[a, b] = overlap[b, a] = (cosines**2).mean()
            smallest[a, b] = smallest[b, a] = torch.rad2deg(torch.arccos(cosines[0]))
    return overlap, smallest
