"""Faithfulness: does a score put first the features that the decision rests on?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.features.influence import KS, SCORES, Evidence, influence
from penult.measure.class_samples import ClassSamples
from penult.measure.uncertainty import mean_interval
from penult.network.head import Head
from penult.network.link import gives

STEPS = 64


def curve_steps(n_features: int) -> Tensor:
    """Numbers of features at which the curves are taken: all up to 64, else 64 and the small."""
    even = torch.linspace(0, n_features, min(n_features, STEPS) + 1).round().long()
    return torch.tensor(sorted({*even.tolist(), *(k for k in KS if k < n_features)}))


@dataclass(frozen=True, eq=False)
class Curves:
    """Deletion and insertion of features in the order of a score.

    Attributes:
        steps: (n_steps,) numbers of features deleted or inserted, from 0 to n_features.
        deletion, insertion: (n_samples, n_steps) bool, whether the sample is right; of multi-label
            data a row for each class of each sample, whether it is still given the class.
    """

    steps: Tensor
    deletion: Tensor
    insertion: Tensor

    def areas(self, right: Tensor) -> Tensor:
        """Area under each sample's curve by trapezoids, (n_samples,), in [0, 1]."""
        widths = self.steps.diff().double() / int(self.steps[-1])
        values = right.double()
        return ((values[:, 1:] + values[:, :-1]) / 2) @ widths


def edit_curves(sample: ClassSamples, head: Head, order: Tensor, baseline: Tensor) -> Curves:
    """Curves of every sample: its class's features deleted or inserted, most influential first.

    A deleted feature takes its baseline value; insertion begins with all at the baseline.
    Source: Petsiuk, Das and Saenko 2018, with features in the place of pixels.

    Args:
        sample: evaluation samples.
        head: the dense head.
        order: (n_classes, n_features), the features of each class, most influential first.
        baseline: (n_features,).
    """
    steps = curve_steps(len(baseline))
    nothing = head(baseline[None])
    deletion, insertion = [], []
    for c, z in enumerate(sample.classes()):
        moved = (z - baseline)[:, order[c]]
        weight = head.weight.T[order[c]]
        whole, part = head(z), torch.zeros(len(z), head.n_classes, dtype=torch.float32)
        deleted = torch.empty(len(z), len(steps), dtype=torch.bool)
        inserted = torch.empty_like(deleted)
        last = 0
        for i, step in enumerate(steps.tolist()):
            part += moved[:, last:step] @ weight[last:step]
            last = step
            deleted[:, i] = gives(whole - part, c, head.link)
            inserted[:, i] = gives(nothing + part, c, head.link)
        deletion.append(deleted)
        insertion.append(inserted)
    return Curves(steps, torch.cat(deletion), torch.cat(insertion))


def faithfulness(
    sample: ClassSamples, head: Head, evidence: Evidence, baseline: Tensor, k: int, n_seeds: int
) -> dict[str, Any]:
    """Deletion and insertion curves and their areas for every score of the registry.

    Args:
        sample: evaluation samples.
        head: the dense head.
        evidence: what the scores are made of; its seed is the first of the random control's.
        baseline: (n_features,), the mean features.
        k: for the scores that depend on it.
        n_seeds: of the random control.
    """
    steps = curve_steps(len(baseline))
    scores = {}
    first = evidence.seed
    for name in SCORES:
        curves = []
        for s in range(n_seeds if name == "random" else 1):
            evidence.seed = first + s
            ranked = influence(name, evidence, k).sort(dim=1, descending=True, stable=True)
            curves.append(edit_curves(sample, head, ranked.indices, baseline))
        evidence.seed = first
        scores[name] = {
            "deletion": _document(sample, [(c, c.deletion) for c in curves]),
            "insertion": _document(sample, [(c, c.insertion) for c in curves]),
        }
    return {"k": k, "steps": steps, "scores": scores}


def _document(sample: ClassSamples, found: list[tuple[Curves, Tensor]]) -> dict[str, Any]:
    areas = torch.stack([curves.areas(right) for curves, right in found])
    curve = torch.stack([right.double().mean(0) for _, right in found]).mean(0)
    return {
        "area": float(areas.mean()),
        "interval": mean_interval(sample.by_sample(areas.mean(0)), areas.mean(1)),
        "curve": curve,
    }
