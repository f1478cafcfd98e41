"""All measures of some features, or of a run, as one document."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from penult.errors import InputError, NotWrittenError
from penult.features.features import Features
from penult.features.influence import Evidence, influence, sizes_within
from penult.heads.sparse_head import SparseHead
from penult.heads.subspaces import top_k
from penult.measure.class_samples import MAX_ELEMENTS, ClassSamples
from penult.measure.decision import decision
from penult.measure.dimension import class_subspaces, intrinsic, spectra
from penult.measure.essentiality import Replacements, essentiality
from penult.measure.faithfulness import faithfulness
from penult.measure.information import confusions, overlap
from penult.measure.one_against_rest import NOT_MEANT, TOO_MANY, decisions
from penult.measure.profile import Profile
from penult.measure.selectivity import selectivity
from penult.measure.stability import resampled_sets, stability
from penult.measure.uncertainty import plain
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.run import Run
from penult.storage import write_json

FORMAT = "penult-measures/1"
FRACTIONS = (0.25, 0.5, 0.75, 0.9)
NAMED = 100
# Every edit is made to all of them; more would narrow intervals that are narrow enough.
EDITED_SAMPLES = 10_000
NEED_HEAD = ("dimension.decision", "essentiality", "faithfulness", "stability.contribution")
NO_HEAD = "no head reads this layer"


@dataclass(frozen=True)
class Settings:
    """What is measured, and how carefully.

    Attributes:
        fractions: of the activation, for Ψ; in (0, 1).
        k: features per class of the sets that are compared; n_features where there are fewer.
        tolerance: fraction of accuracy that the smallest decision may lose.
        seed: of all that is drawn.
        n_replicates: bootstrap samples.
        n_seeds: of replacements and random controls.
    """

    fractions: tuple[float, ...] = FRACTIONS
    k: int = 5
    tolerance: float = 0.005
    seed: int = 0
    n_replicates: int = 200
    n_seeds: int = 10

    def __post_init__(self) -> None:
        for fraction in self.fractions:
            if not 0 < fraction < 1:
                raise InputError(f"a fraction for Ψ must lie in (0, 1), found {fraction:g}")
        if self.seed < 0:
            raise InputError(f"the seed must be 0 or more, found {self.seed}")
        if self.k < 1:
            raise InputError(f"k must be at least 1, found {self.k}")
        if not 0 < self.tolerance < 1:
            raise InputError(f"the tolerance must lie in (0, 1), found {self.tolerance:g}")
        if self.n_replicates < 2 or self.n_seeds < 1:
            raise InputError(
                "expected at least 2 bootstrap replicates and 1 seed, found "
                f"{self.n_replicates} and {self.n_seeds}"
            )

    def document(self) -> dict[str, Any]:
        """As `measures.json` holds them."""
        return {**asdict(self), "fractions": list(self.fractions)}


def measure_features(
    features: Features,
    head: Head | None = None,
    evaluation: Features | None = None,
    *,
    heads: Mapping[int, SparseHead] | None = None,
    settings: Settings | None = None,
    layer: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All measures of a layer's features: the document of `measures.json`.

    Args:
        features: of the analysed samples, read block by block.
        head: the linear map that reads them; None for a layer that no head reads: what needs one is
            then null and named in `left_out`.
        evaluation: what accuracies and confusions are measured on; `features` where None.
        heads: refitted sparse heads by k, for the decision's smallest k.
        settings: fractions, sizes, seeds.
        layer: name of the layer, for the document.
        progress: called with (steps done, steps in all).

    Raises:
        InputError: settings out of range, evaluation features that do not fit.
    """
    settings = settings or Settings()
    held_out = features if evaluation is None else evaluation.matched(features)
    names = features.names()
    heard = progress or (lambda done, total: None)
    k = min(settings.k, features.n_features)
    ks = sorted({*sizes_within(features.n_features), k})
    profile = Profile.of(features, len(names), ks, settings.fractions, settings.seed)
    evidence = _evidence(profile, head, len(names), settings.seed)
    sets = {size: top_k(influence("frequency", evidence, size), size) for size in ks}
    influential = {size: s.indices.view(len(names), size) for size, s in sets.items()}
    sample = ClassSamples.of(features, len(names), seed=settings.seed)
    document = _about(features, held_out, names, profile, sample, layer, settings)
    heard(1, 4)
    replicates = resampled_sets(sample, k, settings.n_replicates, settings.seed)
    document |= _of_features(profile, sample, influential[k], replicates, settings)
    heard(2, 4)
    document["overlap"] = overlap(
        influence("frequency", evidence, k),
        influential[k],
        replicates,
        profile.counts,
        None if features.multi_label else confusions(held_out, len(names), head),
        names,
        settings.seed,
    )
    heard(3, 4)
    document |= {"essentiality": None, "faithfulness": None}
    if features.multi_label:
        document["left_out"] |= NOT_MEANT
    elif document["overlap"]["confusion"] is None:
        document["left_out"]["overlap.confusion"] = "the network's own classes are not known"
    if head is None:
        need = (*NEED_HEAD, "decisions") if features.multi_label else NEED_HEAD
        document["left_out"] |= dict.fromkeys(need, NO_HEAD)
    else:
        _with_head(document, held_out, head, heads or {}, profile, evidence, influential, settings)
        by_weight = top_k(influence("contribution", evidence, k), k).indices.view(-1, k)
        drawn = resampled_sets(sample, k, settings.n_replicates, settings.seed, head.weight)
        stable = stability(by_weight, drawn, profile.counts, features.n_features)
        document["stability"]["contribution"] = stable
    heard(4, 4)
    found: dict[str, Any] = plain(document)
    return found


