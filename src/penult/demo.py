"""The embedded default: a small network, trained on scikit-learn's handwritten digits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.data.classes import align_classes
from penult.data.open import open_data
from penult.data.source import ImageSource, Pass
from penult.data.transform import Transform
from penult.errors import InputError
from penult.features.collect import usable_head
from penult.network.load import fingerprint
from penult.progress import Progress
from penult.runs.analyze import Options, analyze_network
from penult.runs.run import Run
from penult.storage import read_tensors, write_tensors

TRANSFORM = Transform(mean=(0.5,), std=(0.5,), source="demo")
EPOCHS = 12
BATCH_SIZE = 64


class DigitsCNN(nn.Module):
    """Three convolutions, mean pooling to 64 features and a linear head, for 8 × 8 digits."""

    penult_transform = TRANSFORM

    def __init__(self) -> None:
        super().__init__()
        self.stem = _block(1, 16)
        self.middle = _block(16, 32)
        self.last = _block(32, 64)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (n_samples, 10) of images (n_samples, 1, 8, 8)."""
        maps = self.middle(F.max_pool2d(self.stem(images), 2))
        logits: Tensor = self.head(self.last(maps).mean((2, 3)))
        return logits


def demo(
    out: str | Path,
    *,
    seed: int = 0,
    overwrite: bool = False,
    progress: Callable[[str], Progress] | None = None,
) -> Run:
    """Train `DigitsCNN` on four fifths of the digits and analyse it; needs no network access.

    Args:
        out: the run folder; the network's weights are kept there as `network.safetensors`.
        seed: of the training; another one gives another network of the same kind.
        overwrite: replace a run of something else.
        progress: called with "training", "train" or "eval"; gives the function that hears of the
            progress.
    """
    data, held_out = open_data("digits:train"), open_data("digits:test")
    source = ImageSource(data, TRANSFORM, Pass())
    network = _trained(source, seed, progress("training") if progress else None)
    head = usable_head(network, source)
    run = analyze_network(
        network,
        head,
        data,
        held_out,
        out,
        transform=TRANSFORM,
        class_names=align_classes(head.n_classes, data, held_out).names,
        network={
            "spec": "penult.demo:DigitsCNN",
            "weights": "network.safetensors",
            "set": [],
            "fingerprint": fingerprint(network),
        },
        options=Options(overwrite=overwrite),
        progress=progress,
    )
    file = run.folder / "network.safetensors"
    if not _holds(file, network):  # a finished run that is not to be written stays as it is
        with run.adding(file):
            write_tensors(file, network.state_dict(), {"format": "pt"})
    return run


def _holds(file: Path, network: nn.Module) -> bool:
    """Whether a file holds the weights of a network."""
    if not file.is_file():
        return False
    try:
        found, _ = read_tensors(file, "pt", ())
    except InputError:
        return False
    state = network.state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in found)


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False), nn.BatchNorm2d(n_out), nn.ReLU()
    )


def _trained(source: ImageSource, seed: int, heard: Progress | None) -> DigitsCNN:
    """The network after training: of one seed the same weights every time on one machine."""
    batches = list(source.batches(0))
    images = torch.cat([TRANSFORM.normalise(batch.images) for batch in batches])
    labels = torch.cat([batch.labels for batch in batches])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DigitsCNN()
        n_steps = EPOCHS * -(-len(images) // BATCH_SIZE)
        optimiser = torch.optim.AdamW(network.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.01, total_steps=n_steps)
        for epoch in range(EPOCHS):
            order = torch.randperm(len(images))
            for start in range(0, len(images), BATCH_SIZE):
                rows = order[start : start + BATCH_SIZE]
                loss = F.cross_entropy(network(images[rows]), labels[rows])
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]  # torch's is untyped
                optimiser.step()
                schedule.step()
            if heard is not None:
                heard((epoch + 1) * len(images), EPOCHS * len(images))
    return network.eval()
