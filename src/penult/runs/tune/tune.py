"""Tune: repair what a sparse head lost, by training the network through it, or the head alone."""

from __future__ import annotations

import copy
import hashlib
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.utils import parametrize

from penult.data.augmentation import augmented, surviving
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.draw import ranks
from penult.features.features import Features
from penult.heads.refit.softmax import refit_softmax
from penult.heads.sparse_head import SparseHead, accuracies
from penult.network.onnx_file import OnnxNetwork
from penult.network.replace import Replacement, replace_head
from penult.progress import Progress
from penult.runs.reopen import (
    Chosen,
    Places,
    holds_texts,
    reopen_images,
    reopen_network,
)
from penult.runs.run import Run
from penult.runs.tune.folder import Tuned, claim_tuned, hash_of, selection, tuned_folder
from penult.runs.tune.training import Images, Training, TrainingPlan, correct
from penult.storage import write_json, write_tensors
from penult.text import some

HELD_OUT = 0.1
HELD_OUT_MOST = 5000
AUGMENT_SAMPLES = 2048


def tune(
    run: Run | str | Path,
    k: int,
    *,
    select: str | None = None,
    head_only: bool = False,
    recipe: TrainingPlan | None = None,
    sources: Places | None = None,
    device: torch.device | str = "cpu",
    overwrite: bool = False,
    progress: Callable[[str], Progress] | None = None,
) -> Tuned:
    """Train the run's network through one of its sparse heads; goes on where it was interrupted.

    The head is first refitted on the run's features, a convex problem; then the whole network is
    trained with it for a few epochs on the run's images, a tenth of them held out to choose the
    epoch. The evaluation data is measured before and after and chooses nothing. The result goes to
    `tuned/<select>-k<k>` of the run (`…-head` for the head alone); nothing else is changed.

    Args:
        run: a finished run, or its folder.
        k: features per class of the head.
        select: which of the run's heads of this size; the fitted one where None, or without
            one that which is best on the analysed data.
        head_only: leave the network as it is, which needs no images.
        recipe: loss, epochs and so on.
        sources: where the network and the images are, if not where the run found them.
        device: where the network is trained.
        overwrite: replace what was tuned with other options.
        progress: called with "training", "eval"; gives the function that hears of the progress.

    Raises:
        InputError: no such head; a run without network or images; images or network that are gone
            or no longer the same; another process that tunes the same; other options than those of
            what is there already.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    recipe, sources, device = recipe or TrainingPlan(), sources or Places(), torch.device(device)
    run.train().require_one_label("training through a sparse head")
    select = selection(run, k, select)
    if not head_only and "network" not in run.about:
        raise InputError(
            f"{run.folder} was made from features and holds no network to train: tune the head "
            "alone with --head-only"
        )
    folder = tuned_folder(run, select, k, head_only)
    identity = {
        "head": hash_of(run.head_file(select, k)),
        "run": hashlib.blake2b(repr(run.about["identity"]).encode(), digest_size=8).hexdigest(),
        **recipe.to_json(),
        "device": device.type,
    }
    about = {"select": select, "k": k, "head_only": head_only, "options": recipe.to_json()}
    with claim_tuned(folder, identity, about, overwrite) as document:
        if document["complete"]:
            return Tuned(folder, document)
        job = _Job(run, folder, document, recipe, device, progress)
        sparse = run.head(select, k)
        found = job.head_alone(sparse) if head_only else job.whole(sparse, sources)
        document |= {**found, "complete": True}
        write_json(folder / "tune.json", document)
        (folder / "checkpoint.safetensors").unlink(missing_ok=True)
    return Tuned(folder, document)


class _Job:
    """One tuning: the run, what it is told, and where the result goes."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        document: dict[str, Any],
        recipe: TrainingPlan,
        device: torch.device,
        progress: Callable[[str], Progress] | None,
    ) -> None:
        self.run, self.folder, self.document = run, folder, document
        self.recipe, self.device, self.progress = recipe, device, progress
        self.features, self.evaluation = run.train(), run.evaluation()
        self.dense = self.features.require_head()
        labels = self.features.labels()
        self.kept, self.held = split(labels, recipe.seed)

    def head_alone(self, sparse: SparseHead) -> dict[str, Any]:
        begun = time.monotonic()
        refitted = self._refitted(sparse, labels=self.recipe.loss == "labels")
        before, after = self._measured([sparse, refitted])
        refitted.save(self.folder / "head.safetensors", self.features.class_names, self._notes())
        _warn_if_worse(before, after)
        return {
            **self._accuracies(before, after),
            "seconds": time.monotonic() - begun,
            "files": self._hashes("head"),
        }

    def whole(self, sparse: SparseHead, sources: Places) -> dict[str, Any]:
        if holds_texts(self.run):
            raise InputError(
                f"{self.run.folder} is a run of texts, and only networks of images are trained "
                "whole: give --head-only to fit the head"
            )
        images = self._images(reopen_images(self.run, "data", sources))
        shown = self._images(reopen_images(self.run, "evaluation", sources))
        model = reopen_network(self.run, sources)
        if isinstance(model, OnnxNetwork):
            raise InputError(
                f"{self.run.folder} is of an ONNX file, whose weights cannot be trained: give "
                "--head-only to fit the head, or tune the network that the file was made from"
            )
        model = model.float().to(self.device)
        teacher = copy.deepcopy(model).requires_grad_(False)
        frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
        if frozen:
            warnings.warn(f"the network itself freezes {some(frozen)}: not trained", stacklevel=2)
        begun = time.monotonic()
        refitted = self._refitted(sparse, labels=False)
        before, start = self._measured([sparse, refitted])
        refit_seconds = time.monotonic() - begun
        replacement = replace_head(model, refitted.to(self.device), self.dense)
        # Half-precision sums over few features would lose what training gains.
        refitted.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(), *inputs[1:]))
        train, held_out = images.part(self.kept), images.part(self.held)
        recipe, survived = self._augmentation(teacher, held_out)
        training = Training(
            model,
            teacher,
            self.dense,
            train,
            held_out,
            recipe,
            self.folder / "checkpoint.safetensors",
            repr(self.document["identity"]),
        )
        training.run(self.progress("training") if self.progress else None)
        heard = self.progress("eval") if self.progress else None
        right = correct(model, self.dense, shown, recipe.dtype, progress=heard)
        epochs = training.history
        after = {
            "held_out": epochs[training.best_epoch - 1]["held_out"],
            "accuracy": float(right.double().mean()),
        }
        _warn_if_worse(before, after)
        in_network = self._write(model, refitted, replacement)
        return {
            **self._accuracies(before, after),
            "refitted": start,
            "augment": list(recipe.augment or ()),
            "augment_accuracy": survived,
            "frozen": frozen,
            "epochs": epochs,
            "best_epoch": training.best_epoch,
            "seconds": refit_seconds + training.seconds,
            "head_in_network": in_network,
            "files": self._hashes("network", "head"),
        }

    def _refitted(self, sparse: SparseHead, labels: bool) -> SparseHead:
        dense = self.dense
        heat = 1.0 if labels else self.recipe.temperature
        found = refit_softmax(
            sparse.subspaces,
            self._part(self.kept),
            dense.weight,
            dense.bias,
            start=sparse,
            labels=labels,
            temperature=heat,
        ).head
        found.layer = sparse.layer
        return found

    def _measured(self, heads: list[SparseHead]) -> list[dict[str, float]]:
        """Accuracies of heads on the run's features, held out and for evaluation."""
        held_out = accuracies(heads, self._part(self.held))
        measured = accuracies(heads, self.evaluation)
        return [
            {"held_out": held, "accuracy": accuracy}
            for held, accuracy in zip(held_out, measured, strict=True)
        ]

    def _part(self, rows: Tensor) -> Features:
        """Some of the analysed samples."""
        chosen = torch.zeros(self.features.n_samples, dtype=torch.bool)
        chosen[rows] = True
        return self.features.subset(chosen)

    def _accuracies(
        self, before: Mapping[str, float], after: Mapping[str, float]
    ) -> dict[str, Any]:
        summary = self.run.summary()
        return {
            "n_train": len(self.kept),
            "n_held_out": len(self.held),
            "evaluated_on": summary["evaluated_on"],
            "n_eval_samples": summary["n_eval_samples"],
            "dense": {"accuracy": summary["dense"]["accuracy"]},
            "before": dict(before),
            "after": dict(after),
        }

    def _images(self, data: Chosen) -> Images:
        transform = Transform.from_json(self.run.about["transform"])
        return Images(data, transform, self.device, self.recipe.workers)

    def _augmentation(
        self, teacher: nn.Module, held_out: Images
    ) -> tuple[TrainingPlan, dict[str, float]]:
        """The recipe with its augmentations, and the dense network's accuracy under each."""
        if self.recipe.augment is not None:
            return self.recipe, {}
        part = held_out.part(torch.arange(min(AUGMENT_SAMPLES, len(self.held))))
        labels = torch.as_tensor(part.data.labels)
        plain = correct(teacher, self.dense, part, self.recipe.dtype)

        def changed(kind: str) -> Tensor:
            draw = torch.Generator().manual_seed(self.recipe.seed)
            return correct(
                teacher,
                self.dense,
                part,
                self.recipe.dtype,
                lambda images: augmented(images, (kind,), draw),
            )

        kinds, survived = surviving(plain, changed, labels)
        return replace(self.recipe, augment=kinds), survived

    def _write(self, model: nn.Module, head: SparseHead, replacement: Replacement) -> bool:
        """Write head and network; whether the network's file holds the head as a dense layer."""
        head.save(self.folder / "head.safetensors", self.features.class_names, self._notes())
        replacement.restore()
        in_network = _put_dense(replacement.original, head)
        tensors = {
            name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)
        }
        write_tensors(self.folder / "network.safetensors", tensors, {"format": "pt"})
        return in_network

    def _notes(self) -> dict[str, str]:
        return {"select": self.document["select"], "refit": "tune"}

    def _hashes(self, *names: str) -> dict[str, str]:
        return {name: hash_of(self.folder / f"{name}.safetensors") for name in names}


