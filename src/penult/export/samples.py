"""ProofSamples: some of a run's samples, on which an export is compared with the network."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from penult.data.inputs import Inputs, changed
from penult.data.source import ImageSource, Pass
from penult.data.tokens import Preparation
from penult.data.transform import Transform
from penult.errors import InputError
from penult.runs.reopen import Places, holds_texts, reopen_images, reopen_loaded
from penult.runs.run import Run

FEWEST = 256


@dataclass(frozen=True, eq=False)
class ProofSamples:
    """Samples of a run, spread evenly over it.

    Attributes:
        part: "evaluation" or "train", where they come from.
        features: of these samples, as the run holds them, (n_samples, n_features) float32.
        labels: (n_samples,) int64, or (n_samples, n_classes) bool.
        inputs: what the network takes; None where only the head is exported.
        pixels: (n_samples, height, width, channels) uint8 before they are normalised, where images
            are kept so.
        transform: how inputs are made.
    """

    part: str
    features: Tensor
    labels: Tensor
    inputs: Inputs | None = None
    pixels: Tensor | None = None
    transform: Preparation | None = None

    def __len__(self) -> int:
        return len(self.labels)


def features_for_proof(run: Run, n_samples: int, part: str = "evaluation") -> ProofSamples:
    """Features of some samples of a run, for which no images are needed."""
    features = run.evaluation() if part == "evaluation" else run.train()
    name = "evaluation" if part == "evaluation" and run.has_evaluation else "train"
    keep = torch.zeros(features.n_samples, dtype=torch.bool)
    keep[_spread(features.n_samples, n_samples)] = True
    z, labels = features.subset(keep).arrays()
    return ProofSamples(name, z.float(), labels)


def samples_for_proof(
    run: Run, n_samples: int, places: Places, part: str = "evaluation"
) -> ProofSamples:
    """Some samples of a run with what the network takes.

    Args:
        run: made from images or texts.
        n_samples: at most.
        places: where they are now.
        part: "evaluation" (the analysed data where the run has no other) or "data".

    Raises:
        InputError: the run's images or texts are gone or no longer the same.
    """
    found = features_for_proof(run, n_samples, part)
    transform: Preparation
    if holds_texts(run):
        loaded = reopen_loaded(run, places).transform
        if loaded is None or isinstance(loaded, Transform):
            raise InputError("the network has no tokenizer any more: expected the run's network")
        transform = loaded.as_recorded(run.about["transform"])
    else:
        transform = Transform.from_json(run.about["transform"])
    images = reopen_images(run, part, places)
    chosen = images.part(_spread(len(images), n_samples))
    # One batch, so that texts are padded alike.
    source = ImageSource(chosen, transform, Pass(batch_size=len(chosen)))
    batches = list(source.batches(0))
    if len(batches) != 1 or len(batches[0].labels) != len(found):
        raise InputError(
            f"only {sum(len(b.labels) for b in batches)} of {len(found)} samples can be read now: "
            "expected the images that the run was made from"
        )
    raw = batches[0].inputs
    pixels = raw if isinstance(raw, Tensor) and raw.dtype == torch.uint8 else None
    inputs = changed(source.inputs(batches[0], torch.device("cpu")), Tensor.contiguous)
    return ProofSamples(found.part, found.features, found.labels, inputs, pixels, transform)


def _spread(n: int, wanted: int) -> Tensor:
    """Positions of samples, spread evenly: data often come class by class."""
    count = min(n, max(1, wanted))
    return (torch.arange(count) * n // count).long()
