"""Training: a network through the head it has, in steps that a killed process goes on with."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from penult.data.augmentation import augmented
from penult.data.batches import batches
from penult.data.transform import Transform
from penult.errors import InputError
from penult.network.calling import autocast, call_model, evaluating, first_tensor, layer_named
from penult.network.head import Head
from penult.network.linear_maps import reduced, rows
from penult.network.tap import head_axis
from penult.progress import Progress
from penult.runs.reopen import Chosen
from penult.storage import read_tensors, write_tensors

FORMAT = "penult-training/1"
LOSSES = ("distill", "labels")
TRAVEL = 0.1
MOST_RATE = 0.01
MIN_EPOCHS = 3
MIN_STEPS = 200
WARM_UP = 0.15
CHECKPOINT_SECONDS = 60.0
# A parameter that starts at zero still has to move.
LEAST_SIZE = 1e-3


@dataclass(frozen=True)
class TrainingPlan:
    """How a network is trained; nothing of it needs to be chosen.

    Attributes:
        epochs: passes over the images; 3 where None, or more on few images, up to 200 steps.
        batch_size: images in one step.
        rate: how far a parameter moves in one step at most, as a fraction of the size (root mean
            square) that its tensor starts with: the same for networks of any scale. Where None, so
            much that steps in random directions, all together, lead a tenth of the size away.
        loss: "distill", the divergence from the dense network's probabilities on the same image, or
            "labels", the cross-entropy with the labels.
        temperature: softens both probabilities in "distill".
        augment: names of `AUGMENTATIONS`; None for those that the network's own accuracy survives.
        dtype: float32, or bfloat16 through autocast; the weights stay float32.
        workers: processes that decode images; 0 decodes in this one.
        seed: of the split, the order, the augmentation and dropout.
    """

    epochs: int | None = None
    batch_size: int = 128
    rate: float | None = None
    loss: str = "distill"
    temperature: float = 2.0
    augment: tuple[str, ...] | None = None
    dtype: torch.dtype = torch.float32
    workers: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs is not None and self.epochs < 1:
            raise InputError(f"epochs must be at least 1, found {self.epochs}")
        if self.batch_size < 2:
            raise InputError(f"batch size must be at least 2, found {self.batch_size}")
        if self.rate is not None and not 0 < self.rate < 1:
            raise InputError(f"rate is a fraction above 0 and below 1, found {self.rate}")
        if self.loss not in LOSSES:
            raise InputError(f"loss must be one of {', '.join(LOSSES)}, found {self.loss!r}")
        if not 0 < self.temperature < math.inf:
            raise InputError(f"temperature must be above 0 and finite, found {self.temperature}")
        if self.dtype not in (torch.float32, torch.bfloat16):
            raise InputError(
                f"a network is trained in float32 or bfloat16, found "
                f"{str(self.dtype).removeprefix('torch.')}"
            )

    def n_epochs(self, steps: int) -> int:
        """Epochs of so many steps each."""
        return self.epochs or max(MIN_EPOCHS, math.ceil(MIN_STEPS / steps))

    def rate_over(self, steps: int) -> float:
        """The highest rate of a training of so many steps."""
        # Where gradients are mostly noise, distance grows with the square root of the steps.
        return self.rate or min(MOST_RATE, TRAVEL / math.sqrt(steps))

    def to_json(self) -> dict[str, Any]:
        """All that the result depends on."""
        found = {name: value for name, value in vars(self).items() if name != "workers"}
        augment = None if self.augment is None else list(self.augment)
        return {**found, "augment": augment, "dtype": str(self.dtype).removeprefix("torch.")}


class Logits:
    """A network's logits with their gradients: what its head gives, whatever follows it.

    A context manager; the network is not changed.
    """

    def __init__(self, model: nn.Module, head: Head) -> None:
        self._model = model
        self._head = head
        self._found: Tensor | None = None

    def __enter__(self) -> Self:
        layer = layer_named(self._model, self._head.name)
        self._handle = layer.register_forward_hook(self._read, with_kwargs=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._handle.remove()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits (n_samples, n_classes), float32."""
        self._found = None
        call_model(self._model, images)
        assert self._found is not None
        return self._found.float()

    def _read(self, module: nn.Module, args: Any, kwargs: Mapping[str, Any], output: Any) -> None:
        x, head = first_tensor(args, kwargs), self._head
        assert x is not None
        axis = head_axis(module, x, output, head)
        assert axis is not None
        self._found = head.own(reduced(rows(output, axis), head.reduce))