def _of_features(
    profile: Profile, sample: ClassSamples, sets: Tensor, replicates: Tensor, settings: Settings
) -> dict[str, Any]:
    """The families that need neither a head nor the network's classes."""
    n_replicates, seed = settings.n_replicates, settings.seed
    return {
        "selectivity": selectivity(
            profile.shares,
            torch.stack([group.counts for group in profile.groups]),
            profile.group_sizes,
            n_replicates,
            seed,
        ),
        "overlap": None,
        "dimension": {
            **spectra(profile.groups),
            "intrinsic": intrinsic(sample, n_replicates, seed),
            "classes": class_subspaces(sample, sets.shape[1]),
            "decision": None,
        },
        "stability": {
            "frequency": stability(sets, replicates, profile.counts, len(profile.low)),
            "contribution": None,
        },
    }


def measure_run(
    run: Run, settings: Settings | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """All measures of a run's penultimate layer; also written to its `measures.json`."""
    features = run.train()
    head = features.require_head()
    rows = run.summary()["path"]
    heads = {row["k"]: run.head(row["select"], row["k"]) for row in rows}
    document = measure_features(
        features,
        head,
        run.held_out(),
        heads=heads,
        settings=settings,
        layer=head.name,
        progress=progress,
    )
    try:
        with run.writing():
            write_json(run.measures_file, document)
    except NotWrittenError as error:
        warnings.warn(f"the measures are not kept in the run: {error}", stacklevel=2)
    return document


def _evidence(profile: Profile, head: Head | None, n_classes: int, seed: int) -> Evidence:
    """What the scores read; without a head the weight is zero, and `frequency` needs none."""
    weight = profile.low.new_zeros(n_classes, len(profile.low)) if head is None else head.weight
    return Evidence(weight, profile.moments, profile.top_counts, seed)


def _about(
    features: Features,
    held_out: Features,
    names: tuple[str, ...],
    profile: Profile,
    sample: ClassSamples,
    layer: str,
    settings: Settings,
) -> dict[str, Any]:
    counts = profile.counts
    dead = profile.dead
    return {
        "format": FORMAT,
        "layer": layer,
        "n_samples": features.n_samples,
        "n_features": features.n_features,
        "n_classes": len(names),
        "link": features.link,
        "class_names": list(names),
        "class_counts": counts,
        "evaluated_on": "train" if held_out is features else "eval",
        "n_eval_samples": held_out.n_samples,
        "settings": settings.document(),
        "sample": {"n_samples": len(sample.z), "n_eval_samples": None, "seed": settings.seed},
        "share": "|z|" if profile.negative else "z",
        "dead": {"n": len(dead), "features": dead[:NAMED]},
        "n_silent": profile.n_silent,
        "few_samples": {
            "none": _named(names, counts == 0),
            "one": _named(names, counts == 1),
        },
        "left_out": {},
    }


def _named(names: tuple[str, ...], which: Tensor) -> list[str]:
    return [names[c] for c in which.nonzero()[:NAMED, 0].tolist()]


def _with_head(
    document: dict[str, Any],
    held_out: Features,
    head: Head,
    heads: Mapping[int, SparseHead],
    profile: Profile,
    evidence: Evidence,
    sets: Mapping[int, Tensor],
    settings: Settings,
) -> None:
    moments = profile.moments
    centre = moments.mean()
    spread = moments.covariance().diagonal().clamp(min=0).sqrt()
    k = document["overlap"]["k"]
    vouches = document["evaluated_on"] == "eval"
    document["dimension"]["decision"] = decision(
        moments, head, held_out, heads, settings.tolerance, vouches=vouches
    )
    if not vouches:
        document["left_out"]["dimension.decision confident"] = (
            "there are no evaluation samples: those that heads were fitted to vouch for nothing"
        )
    if head.multi_label:
        document["decisions"] = decisions(head, held_out)
        if document["decisions"] is None:
            document["left_out"]["decisions"] = TOO_MANY
    if not heads:
        document["left_out"]["dimension.decision.k"] = "no refitted sparse heads were given"
    sample = ClassSamples.of(
        held_out,
        moments.n_classes,
        settings.seed,
        min(MAX_ELEMENTS, EDITED_SAMPLES * held_out.n_features),
    )
    document["sample"]["n_eval_samples"] = len(sample.z)
    document["essentiality"] = essentiality(
        sample,
        head,
        Replacements(centre.float(), spread.float(), sample.z),
        profile.class_sizes,
        sets,
        k,
        settings.n_seeds,
        settings.seed,
    )
    document["faithfulness"] = faithfulness(
        sample, head, evidence, centre.float(), k, settings.n_seeds
    )
