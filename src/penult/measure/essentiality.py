"""Essentiality: what a class loses when its features, or all the others, are replaced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from penult.measure.class_samples import ClassSamples
from penult.measure.information import members
from penult.measure.uncertainty import mean_interval
from penult.network.head import Head
from penult.network.link import gives

NEAREST = 3
EDITS = ("drop", "keep")


@dataclass(frozen=True, eq=False)
class Replacements:
    """What a replacement may be made of.

    Attributes:
        mean: (n_features,) over the analysed samples.
        std: (n_features,).
        others: (n_samples, n_features), samples that values are borrowed from.
    """

    mean: Tensor
    std: Tensor
    others: Tensor


Mode = Callable[[Replacements, int, torch.Generator], Tensor]
MODES: dict[str, Mode] = {}


def _mode(function: Mode) -> Mode:
    MODES[function.__name__] = function
    return function


@_mode
def standard_normal(source: Replacements, n: int, generator: torch.Generator) -> Tensor:
    """Normal noise of mean 0 and variance 1, whatever the feature: the paper's."""
    return torch.randn(n, len(source.mean), generator=generator, dtype=torch.float32)


@_mode
def matched_noise(source: Replacements, n: int, generator: torch.Generator) -> Tensor:
    """Normal noise with each feature's own mean and variance."""
    return source.mean + source.std * torch.randn(
        n, len(source.mean), generator=generator, dtype=torch.float32
    )


@_mode
def mean(source: Replacements, n: int, generator: torch.Generator) -> Tensor:
    """Each feature's mean over all samples."""
    return source.mean.expand(n, -1)


@_mode
def permutation(source: Replacements, n: int, generator: torch.Generator) -> Tensor:
    """The values of another image, drawn at random from all classes: they stay plausible."""
    return source.others[torch.randint(len(source.others), (n,), generator=generator)]


def random_sets(n_classes: int, n_features: int, k: int, generator: torch.Generator) -> Tensor:
    """Control: k features of each class drawn from all, (n_classes, k)."""
    return torch.rand(n_classes, n_features, generator=generator, dtype=torch.float32).argsort(1)[
        :, :k
    ]


def matched_sets(sets: Tensor, class_sizes: Tensor, generator: torch.Generator) -> Tensor | None:
    """Control: for each feature of a class another, not of its set, of like activation.

    One of the three nearest in mean |z| over the class that are still free, drawn at random.

    Args:
        sets: (n_classes, k).
        class_sizes: (n_classes, n_features), mean |z| of each class.

    Returns:
        (n_classes, k), or None where too few features are left.
    """
    n_classes, k = sets.shape
    n_features = class_sizes.shape[1]
    if 2 * k > n_features:
        return None
    taken = members(sets, n_features)
    rows = torch.arange(n_classes)
    found = []
    for i in range(k):
        apart = (class_sizes - class_sizes.gather(1, sets[:, i : i + 1])).abs()
        near = apart.masked_fill(taken, torch.inf).topk(min(NEAREST, n_features - k - i), 1, False)
        pick = torch.randint(near.indices.shape[1], (n_classes,), generator=generator)
        chosen = near.indices[rows, pick]
        taken[rows, chosen] = True
        found.append(chosen)
    return torch.stack(found, 1)


class Edits:
    """Logits of samples whose features, of one set or another, are replaced.

    The head is linear, so a set of k features moves the logits by k columns of its weight: the two
    products with the whole weight are made once for all sets.

    Args:
        z: (n_samples, n_features).
        replacement: (n_samples, n_features).
        head: the dense head.
    """

    def __init__(self, z: Tensor, replacement: Tensor, head: Head) -> None:
        self._moved = replacement - z
        self._weight = head.weight
        self._own, self._instead = head(z), head(replacement)

    def logits(self, features: Tensor) -> dict[str, Tensor]:
        """Logits (n_samples, n_classes) by edit.

        Args:
            features: (k,) of the set: "drop" replaces them, "keep" all the others.
        """
        part = self._moved[:, features] @ self._weight[:, features].T
        return {"drop": self._own + part, "keep": self._instead - part}


@dataclass(eq=False)
class _Tally:
    """Right answers by sample and by seed and class, of one kind of set under one edit.

    `mistaken` (n_seeds, n_classes) counts samples of other classes that are taken for the class.
    """

    by_sample: Tensor
    by_seed: Tensor
    mistaken: Tensor

    def document(self, sample: ClassSamples) -> dict[str, Any]:
        classes = self.by_seed.mean(0) / sample.counts
        overall = self.by_seed.sum(1) / sample.counts.sum()
        return {
            "mean": float(overall.mean()),
            "interval": mean_interval(
                sample.by_sample(self.by_sample / len(self.by_seed)), overall
            ),
            "mistaken": float(self.mistaken.mean(0).sum() / sample.counts.sum()),
            "classes": classes,
        }


