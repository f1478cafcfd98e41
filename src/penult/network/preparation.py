"""Preparation: whether images reach a network as its training prepared them, judged on a few."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from penult.data.image import ImageData, ImageFaultError
from penult.data.open import read
from penult.data.transform import IMAGENET_MEAN, IMAGENET_STD, Transform
from penult.intervals import sign_test
from penult.network.calling import autocast, call_model, device_of, evaluating
from penult.network.head import Head
from penult.network.tap import FeatureTap

LOOKED_AT = 32  # images spread over the data
FEWEST = 10  # labelled images below which accuracies say nothing
KNOWS = 0.35  # of what there is between guessing and being always right
GAIN = 0.25  # of accuracy that another preparation must bring
CHANCE = 1e-3  # of as many images changing sides if both preparations were as good
EIGHT_BIT = 20.0  # values that only images in 0 to 255 reach
NORMALISED = 5.0  # in both directions, beyond which images are not normalised just once
IN_UNITS = 1.5  # means and deviations of images in [0, 1] lie below


@dataclass(frozen=True)
class PreparedOtherwise:
    """Images prepared in some way: what is said of it, what to do then, the network's inputs."""

    cause: str
    advice: str
    inputs: Tensor


def preparation_doubt(
    model: nn.Module,
    head: Head,
    data: ImageData,
    transform: Transform,
    *,
    dtype: torch.dtype = torch.float32,
    batch_size: int = 4,
) -> str | None:
    """What to say where images seem to be scaled or normalised in another way than in training.

    Up to 32 labelled images are also prepared in other usual ways. Something is said where one of
    these makes the network far more often right, and where numbers can hardly be meant.

    Args:
        model: the network, on its device.
        head: its final linear map.
        data: with labels that count the classes as the head does.
        transform: how images are prepared.
        dtype: in which the network computes.
        batch_size: images that the network takes at once.
    """
    pixels, labels = _sample(data, transform)
    if not len(labels):
        return None
    few = _FewRight(model, head, labels, dtype, batch_size)
    right = few.right(transform.normalise(pixels))
    unlikely = _unlikely(pixels, transform)
    if bool((labels < 0).any()) or len(labels) < FEWEST:
        return unlikely
    n_right = int(right.sum())
    if n_right > (1 - GAIN) * len(right) and unlikely is None:
        return _twice(model, few, right, pixels, transform)
    best = _best(few, right, _others(pixels, transform), even_as_good=unlikely is not None)
    if best is None:
        # Where the images fit the network better than any other preparation they are meant so.
        return unlikely if n_right < len(right) / 2 else None
    other, n_best = best
    found = f"of {len(labels)} images looked at the network has {n_right} right"
    found += f", but {n_best} {other.cause}" if n_best > n_right else f", and as many {other.cause}"
    return f"{found}: {other.advice}" if unlikely is None else f"{unlikely} ({found})"


class _FewRight:
    """Which images a network has right, however they are prepared."""

    def __init__(
        self, model: nn.Module, head: Head, labels: Tensor, dtype: torch.dtype, batch_size: int
    ) -> None:
        self.model, self.head, self.labels = model, head, labels
        self.dtype, self.batch_size = dtype, batch_size

    def right(self, inputs: Tensor) -> Tensor:
        """(n_samples,) bool."""
        found = []
        device = device_of(self.model)
        with evaluating(self.model), FeatureTap(self.model, self.head) as tap, torch.no_grad():
            for start in range(0, len(inputs), self.batch_size):
                # All batches are as large: a network may refuse a smaller one.
                rows = torch.arange(start, start + self.batch_size) % len(inputs)
                with autocast(device, self.dtype):
                    call_model(self.model, inputs[rows].to(device))
                found.append(tap.logits.argmax(1).cpu())
        return torch.cat(found)[: len(inputs)] == self.labels

    def balanced(self, right: Tensor) -> float:
        """Mean over the classes of the fraction right: 1 of n classes where one is always given."""
        return float(
            np.mean([float(right[self.labels == c].double().mean()) for c in self.classes])
        )

    @property
    def classes(self) -> list[int]:
        """Those that the images have."""
        return [int(c) for c in torch.unique(self.labels)]

    def knows(self, right: Tensor) -> bool:
        """Whether it tells these classes apart, far better than guessing does."""
        guessed = 1 / len(torch.unique(self.labels))
        return self.balanced(right) - guessed >= KNOWS * (1 - guessed)