@dataclass
class Images:
    """Images as a network takes them: from the data to its device."""

    data: Chosen
    transform: Transform
    device: torch.device
    workers: int

    def batches(self, size: int, start: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels, from a batch on; every image must be usable."""
        read = batches(
            self.data,
            self.transform,
            batch_size=size,
            workers=self.workers,
            start_batch=start,
            strict=True,
        )
        for batch in read:
            images = self.transform.normalise(batch.images.to(self.device))
            yield images, batch.labels.to(self.device)

    def part(self, rows: Tensor) -> Images:
        """Some of the images."""
        return Images(self.data.part(rows), self.transform, self.device, self.workers)


def correct(
    model: nn.Module,
    head: Head,
    images: Images,
    dtype: torch.dtype,
    change: Callable[[Tensor], Tensor] = lambda images: images,
    progress: Progress | None = None,
    batch_size: int = 256,
) -> Tensor:
    """Which images (n_samples,) bool a network classifies right, `change`d before it sees them."""
    found = [torch.empty(0, dtype=torch.bool)]
    done = 0
    with evaluating(model), torch.no_grad(), Logits(model, head) as logits:
        for batch, labels in images.batches(batch_size):
            with autocast(images.device, dtype):
                classes = logits(change(batch)).argmax(1)
            found.append((classes == labels).cpu())
            done += len(labels)
            if progress is not None:
                progress(done, len(images.data))
    return torch.cat(found)


class Training:
    """Adam with one cycle of the rate; keeps the epoch that is best on held-out images.

    The state after each step depends on the one before and on (seed, epoch, batch) alone, so that
    a killed process goes on from its last checkpoint and ends with the same bits.

    Args:
        model: the network with its new head, in float32; trained in place.
        teacher: the dense network, for the loss "distill".
        head: the dense head, which tells where the logits are.
        train, held_out: images; `train` at least 2.
        recipe: with its augmentations known.
        file: where checkpoints are kept.
        identity: hash of all that the result depends on; a checkpoint of another is not used.
    """

    def __init__(
        self,
        model: nn.Module,
        teacher: nn.Module,
        head: Head,
        train: Images,
        held_out: Images,
        recipe: TrainingPlan,
        file: Path,
        identity: str,
    ) -> None:
        self.model, self.teacher, self.head = model, teacher, head
        self.train, self.held_out = train, held_out
        self.recipe, self.file, self.identity = recipe, file, identity
        self.batch_size = min(recipe.batch_size, len(train.data))
        self.steps = len(train.data) // self.batch_size
        self.epochs = recipe.n_epochs(self.steps)
        self.rate = recipe.rate_over(self.epochs * self.steps)
        groups = [
            {"params": [p], "size": max(float(p.detach().square().mean().sqrt()), LEAST_SIZE)}
            for p in model.parameters()
            if p.requires_grad
        ]
        self.optimiser = torch.optim.Adam(groups, lr=0.0, betas=(0.9, 0.99))
        self.history: list[dict[str, float]] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch = 0
        self.epoch = self.batch = 0
        self.loss = 0.0
        self.seconds = 0.0

    def run(self, progress: Progress | None = None) -> None:
        """Train to the end, from the last checkpoint if there is one; then take the best state."""
        self._resume()
        begun, saved = time.monotonic() - self.seconds, time.monotonic()
        with Logits(self.model, self.head) as student, Logits(self.teacher, self.head) as teacher:
            while self.epoch < self.epochs:
                for images, labels in self._epoch():
                    self._step(student, teacher, images, labels)
                    if progress is not None:
                        done = self.epoch * self.steps + self.batch
                        progress(done * self.batch_size, self.epochs * self.steps * self.batch_size)
                    if time.monotonic() - saved >= CHECKPOINT_SECONDS and self.batch < self.steps:
                        self.seconds = time.monotonic() - begun
                        self._save()
                        saved = time.monotonic()
                self.seconds = time.monotonic() - begun
                self._end_epoch()
                self._save()
                saved = time.monotonic()
        self.model.load_state_dict(self.best, strict=False)

    def _epoch(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of this epoch that are still to come."""
        order = torch.randperm(len(self.train.data), generator=self._generator(self.epoch, -1))
        kept = order[: self.steps * self.batch_size]
        return self.train.part(kept).batches(self.batch_size, self.batch)

    def _step(self, student: Logits, teacher: Logits, images: Tensor, labels: Tensor) -> None:
        generator = self._generator(self.epoch, self.batch)
        images = augmented(images, self.recipe.augment or (), generator)
        self._set_rate()
        self.optimiser.zero_grad()
        with _seeded(generator.initial_seed(), images.device), _training(self.model):
            with autocast(images.device, self.recipe.dtype):
                logits = student(images)
            loss = self._loss(logits, teacher, images, labels)
            loss.backward()  # type: ignore[no-untyped-call]  # torch's is untyped
        value = float(loss.detach())
        if not math.isfinite(value):
            raise InputError(
                f"the loss became {value} in epoch {self.epoch + 1}: give a smaller --rate than "
                f"{self.rate:.2g}, or train in float32"
            )
        self.optimiser.step()
        self.loss += value
        self.batch += 1

    def _loss(self, logits: Tensor, teacher: Logits, images: Tensor, labels: Tensor) -> Tensor:
        if self.recipe.loss == "labels":
            return F.cross_entropy(logits, labels)
        heat = self.recipe.temperature
        autocasting = autocast(images.device, self.recipe.dtype)
        with evaluating(self.teacher), torch.no_grad(), autocasting:
            target = (teacher(images) / heat).log_softmax(1)
        found = (logits / heat).log_softmax(1)
        return heat**2 * F.kl_div(found, target, log_target=True, reduction="batchmean")

    def _set_rate(self) -> None:
        at = (self.epoch * self.steps + self.batch + 1) / (self.epochs * self.steps + 1)
        rest = (at - WARM_UP) / (1 - WARM_UP)
        factor = at / WARM_UP if at < WARM_UP else (1 + math.cos(math.pi * rest)) / 2
        for group in self.optimiser.param_groups:
            group["lr"] = self.rate * group["size"] * factor

    def _end_epoch(self) -> None:
        right = correct(self.model, self.head, self.held_out, self.recipe.dtype)
        accuracy = float(right.double().mean())
        # The later of equals: it has seen more.
        if accuracy >= max((found["held_out"] for found in self.history), default=0.0):
            self.best, self.best_epoch = _state(self.model), self.epoch + 1
        loss = self.loss / self.steps
        found = {"epoch": self.epoch + 1, "loss": loss, "held_out": accuracy}
        self.history.append({**found, "seconds": self.seconds})
        self.epoch, self.batch, self.loss = self.epoch + 1, 0, 0.0

    def _generator(self, epoch: int, batch: int) -> torch.Generator:
        steps = self.recipe.seed * 1_000_003 + epoch * (self.steps + 1) + batch + 1
        return torch.Generator().manual_seed(steps % 2**63)

    def _save(self) -> None:
        adam = self.optimiser.state_dict()["state"]
        tensors = {
            **{f"model.{name}": value for name, value in _state(self.model).items()},
            **{f"best.{name}": value for name, value in self.best.items()},
            **{f"adam.{i}.{key}": value for i, of in adam.items() for key, value in of.items()},
        }
        progress = {name: getattr(self, name) for name in _PROGRESS}
        notes = {"format": FORMAT, "identity": self.identity, "progress": json.dumps(progress)}
        write_tensors(self.file, tensors, notes)

    def _resume(self) -> None:
        if not self.file.exists():
            return
        tensors, notes = read_tensors(self.file, FORMAT, ())
        if notes["identity"] != self.identity:
            return
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "best": {}, "adam": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        self.model.load_state_dict(parts["model"], strict=False)
        self.best = parts["best"]
        adam = self.optimiser.state_dict()
        for name, value in parts["adam"].items():
            number, _, key = name.partition(".")
            adam["state"].setdefault(int(number), {})[key] = value
        self.optimiser.load_state_dict(adam)
        for name, value in json.loads(notes["progress"]).items():
            setattr(self, name, value)


_PROGRESS = ("epoch", "batch", "loss", "history", "best_epoch", "seconds")


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """A network in training mode, as its own `train` understands it; restored on leaving."""
    flags = [(module, module.training) for module in model.modules()]
    try:
        model.train()
        yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """What the network draws at random (dropout) is a matter of the step alone."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all tensors, apart from each other also where the network shares them."""
    found = model.state_dict()
    return {name: t.detach().cpu().clone() for name, t in found.items() if isinstance(t, Tensor)}
