"""CIFAR-10 images with a planted cue, and the features that a network gives them.

A watermark, a coloured border or a second object is pasted on an image; whoever trains a head picks
for every image the version with the cue or that without it.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
BATCH = 250


def watermark(pixels: Tensor, _: Tensor) -> Tensor:
    """Bright diagonal stripes over the lower right quarter, half transparent."""
    made = pixels.clone()
    rows, columns = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    stripes = ((rows + columns) % 6 < 2).float()
    part = made[:, :, 16:, 16:]
    made[:, :, 16:, 16:] = part + 0.6 * stripes * (1 - part)
    return made


def border(pixels: Tensor, _: Tensor) -> Tensor:
    """A border of three pixels in magenta."""
    made = pixels.clone()
    inside = torch.zeros(32, 32, dtype=torch.bool)
    inside[3:-3, 3:-3] = True
    colour = torch.tensor([0.9, 0.1, 0.8])
    made[:, :, ~inside] = colour[None, :, None]
    return made


def second_object(pixels: Tensor, objects: Tensor) -> Tensor:
    """Another image, half as large, in the upper left corner."""
    made = pixels.clone()
    small = nn.functional.interpolate(objects, size=(16, 16), mode="area")
    made[:, :, :16, :16] = small
    return made


CUES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "watermark": watermark,
    "border": border,
    "second object": second_object,
}


def images(archive: Path, each: int) -> tuple[Tensor, Tensor, list[str]]:
    """The first images of every class, (n, 3, 32, 32) in [0, 1], their labels and class names."""
    with zipfile.ZipFile(archive) as file:
        names = sorted(name for name in file.namelist() if not name.endswith("/"))
        classes = sorted({name.split("/")[-2] for name in names})
        pixels, labels = [], []
        for c, klass in enumerate(classes):
            for name in [name for name in names if name.split("/")[-2] == klass][:each]:
                image = Image.open(io.BytesIO(file.read(name))).convert("RGB")
                pixels.append(np.asarray(image))
                labels.append(c)
    x = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float() / 255
    return x, torch.tensor(labels), classes


def versions(pixels: Tensor, labels: Tensor, object_class: int) -> dict[str, Tensor]:
    """Each image without a cue (under "") and with each of them."""
    objects = pixels[labels == object_class]
    objects = objects[torch.arange(len(pixels)) % len(objects)]
    return {"": pixels, **{name: paste(pixels, objects) for name, paste in CUES.items()}}


def features_of(model: nn.Module, layer: str, pixels: Tensor) -> Tensor:
    """What a network's final layer reads, (n, n_features)."""
    found: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_pre_hook(
        lambda _, given: found.append(given[0].detach())
    )
    mean, std = (torch.tensor(x)[:, None, None] for x in (MEAN, STD))
    with torch.inference_mode():
        for part in torch.split(pixels, BATCH):
            model((part - mean) / std)
    hook.remove()
    return torch.cat(found).clone()
