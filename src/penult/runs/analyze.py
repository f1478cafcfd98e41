"""The main job: from a network and images, or from features, to a complete run folder."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from penult.data.classes import distinct
from penult.data.open import ImageData
from penult.data.source import ImageSource, Pass
from penult.data.tokens import Preparation
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.collect import doubts, features_shards, network_shards
from penult.features.features import Features
from penult.features.influence import SCORES, Top, check_top, sizes_within
from penult.features.shard_folder import require_space
from penult.heads.judge import Judge
from penult.network.head import Head
from penult.progress import Progress
from penult.runs.calls import Calls, few_samples
from penult.runs.decisions import Decisions
from penult.runs.filling import Fill, Filled, fill_here, fill_parts
from penult.runs.fitted import Clock, complete_path
from penult.runs.parts import Part, Parts
from penult.runs.recheck import recheck
from penult.runs.restricted import Restricted, judge_of
from penult.runs.run import SUMMARY_FORMAT, Run, claim
from penult.runs.sums import Summing
from penult.runs.trust import remember
from penult.runs.views import Views
from penult.storage import write_tensors
from penult.user_code import code_digest

MOST_VIEWS = 99


@dataclass(frozen=True)
class Options:
    """What the analysis itself can be told, apart from how the network is run.

    Attributes:
        seed: of the random control.
        top: what a sample takes in the `frequency` score: a number of features, a fraction of the
            activation, or None for as many as the subspace keeps.
        overwrite: replace a run of something else.
        device: where the sums over the features are computed.
        fit: also fit a path of sparse heads, see `penult.runs.fitted.complete_path`.
        time_limit: seconds from the start, after which no further head is fitted; the pass over
            the data is never cut short. By default further sizes may take a few minutes.
        views: further passes over the analysed images, cropped and mirrored as far as the network's
            accuracy survives it, that heads are fitted to; of images only.
    """

    seed: int = 0
    top: Top | None = None
    overwrite: bool = False
    device: str = "cpu"
    fit: bool = True
    time_limit: float | None = None
    views: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.views <= MOST_VIEWS:
            raise InputError(f"views must lie in [0, {MOST_VIEWS}], found {self.views}")


def analyze_network(
    model: nn.Module,
    head: Head,
    data: ImageData,
    evaluation: ImageData | None,
    out: str | Path,
    *,
    also: ImageData | None = None,
    transform: Preparation,
    class_names: Sequence[str],
    network: Mapping[str, Any],
    how: Pass | None = None,
    options: Options | None = None,
    progress: Callable[[str], Progress] | None = None,
    say: Callable[[str], None] | None = None,
    fill: Fill | None = None,
) -> Run:
    """Analyse a network on images; goes on where an interrupted analysis stopped.

    Args:
        model: the network, on the device where it is to run.
        head: its final linear map, from `find_head`.
        data: labelled images; unlabelled where `how.labels` is "predicted".
        evaluation: images on which accuracies are measured; `data` itself where None.
        out: the run folder.
        also: further images, whose labels are not read: heads are fitted to them as well, and
            never judged on them.
        transform: preprocessing of the images, or of texts.
        class_names: in the order of the logits, from `align_classes`.
        network: what `run.json` says of the network; `fingerprint` tells it from others.
        how: batch size, dtype and so on.
        options: seed, frequency's top and so on.
        progress: called with the name of a phase; gives the function that hears of its progress.
        say: hears what each further size of the path will take, before it is fitted.
        fill: what passes the images through the network: this process where None, or those of a
            cluster, see `penult.cluster`.

    Raises:
        InputError: see `collect` and `claim`.
    """
    how, options = how or Pass(), options or Options()
    clock = Clock(options.time_limit)

    def part(images: ImageData, name: str, how: Pass) -> Part:
        def begun(first: int, stop: int | None = None) -> Any:
            heard = progress(name) if progress else None
            images_of = ImageSource(images, transform, how)
            return network_shards(model, images_of, head, how, heard)(first, stop)

        about = images.describe()
        if ":" in str(about.get("source", "")):
            about["code"] = code_digest(str(about["source"]))
            remember(str(about["source"]))
        return Part(about, images.fingerprint, len(images), begun)

    def look() -> dict[str, str]:
        found = doubts(model, ImageSource(data, transform, how), head, how)
        for text in found.values():
            warnings.warn(text, stacklevel=2)
        return found

    remember(str(network["spec"]), network.get("set", ()))
    identity = {
        "network": network["fingerprint"],
        "network code": code_digest(str(network["spec"])),
        "transform": transform.fingerprint,
        **how.identity(),
    }
    about = {
        "network": {**network, "code": code_digest(str(network["spec"]))},
        "transform": transform.to_json(),
    }
    predicted = replace(how, labels="predicted")
    views = None
    if options.views:
        images = _of_images(transform, head)
        views = Views(options.views, model, head, data, images, how, options.seed, progress)
    parts = Parts(
        part(data, "train", how),
        part(evaluation, "eval", how) if evaluation is not None else None,
        part(also, "also", predicted) if also is not None else None,
        views,
    )

    def still(run: Run) -> None:
        for name, images in (("train", data), ("eval", evaluation)):
            if images is not None:
                recheck(run, name, model, head, ImageSource(images, transform, how), progress)

    parts = replace(parts, still=still, look=look)
    run = _analyze(
        out, head, class_names, parts, identity, about, how.store, options, progress, fill
    )
    if how.strict:
        _refuse_faults(run)
    if options.fit:
        complete_path(run, clock, progress=progress, say=say)
    return run


def _of_images(transform: Preparation, head: Head) -> Transform:
    """A preparation by which views are made; refused where they cannot be judged afterwards."""
    if not isinstance(transform, Transform):
        raise InputError("--views are images cropped and mirrored, and these are texts")
    if head.multi_label:
        raise InputError(
            "--views are kept as far as the share of right classes survives them, which "
            "samples with several labels do not have: leave --views out"
        )
    return transform


def _refuse_faults(run: Run) -> None:
    """Refuse a run that left samples out, when it was made by a pass that was not strict."""
    for name, found in run.summary()["faults"].items():
        if found["n_faults"]:
            path, reason = found["named"][0]
            raise InputError(f"{path}: {reason} (left out of {name} by an earlier, not strict run)")


def analyze_features(
    features: Features,
    evaluation: Features | None,
    out: str | Path,
    options: Options | None = None,
    progress: Callable[[str], Progress] | None = None,
    say: Callable[[str], None] | None = None,
    *,
    also: Features | None = None,
) -> Run:
    """Analyse features that are already at hand, with the dense head they come with.

    Args:
        features: with a head.
        evaluation: features of other samples of the same network, for accuracies.
        out: the run folder.
        options: seed, frequency's top and so on.
        progress: called with the name of a phase; gives the function that hears of its progress.
        say: hears what each further size of the path will take, before it is fitted.
        also: further features of the same network, whose labels are not read: heads are fitted to
            them as well, and never judged on them.

    Raises:
        InputError: no head; evaluation or further features of another size; see `claim`.
    """
    options = options or Options()
    clock = Clock(options.time_limit)
    head = features.require_head()
    if options.views:
        raise InputError("views are passes over images, and these are features")
    if evaluation is not None:
        evaluation = evaluation.matched(features)

    def part(found: Features, name: str) -> Part:
        about = {"kind": "features", "n_samples": found.n_samples}

        def begun(first: int, stop: int | None = None) -> Any:
            heard = progress(name) if progress else lambda done, total: None
            heard(0, found.n_samples)
            done = 0
            for block, faults in features_shards(found)(first, stop):
                yield block, faults
                done += len(block.labels)
                heard(done, found.n_samples)

        return Part(about, found.fingerprint(), found.n_samples, begun)

    parts = Parts(
        part(features, "train"),
        part(evaluation, "eval") if evaluation is not None else None,
        part(also, "also") if also is not None else None,
    )
    names, store = distinct(features.names()), torch.float32
    run = _analyze(out, head, names, parts, {}, {}, store, options, progress)
    if options.fit:
        complete_path(run, clock, progress=progress, say=say)
    return run


def _analyze(
    out: str | Path,
    head: Head,
    class_names: Sequence[str],
    parts: Parts,
    identity: Mapping[str, Any],
    about: Mapping[str, Any],
    store: torch.dtype,
    options: Options,
    progress: Callable[[str], Progress] | None,
    fill: Fill | None = None,
) -> Run:
    if not 0 <= options.seed < 2**63:
        raise InputError(f"the seed must lie in [0, 2**63), found {options.seed}")
    if options.top is not None:
        check_top(options.top, head.n_features)
    whole = {
        **identity,
        "head": head.fingerprint(),
        **parts.identity(),
        "class names": hashlib.blake2b("\n".join(class_names).encode(), digest_size=8).hexdigest(),
        "seed": options.seed,
        "frequency top": options.top,
        "fit": options.fit,
    }
    described = {
        "head": {
            "name": head.name,
            "n_classes": head.n_classes,
            "n_features": head.n_features,
            "reduce": head.reduce,
            "verified": head.verified,
            "kept": None if head.kept is None else list(head.kept),
            "n_outputs": head.layer_classes,
            "link": head.link,
        },
        **parts.described(),
        **about,
    }
    with claim(out, whole, described, overwrite=options.overwrite) as run:
        if run.complete:
            if parts.still is not None:
                parts.still(run)
            return run
        require_space(run.folder, parts.n_samples(), [head.n_features], store)
        doubtful = parts.look()
        summing = Summing(head, options.seed, options.top, options.device)
        found = fill_parts(run, head, class_names, parts, whole, store, summing, fill or fill_here)
        evidence = found.evidence
        said = _warnings(found.calls, class_names, evidence.moments.counts)
        evidence.moments.save(run.moments_file)
        judge = judge_of(run, found.n_further())
        _finish(run, head, class_names, found, judge, said, progress, doubtful)
    return run


def _finish(
    run: Run,
    head: Head,
    class_names: Sequence[str],
    filled: Filled,
    judge: Judge,
    said: list[str],
    progress: Callable[[str], Progress] | None,
    doubtful: dict[str, str],
) -> None:
    """Score, restrict the dense weights, measure, and write all of it."""
    evidence, calls, faults = filled.evidence, filled.calls, filled.faults
    restricted = Restricted.of(evidence, head, progress("scores") if progress else None)
    write_tensors(run.influence_file, restricted.scores, {"format": "penult-influence/1"})
    heard = progress("measuring the scores") if progress else None
    measured = restricted.measured(run.train(), run.held_out(), evidence, judge, heard)
    dense = calls["eval" if "eval" in calls else "train"].document(list(class_names))
    for (name, k), sparse in restricted.heads.items():
        notes = {
            "select": name,
            "refit": "none",
            "accuracy": repr(measured[name, k].after),
            "dense_accuracy": repr(dense["accuracy"]),
        }
        sparse.save(run.head_file(name, k), class_names, notes)
    document = {
        "format": SUMMARY_FORMAT,
        "network": run.about["network"]["spec"] if "network" in run.about else None,
        "n_samples": evidence.moments.n_samples,
        "n_classes": head.n_classes,
        "n_outputs": head.layer_classes,
        "link": head.link,
        "n_features": head.n_features,
        "class_names": list(class_names),
        "class_counts": evidence.moments.counts.tolist(),
        "head": head.name,
        "evaluated_on": "eval" if "eval" in faults else "train",
        "n_eval_samples": judge.n_samples,
        "judge": judge.document(),
        "dense": {**dense, "train_accuracy": calls["train"].accuracy},
        "doubts": doubtful,
        "warnings": [*doubtful.values(), *said],
        "faults": {name: found.to_json() for name, found in faults.items()},
        "notes": {
            name: (run.about[part] or {}).get("notes", [])
            for name, part in (("train", "data"), ("eval", "evaluation"), ("also", "also"))
            if part in run.about
        },
        **({"n_also": filled.n_also} if filled.n_also else {}),
        **({} if filled.views is None else {"views": filled.views}),
        "path": [],
        "influence": {
            name: {
                str(k): {
                    "accuracy": measured[name, k].after,
                    "counts": asdict(measured[name, k]),
                    "classes": {
                        label: kept.tolist()
                        for label, kept in zip(
                            class_names, restricted.subspaces[name, k], strict=True
                        )
                    },
                }
                for k in sizes_within(head.n_features)
            }
            for name in SCORES
        },
    }
    run.finish(document)


def _warnings(
    calls: Mapping[str, Calls | Decisions], class_names: Sequence[str], counts: Tensor
) -> list[str]:
    """What a person should know before anything is concluded."""
    parts = {"train": "analysed samples", "eval": "evaluation samples"}
    found = [
        f"{parts[part]}: {said}"
        for part, samples in calls.items()
        for said in samples.warnings(class_names)
    ]
    few = few_samples(counts)
    return found if few is None else [*found, few]