def essentiality(
    sample: ClassSamples,
    head: Head,
    source: Replacements,
    class_sizes: Tensor,
    sets: Mapping[int, Tensor],
    k: int,
    n_seeds: int,
    seed: int,
) -> dict[str, Any]:
    """Accuracy when features are replaced: by every mode at k, by the mean at every size.

    Of multi-label data: how many samples of a class are still given it.

    Args:
        sample: evaluation samples.
        head: the dense head.
        source: what replacements are made of.
        class_sizes: (n_classes, n_features), mean |z| of each class, for the matched control.
        sets: by size, (n_classes, size) influential features of each class.
        k: the size at which all modes are compared.
        n_seeds: of replacements and controls.
        seed: the first.
    """
    chosen = _kinds(sets[k], class_sizes, n_seeds, seed)
    replaced = {mode: _by_kind(sample, head, source, chosen, mode, n_seeds, seed) for mode in MODES}
    curves = []
    for size, of_size in sets.items():
        kinds = _kinds(of_size, class_sizes, n_seeds, seed)
        found = _by_kind(sample, head, source, kinds, "mean", n_seeds, seed)
        for kind in found.values():
            for edit in EDITS:
                del kind[edit]["classes"]
        curves.append({"k": size, **found})
    untouched = torch.cat([gives(head(z), c, head.link) for c, z in enumerate(sample.classes())])
    activation = {
        kind: float(torch.stack([class_sizes.gather(1, s).mean() for s in found]).mean())
        for kind, found in chosen.items()
    }
    return {
        "k": k,
        "n_seeds": n_seeds,
        "dense_accuracy": float(untouched.double().mean()),
        "activation": activation,
        "replaced": replaced,
        "curves": curves,
    }


def _kinds(
    influential: Tensor, class_sizes: Tensor, n_seeds: int, seed: int
) -> dict[str, list[Tensor]]:
    """The sets and their controls, one for each seed; the influential ones are the same for all."""
    n_classes, n_features = class_sizes.shape
    k = influential.shape[1]
    found: dict[str, list[Tensor]] = {"influential": [influential], "random": [], "matched": []}
    for s in range(n_seeds):
        generator = torch.Generator().manual_seed(seed + s)
        found["random"].append(random_sets(n_classes, n_features, k, generator))
        matched = matched_sets(influential, class_sizes, generator)
        if matched is not None:
            found["matched"].append(matched)
    return {kind: sets for kind, sets in found.items() if sets}


def _by_kind(
    sample: ClassSamples,
    head: Head,
    source: Replacements,
    kinds: Mapping[str, list[Tensor]],
    mode: str,
    n_seeds: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    # The mean is the same for every seed: where the sets are too, one seed is all of them.
    seeds = {kind: len(sets) if mode == "mean" else n_seeds for kind, sets in kinds.items()}
    shapes = {kind: (n, sample.n_classes) for kind, n in seeds.items()}
    tallies = {
        (kind, edit): _Tally(
            torch.zeros(len(sample.rows), dtype=torch.float64),
            torch.zeros(shape, dtype=torch.float64),
            torch.zeros(shape, dtype=torch.float64),
        )
        for kind, shape in shapes.items()
        for edit in EDITS
    }
    stops = sample.counts.cumsum(0).tolist()
    for s in range(max(seeds.values())):
        generator = torch.Generator().manual_seed(seed + s)
        for c, rows in enumerate(sample.members()):
            n = len(rows)
            both = torch.cat([sample.z[rows], sample.others(rows, n, generator)])
            edits = Edits(both, MODES[mode](source, len(both), generator), head)
            for kind, sets in kinds.items():
                if s >= seeds[kind]:
                    continue
                for edit, logits in edits.logits(sets[s % len(sets)][c]).items():
                    taken = gives(logits, c, head.link)
                    tally = tallies[kind, edit]
                    tally.by_sample[stops[c] - n : stops[c]] += taken[:n]
                    tally.by_seed[s, c] = taken[:n].sum()
                    tally.mistaken[s, c] = taken[n:].sum()
    return {kind: {edit: tallies[kind, edit].document(sample) for edit in EDITS} for kind in kinds}
