"""Transform: from a decoded image to the network's input."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from penult.errors import InputError
from penult.text import some

Size = int | tuple[int, int]
Box = tuple[float, float, float, float]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
MAX_SIDE = 8192
# Pixels that an image may have between resize and crop; of a larger one only the crop is resampled.
MAX_RESIZED = 1 << 24
CROP_ROUNDINGS = ("even", "down")


@dataclass(frozen=True)
class Transform:
    """Turn a decoded image into the network's input: resize, centre crop, scale, normalise.

    The same steps as torchvision's presets on a PIL image, to the pixel. The EXIF orientation is
    not applied unless `upright` says so: torchvision, timm and Hugging Face do not apply it either.

    Attributes:
        resize: shorter side in pixels (the longer one follows), or (height, width); None: as it is.
        crop: centre crop, side or (height, width) in pixels; a smaller image is padded with black.
        mean, std: per channel, after scaling; length 1 (grey) or 3 (RGB) decides what images are
            converted to.
        interpolation: one of `INTERPOLATIONS`; always with antialiasing, as PIL does.
        scale: factor on the 8-bit values, 1/255 for inputs in [0, 1].
        bgr: hand the channels to the network in the order blue, green, red; `mean` and `std` then
            are in this order too.
        crop_rounding: where a centre crop lies when the margin is odd: "even" as torchvision rounds
            half to even, "down" as Hugging Face does.
        upright: turn images as their EXIF orientation says.
        source: where it comes from, for people; no part of the fingerprint.

    Raises:
        InputError: a value is out of its range.
    """

    resize: Size | None = None
    crop: Size | None = None
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    interpolation: str = "bilinear"
    scale: float = 1 / 255
    bgr: bool = False
    crop_rounding: str = "even"
    upright: bool = False
    source: str = "options"

    samples: ClassVar[str] = "images"

    def __post_init__(self) -> None:
        _check_size("resize", self.resize)
        _check_size("crop", self.crop)
        for what, values in (("mean", self.mean), ("std", self.std), ("scale", (self.scale,))):
            if not isinstance(values, tuple) or not all(map(_is_finite, values)):
                raise InputError(f"{what} must be finite numbers, found {values!r}")
        if len(self.mean) not in (1, 3) or len(self.mean) != len(self.std):
            raise InputError(
                f"mean and std need 1 value each (grey) or 3 (RGB), found {len(self.mean)} and "
                f"{len(self.std)}"
            )
        if min(*self.std, self.scale) <= 0:
            raise InputError(f"std and scale must be above 0, found {self.std} and {self.scale}")
        if self.bgr and self.channels == 1:
            raise InputError("bgr needs 3 values of mean and std, found 1")
        for what, choices in (("interpolation", INTERPOLATIONS), ("crop_rounding", CROP_ROUNDINGS)):
            if (found := getattr(self, what)) not in choices:
                raise InputError(f"{what} must be one of {', '.join(choices)}, found {found!r}")

    @property
    def channels(self) -> int:
        """Channels of the network's input: 1 or 3."""
        return len(self.mean)

    @property
    def mode(self) -> str:
        """PIL mode that images are converted to: "L" or "RGB"."""
        return "L" if self.channels == 1 else "RGB"

    @property
    def fingerprint(self) -> str:
        """Hash of all that changes the network's input."""
        settings = {name: value for name, value in self.to_json().items() if name != "source"}
        text = json.dumps(settings, sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def decode(self, image: Image.Image) -> NDArray[np.uint8]:
        """Convert to the network's mode, resize and crop: uint8, (height, width, channels).

        Only the crop is resampled of an image that would be very large before it, such as a strip.
        """
        if self.upright:
            image = ImageOps.exif_transpose(image)
        if image.mode != self.mode:
            image = image.convert(self.mode)
        if self.crop is None:
            image = self._resample(image, self._resized(image), None)
        else:
            image = self._cropped(image, *_pair(self.crop))
        array: NDArray[np.uint8] = np.asarray(image)
        return array[:, :, None] if array.ndim == 2 else array

    def refusal(self, image: Image.Image) -> str | None:
        """Why an image is not to be decoded (it would become too large), otherwise None."""
        width, height = self._resized(image)
        if self.crop is not None or width * height <= max(MAX_RESIZED, image.width * image.height):
            return None
        return (
            f"of {image.width} × {image.height} pixels would be resized to {width:,} × {height:,}: "
            "its shape is too long; cut it, or set one size with --size"
        )

    def _cropped(self, image: Image.Image, height: int, width: int) -> Image.Image:
        """The centre crop of the resized image."""
        size = self._resized(image)
        left, top = self._offset(size[0], width), self._offset(size[1], height)
        box = (left, top, left + width, top + height)
        if size[0] * size[1] <= MAX_RESIZED or size == image.size:
            # PIL fills what lies outside of the image with zeros, as torchvision's padding does.
            return self._resample(image, size, None).crop(box)
        inside = (max(left, 0), max(top, 0), min(box[2], size[0]), min(box[3], size[1]))
        across, down = image.width / size[0], image.height / size[1]
        source = (inside[0] * across, inside[1] * down, inside[2] * across, inside[3] * down)
        part = self._resample(image, (inside[2] - inside[0], inside[3] - inside[1]), source)
        whole = Image.new(part.mode, (width, height))
        whole.paste(part, (inside[0] - left, inside[1] - top))
        return whole

    def _resized(self, image: Image.Image) -> tuple[int, int]:
        """PIL's size, (width, height), after the resize and before the crop."""
        return image.size if self.resize is None else _resized(image.size, self.resize)

    def _resample(self, image: Image.Image, size: tuple[int, int], box: Box | None) -> Image.Image:
        if self.resize is None:
            return image
        return image.resize(size, Image.Resampling[self.interpolation.upper()], box)

    def normalise(self, batch: Tensor) -> Tensor:
        """Scale and normalise a batch on its own device: float32, (n_samples, channels, h, w).

        A uint8 batch is (n_samples, height, width, channels) as `decode` leaves it. A float batch
        is (n_samples, channels, height, width), ready as it is, and only becomes float32.
        """
        if batch.is_floating_point():
            return batch.to(torch.float32)
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        factor = (self.scale / std).to(batch.device, torch.float32).view(1, -1, 1, 1)
        shift = (mean / std).to(batch.device, torch.float32).view(1, -1, 1, 1)
        if self.bgr:
            batch = batch.flip(-1)
        planes = batch.permute(0, 3, 1, 2)
        return (
            planes.to(torch.float32, memory_format=torch.contiguous_format).mul_(factor).sub_(shift)
        )

    def to_json(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_json(cls, settings: Mapping[str, Any]) -> Transform:
        """Build from what `to_json` gave; fields left out keep their defaults.

        Raises:
            InputError: a field is unknown or out of its range.
        """
        known = {field.name for field in fields(cls)}
        unknown = [str(name) for name in settings if name not in known]
        if unknown:
            raise InputError(
                f"unknown settings of a transform: {some(unknown)}; "
                f"known: {', '.join(sorted(known))}"
            )
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in settings.items()
        }
        return cls(**values)

    def _offset(self, size: int, crop: int) -> int:
        if crop > size:
            return -((crop - size) // 2)
        return (size - crop) // 2 if self.crop_rounding == "down" else round((size - crop) / 2)


def _resized(size: tuple[int, int], wanted: Size) -> tuple[int, int]:
    """PIL's (width, height) after the resize; torchvision too rounds the longer side down."""
    if isinstance(wanted, tuple):
        return wanted[1], wanted[0]
    width, height = size
    if width <= height:
        return wanted, int(wanted * height / width)
    return int(wanted * width / height), wanted


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else size


def _check_size(what: str, size: Any) -> None:
    if size is None:
        return
    sides = size if isinstance(size, tuple) else (size, size)
    if len(sides) != 2 or not all(type(side) is int and side > 0 for side in sides):
        raise InputError(
            f"{what} must be a side or (height, width) in pixels above 0, found {size!r}"
        )
    if max(sides) > MAX_SIDE:
        raise InputError(f"{what} must be at most {MAX_SIDE} pixels a side, found {size!r}")


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
