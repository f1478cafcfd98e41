"""What holds samples, and one image: opened from its bytes, refused or converted."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from penult.errors import InputError
from penult.text import described as one_line

Loaded = Image.Image | NDArray[np.uint8] | Tensor | str

MAX_PIXELS = 100_000_000
MAX_BYTES = 1 << 29  # of an image's file
UNLABELLED = -1
# A class, or a row with a bool for each class.
Label = int | NDArray[np.bool_]

TURNED = "EXIF orientation applied"
NOT_TURNED = "EXIF orientation not applied"
CUT = "cut to "  # followed by the number of tokens

_EXIF = {"exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif"}
_TOO_LARGE = f"has more than {MAX_PIXELS // 10**6} million pixels: scale it down"
# What Pillow lists as readable but decodes with an outside program, or not at all.
_NO_DECODER = frozenset({"EPS", "WMF", "BUFR", "GRIB", "HDF5", "MPEG"})
# How files of the usual kinds begin.
_STARTS = (
    ("JPEG", b"\xff\xd8\xff"),
    ("PNG", b"\x89PNG\r\n\x1a\n"),
    ("GIF", b"GIF87a"),
    ("GIF", b"GIF89a"),
    ("TIFF", b"II*\0"),
    ("TIFF", b"MM\0*"),
    ("JPEG XL", b"\xff\x0a"),
    ("JPEG XL", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("JPEG2000", b"\0\0\0\x0cjP  \r\n\x87\n"),
)
_BMP_HEADERS = [size.to_bytes(4, "little") for size in (12, 40, 52, 56, 64, 108, 124)]
_BRANDS = dict.fromkeys((b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heim"), "HEIF")
_BRANDS |= {b"avif": "AVIF", b"avis": "AVIF"}
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

    Data of texts hold a text in place of each image.

    Attributes:
        labelled: whether every sample has a label.
        multi_label: whether a sample may have several labels, or none of the classes.
        labels: (n_samples,) int64 in [0, n_classes), or (n_samples, n_classes) bool where
            multi-label; None where unlabelled, and where only loading a sample tells its label.
        class_names: their names in the order of the labels; None where unknown.
        fingerprint: hash that changes with the samples or their labels.
        named_by_folders: whether the classes are folders, whose order is the alphabet's.
        notes: what a person should know of how the data were taken, one sentence each.
    """

    named_by_folders = False
    notes: tuple[str, ...] = ()
    multi_label = False
    labelled: bool
    labels: NDArray[Any] | None
    class_names: tuple[str, ...] | None
    fingerprint: str

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def id(self, index: int) -> str:
        """Name of a sample for people: a path with forward slashes, or its number."""

    @abstractmethod
    def load(self, index: int) -> Loaded:
        """Open an image: a PIL image (decoded when first used), a uint8 array or a tensor; a text.

        Raises:
            ImageFaultError: it cannot be opened.
        """

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What and how much it is, as JSON values."""

    def column(self, name: str) -> list[Any]:
        """What a column of the table that lists the samples holds for each of them.

        Raises:
            InputError: there is no such column, or no table.
        """
        raise InputError(
            f"the data are no table, so they have no column {name!r}: give the attributes of the "
            "samples in a file of their own, with --groups FILE"
        )

    def align(self, place: NDArray[np.int64], names: tuple[str, ...]) -> None:
        """Count the classes as the network does: what was class i becomes class place[i].

        Args:
            place: (n_classes of the data,) int64; -1 for a class without samples that is left out.
            names: the network's classes, in the order of its logits.
        """
        if self.labels is not None:
            self.labels = placed(self.labels, place, len(names))
        self.class_names = names

    def sample(self, index: int) -> tuple[Loaded, Label]:
        """An image and its label, -1 where unlabelled."""
        if self.labels is None:
            return self.load(index), UNLABELLED
        label = self.labels[index]
        return self.load(index), label if self.multi_label else int(label)


def placed(labels: NDArray[Any], place: NDArray[np.int64], n_classes: int) -> NDArray[Any]:
    """Labels with the classes counted anew: what was class i becomes class place[i].

    Args:
        labels: (n_samples,) int64, or (..., n_classes of the data) bool.
        place: -1 for a class without samples.
        n_classes: how many there are then.
    """
    if labels.dtype != bool:
        return np.asarray(place[labels])
    found = np.zeros((*labels.shape[:-1], n_classes), dtype=bool)
    found[..., place[place >= 0]] = labels[..., place >= 0]
    return found


def read_file(path: str | os.PathLike[str], limit: int = -1) -> bytes:
    """The first bytes of a file, all where `limit` is negative.

    Raises:
        OSError: it cannot be read, is larger than `MAX_BYTES`, or is no regular file: a device or a
            pipe would be read without end.
    """
    try:
        status = Path(path).stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no file but a folder, a device or a pipe")
        if limit < 0 and status.st_size > MAX_BYTES:
            raise OSError(errno.EFBIG, f"it is larger than {MAX_BYTES >> 20} MiB: scale it down")
        with Path(path).open("rb") as file:
            return file.read(limit)
    except ValueError:  # a zero byte in the name
        raise OSError(errno.ENOENT, "no file has such a name") from None


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
        raise ImageFaultError(id, _unidentified(raw)) from None
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


def is_turned(image: Image.Image) -> bool:
    """Whether the EXIF data say that an image is to be turned or mirrored before it is seen."""
    if not _EXIF & image.info.keys() or image.format == "TIFF":  # Pillow turns TIFF by itself
        return False
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
    except Exception:  # damaged EXIF data; the pixels may be sound
        return False


def noted_lines(noted: Mapping[str, int], part: str) -> list[str]:
    """What was noted of images while they were read, one sentence for each kind.

    Args:
        noted: number of images by kind, as in `Batch.converted`.
        part: what they are called: "train", "eval".
    """
    said = {
        TURNED: "{n} images of {part} were turned upright, as their EXIF orientation says",
        NOT_TURNED: "{n} images of {part} have an EXIF orientation, which is not applied, as "
        "torchvision and timm do not either: give --upright if the network saw them upright",
    }
    other = "{n} {kind} images of {part} converted"
    cut = "{n} texts of {part} are longer than the network takes and were {kind}"
    return [
        said.get(kind, cut if kind.startswith(CUT) else other).format(n=n, kind=kind, part=part)
        for kind, n in noted.items()
    ]


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


def content_of(head: bytes) -> str | None:
    """Kind of picture that a file is by its first 32 bytes, such as "PNG"; None for no picture."""
    for kind, start in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and head[14:18] in _BMP_HEADERS:
        return "BMP"
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12])
    return None


@cache
def formats() -> dict[str, str]:
    """File extensions of the formats that Pillow decodes by itself, with the format's name."""
    return {
        extension: name
        for extension, name in Image.registered_extensions().items()
        if name in Image.OPEN and name not in _NO_DECODER
    }


def _unidentified(raw: bytes) -> str:
    kind = content_of(raw[:32])
    if kind is None or kind in formats().values():
        return "is damaged or no image that Pillow reads"
    return f"is a picture of the kind {kind}, which Pillow does not read: convert it to PNG"


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


def digest_of(*parts: bytes) -> str:
    """Hash of several parts."""
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def described_as(kind: str, data: ImageData) -> dict[str, Any]:
    """What every kind of data says of itself."""
    return {
        "kind": kind,
        "n_samples": len(data),
        "n_classes": None if data.class_names is None else len(data.class_names),
        "notes": list(data.notes),
        "fingerprint": data.fingerprint,
    }