def split(labels: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Samples to train on and samples held out: a tenth of each class, at most 5,000 or so in all.

    Args:
        labels: (n_samples,) int64.
        seed: of the choice.

    Returns:
        Numbers of the samples to train on, in order, and of those held out, in random order.

    Raises:
        InputError: too few samples.
    """
    n = len(labels)
    counts = labels.bincount()
    wanted = (counts * min(HELD_OUT, HELD_OUT_MOST / max(n, 1))).ceil().long()
    wanted = torch.minimum(wanted, (counts - 1).clamp(min=0))
    chosen = ranks(labels, seed) < wanted[labels]
    if not bool(chosen.any()) or n - int(chosen.sum()) < 2:
        raise InputError(
            f"too few samples to train on some and hold others out: found {n}, expected at least "
            "3, and 2 of one class"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed % 2**63))
    return (~chosen).nonzero()[:, 0], order[chosen[order]]


def _warn_if_worse(before: Mapping[str, float], after: Mapping[str, float]) -> None:
    if after["held_out"] < before["held_out"]:
        warnings.warn(
            f"on held-out images tuning made the head worse ({100 * before['held_out']:.2f} to "
            f"{100 * after['held_out']:.2f} %): compare the accuracies before you use it",
            stacklevel=3,
        )


def _put_dense(layer: nn.Module, head: SparseHead) -> bool:
    """Write the head into a plain layer, zeros where a class reads nothing; False if it cannot."""
    bias = getattr(layer, "bias", None)
    plain = isinstance(layer, nn.Linear | _ConvNd) and not parametrize.is_parametrized(layer)
    if not plain or not (isinstance(bias, Tensor) or not bool(head.bias.any())):
        return False
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if len(weight) != head.n_classes:  # of some of the layer's classes
        return False
    with torch.no_grad():
        weight.copy_(head.dense_weight().view_as(weight))
        if isinstance(bias, Tensor):
            bias.copy_(head.bias)
    return True