def _sample(data: ImageData, transform: Transform) -> tuple[Tensor, Tensor]:
    """Decoded images of one size with their labels, as `Transform.normalise` takes them."""
    found = []
    spread = np.linspace(0, len(data) - 1, min(len(data), LOOKED_AT)).astype(int)
    for index in map(int, spread):
        try:
            found.append(read(data, transform, index))
        except ImageFaultError:  # said where it is read for good
            continue
    found = [one for one in found if one.layout == found[0].layout]
    if not found:
        return torch.empty(0), torch.empty(0, dtype=torch.int64)
    return torch.stack([one.values for one in found]), torch.tensor([one.label for one in found])


def _others(pixels: Tensor, transform: Transform) -> Iterator[PreparedOtherwise]:
    """The same images in other usual preparations."""
    if pixels.is_floating_point():
        advice = "the data set's float images go to the network as they are; prepare them there so"
        for cause, inputs in _of_ready(pixels):
            yield PreparedOtherwise(cause, advice, inputs)
        return
    n = transform.channels
    ways: dict[str, dict[str, Any]] = {}
    if max(map(abs, (*transform.mean, *transform.std))) > IN_UNITS:
        ways["with mean and standard deviation divided by 255"] = _divided(transform)
    by_255 = (round(1 / 255, 9),) * n
    usual = {
        "if they are only scaled to [0, 1], as for a network that normalises by itself": (
            (0.0,) * n,
            (1.0,) * n,
        ),
        "if they are left in 0 to 255": ((0.0,) * n, by_255),
        "if they are scaled to [-1, 1]": ((0.5,) * n, (0.5,) * n),
    }
    if n == len(IMAGENET_MEAN):
        usual["if they are normalised by ImageNet's values"] = (IMAGENET_MEAN, IMAGENET_STD)
        usual["if they are left in 0 to 255, less ImageNet's mean"] = (IMAGENET_MEAN, by_255)
    for cause, (mean, std) in usual.items():
        ways[cause] = {"mean": mean, "std": std, "scale": 1 / 255}
    for cause, change in ways.items():
        other = replace(transform, **change)
        if other != transform:
            yield PreparedOtherwise(cause, f"give {_options(change)}", other.normalise(pixels))


def _of_ready(images: Tensor) -> Iterator[tuple[str, Tensor]]:
    """Float images, which go to the network as the data set gives them, in other preparations."""
    colour = images.shape[1] == len(IMAGENET_MEAN)
    mean = torch.tensor(IMAGENET_MEAN if colour else (0.5,)).view(1, -1, 1, 1)
    std = torch.tensor(IMAGENET_STD if colour else (0.5,)).view(1, -1, 1, 1)
    by = "ImageNet's values" if colour else "mean 0.5 and deviation 0.5"
    if float(images.min()) < 0:
        yield f"if they are not normalised (by {by}) before", images * std + mean
        yield "if they are not scaled to [-1, 1] before", images / 2 + 0.5
        yield f"if they are normalised once more by {by}", (images - mean) / std
    elif float(images.max()) > IN_UNITS:
        yield "if they are divided by 255", images / 255
        normalised = (images / 255 - mean) / std
        yield f"if they are divided by 255 and normalised by {by}", normalised
    else:
        yield f"if they are normalised by {by}", (images - mean) / std
        yield "if they are scaled to [-1, 1]", images * 2 - 1
        yield "if they are in 0 to 255 and not in [0, 1]", images * 255


