"""What holds images, and one image: opened from its bytes, refused or converted."""

from __future__ import annotations

import io
import re
from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from penult.errors import InputError
from penult.text import described as one_line

Loaded = Image.Image | NDArray[np.uint8] | Tensor

MAX_PIXELS = 100_000_000
UNLABELLED = -1

_TOO_LARGE = f"has more than {MAX_PIXELS // 10**6} million pixels: scale it down"
# What Pillow lists as readable but decodes with an outside program, or not at all.
_NO_DECODER = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
# Control characters, and those that turn the direction of the text around them.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class ImageFaultError(InputError):
    """One image cannot be used; `id` names it and `reason` says why."""

    def __init__(self, id: str, reason: str) -> None:
        super().__init__(f"{id}: {reason}")
        self.id = id
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageFaultError], tuple[str, str]]:
        return type(self), (self.id, self.reason)


class ImageData(ABC):
    """Samples in a fixed order: an id, an image and (where labelled) a class for each.

    Attributes:
        labelled: whether every sample has a label.
        labels: (n_samples,) int64 in [0, n_classes); None where unlabelled, and where only loading
            a sample tells its label.
        class_names: their names in the order of the labels; None where unknown.
        fingerprint: hash that changes with the samples or their labels.
    """

    labelled: bool
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...] | None
    fingerprint: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def id(self, index: int) -> str:
        """Name of a sample for people: a path with forward slashes, or its number."""

    @abstractmethod
    def load(self, index: int) -> Loaded:
        """Open an image: a PIL image (decoded when first used), a uint8 array or a tensor.

        Raises:
            ImageFaultError: it cannot be opened.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What and how much it is, as JSON values."""

    def sample(self, index: int) -> tuple[Loaded, int]:
        """An image and its label, -1 where unlabelled."""
        return self.load(index), UNLABELLED if self.labels is None else int(self.labels[index])


def open_image(raw: bytes, id: str) -> Image.Image:
    """Open an image from the bytes of its file; `id` names it in errors.

    Raises:
        ImageFaultError: empty, or no image in a format that Pillow decodes by itself.
    """
    if not raw:
        raise ImageFaultError(id, "is empty (0 bytes)")
    try:
        return _identify(raw, formats().get(extension(id)))
    except UnidentifiedImageError:
        raise ImageFaultError(id, "is damaged or no image that Pillow reads") from None
    except Image.DecompressionBombError:
        raise ImageFaultError(id, _TOO_LARGE) from None
    except Exception as error:  # decoders raise whatever a damaged file leads them to
        raise ImageFaultError(id, damaged_reason(error)) from error


def damaged_reason(error: Exception) -> str:
    """Why an image whose decoder failed is left out: one line."""
    return f"is truncated or damaged ({one_line(error)})"


def conversion(image: Image.Image, mode: str) -> str | None:
    """Kind of an image that has to be converted to `mode` ("RGB" or "L"), otherwise None."""
    if image.mode == mode:
        return None
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return "transparent"
    if image.mode in ("L", "1"):
        return "greyscale"
    return {"P": "palette", "RGB": "colour"}.get(image.mode, image.mode)


def refusal(image: Image.Image) -> str | None:
    """Why an opened image is not to be decoded (too large, not 8 bits), otherwise None."""
    if image.width * image.height > MAX_PIXELS:
        return _TOO_LARGE
    if image.mode.startswith(("I", "F")):
        return f"has 16-bit, 32-bit or floating-point pixels (mode {image.mode}): convert to 8 bits"
    return None


def printable(name: str) -> str:
    """A file's name with control characters as escapes, so that it stays on its line."""
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), name)


def extension(name: str) -> str:
    """Of a path with forward slashes: `.png`, or nothing."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > name.rfind("/") else ""


@cache
def formats() -> dict[str, str]:
    """File extensions of the formats that Pillow decodes by itself, with the format's name."""
    return {
        extension: name
        for extension, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _NO_DECODER
    }


def _identify(raw: bytes, likely: str | None) -> Image.Image:
    """Open by the format that the name says, which is quick, or else by whichever fits."""
    if likely is not None:
        try:
            return Image.open(io.BytesIO(raw), formats=[likely])
        except UnidentifiedImageError:
            pass  # the name may be wrong about the format
    return Image.open(
        io.BytesIO(raw), formats=[name for name in Image.ID if name not in _NO_DECODER]
    )