def _best(
    few: _FewRight, right: Tensor, others: Iterator[PreparedOtherwise], *, even_as_good: bool
) -> tuple[PreparedOtherwise, int] | None:
    """The preparation with most images right, and how many.

    It must be far more than chance could make it, or, where it is to be `even_as_good` only, no
    fewer than with the images as they are given.
    """
    best: tuple[PreparedOtherwise, int] | None = None
    for other in others:
        if not bool(other.inputs.isfinite().all()):
            continue
        found = few.right(other.inputs)
        won, lost = int((found & ~right).sum()), int((right & ~found).sum())
        gained = few.balanced(found) - few.balanced(right)
        better = won - lost >= GAIN * len(right) and gained >= GAIN and few.knows(found)
        if not (better and sign_test(lost, won) < CHANCE) and not (even_as_good and won >= lost):
            continue
        if best is None or int(found.sum()) > best[1]:
            best = other, int(found.sum())
    return best


def _twice(
    model: nn.Module, few: _FewRight, right: Tensor, pixels: Tensor, transform: Transform
) -> str | None:
    """Whether the network holds the very normalisation that images already went through."""
    name = _own_normalisation(model, transform)
    if name is None or pixels.is_floating_point():
        return None
    n = transform.channels
    once: dict[str, Any] = {"mean": (0.0,) * n, "std": (1.0,) * n}
    found = few.right(replace(transform, **once).normalise(pixels))
    if int(found.sum()) < int(right.sum()):
        return None
    return (
        f"{name} subtracts the same mean as images are prepared with: they "
        f"seem to be normalised twice; give {_options(once)}"
    )


def _own_normalisation(model: nn.Module, transform: Transform) -> str | None:
    """A layer with the mean and the deviation of the transform."""
    if not any(transform.mean):
        return None
    for name, module in model.named_modules():
        values = getattr(module, "mean", None), getattr(module, "std", None)
        if all(map(_same, values, (transform.mean, transform.std))):
            return f"the network's layer {name}" if name else "the network itself"
    return None


def _same(found: Any, wanted: tuple[float, ...]) -> bool:
    try:
        values = torch.as_tensor(found, dtype=torch.float64).flatten().cpu()
    except (TypeError, ValueError, RuntimeError):
        return False
    return values.shape == (len(wanted),) and torch.allclose(
        values, torch.tensor(wanted, dtype=torch.float64), atol=0.02
    )


def _unlikely(pixels: Tensor, transform: Transform) -> str | None:
    """Numbers that can hardly be meant."""
    if pixels.is_floating_point():
        low, high = float(pixels.min()), float(pixels.max())
        if low < -NORMALISED and high > NORMALISED and high <= EIGHT_BIT:
            return (
                f"the data set's float images lie between {low:.4g} and {high:.4g} and go to the "
                "network as they are: they seem to be normalised twice"
            )
        if low < 0 or high <= EIGHT_BIT:
            return None
        return (
            f"the data set's float images reach {high:.4g} and go to the network as they are: if "
            "it takes images in [0, 1] or normalised ones, divide them by 255 and normalise them "
            "there, or return uint8 images"
        )
    if transform.scale == 1 / 255 and max(map(abs, (*transform.mean, *transform.std))) > IN_UNITS:
        shown = ", ".join(f"{value:g}" for value in (*transform.mean, *transform.std))
        return (
            f"the mean and the standard deviation ({shown}) look as if they were for images in 0 "
            f"to 255, and images are scaled to [0, 1] before: give {_options(_divided(transform))}"
        )
    return None


def _divided(transform: Transform) -> dict[str, Any]:
    """Mean and deviation divided by 255, each where it is for images in 0 to 255."""
    change = {}
    for name in ("mean", "std"):
        values = getattr(transform, name)
        large = max(map(abs, values)) > IN_UNITS
        change[name] = tuple(round(v / 255, 6) for v in values) if large else values
    return change


def _options(change: dict[str, Any]) -> str:
    """A mean and a deviation as the command line takes them."""
    mean, std = (",".join(f"{value:.9g}" for value in change[name]) for name in ("mean", "std"))
    return f"--mean {mean} --std {std}"
