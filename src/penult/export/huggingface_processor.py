"""The image processor that the format `hf` writes: it prepares images as the run did."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from PIL import Image

from penult.data.library_transforms import from_hf
from penult.data.transform import Transform
from penult.errors import InputError
from penult.export.traced import quiet
from penult.extras import import_extra, with_torchvision

CLOSE = 1e-6  # of a number that a library computes by other steps
UNCOMPARED = ("source", "crop_rounding")  # the libraries differ by a pixel there


def save_processor(transform: Transform, network: str | None, folder: Path) -> list[str]:
    """Write the network's own processor where it does what the run did, else one that does.

    Args:
        transform: how the run prepared images.
        network: what transformers calls the network, which may have a processor; None: it has none.
        folder: where it is written.

    Returns:
        What of the preparation no processor of transformers does; nothing where one is written.
    """
    transformers = import_extra("transformers", "hf")
    library = transformers.AutoImageProcessor
    if network is not None:
        try:
            with quiet():
                own = library.from_pretrained(network, trust_remote_code=False)
            if not _differences(own, transform):
                own.save_pretrained(folder)
                return []
        except (OSError, ValueError, ImportError):
            pass  # there is none that can be read
    lacking = [
        words
        for words, wanted in (
            ("channels in the order blue, green, red", transform.bgr),
            ("grey images", transform.channels != 3),
            ("images turned as their EXIF orientation says", transform.upright),
        )
        if wanted
    ]
    if not lacking:
        made = _processor_of(transformers, transform)
        lacking = _differences(made, transform)
        if not lacking:
            made.save_pretrained(folder)
    return lacking


def timm_settings(transform: Transform) -> dict[str, Any] | None:
    """What timm's configuration says of a preparation; None where it cannot say it."""
    crop = transform.crop
    resize = transform.resize
    if crop is None and isinstance(resize, tuple):
        crop = resize  # squeezed to the size, nothing is cut off
    if crop is None or resize is None:
        return None
    height, width = (crop, crop) if isinstance(crop, int) else crop
    first = resize if isinstance(resize, int) else resize[0]
    if isinstance(resize, int) and height != width:
        return None
    return {
        "input_size": [3, height, width],
        # timm rounds the side down that it scales to.
        "crop_pct": 1.0 if first == height else height / (first + 0.5),
        "crop_mode": "center" if isinstance(resize, int) else "squash",
        "interpolation": transform.interpolation,
        "mean": [float(value) for value in transform.mean],
        "std": [float(value) for value in transform.std],
    }


def check_processor(folder: Path, transform: Transform) -> list[str]:
    """What the processor that transformers loads from a folder does otherwise than the run."""
    transformers = import_extra("transformers", "hf")
    with quiet():
        found = with_torchvision(lambda: transformers.AutoImageProcessor.from_pretrained(folder))
    return _differences(found, transform)


def _differences(processor: Any, transform: Transform) -> list[str]:
    """Fields of a preparation in which a processor differs from it."""
    try:
        with quiet():
            found = from_hf(processor)
    except InputError as error:
        return [str(error)]
    ours, theirs = _in_plain_sizes(transform), _in_plain_sizes(found)
    return [
        field.name
        for field in fields(Transform)
        if field.name not in UNCOMPARED
        and not _same(getattr(ours, field.name), getattr(theirs, field.name))
    ]


def _in_plain_sizes(transform: Transform) -> Transform:
    """The same preparation with a crop of two sides, and none that cuts nothing off."""
    crop = transform.crop
    crop = (crop, crop) if isinstance(crop, int) else crop
    return replace(transform, crop=None if crop == transform.resize else crop)


def _same(ours: Any, theirs: Any) -> bool:
    if isinstance(ours, tuple) and isinstance(theirs, tuple):
        return len(ours) == len(theirs) and all(map(_same, ours, theirs))
    if isinstance(ours, float) and isinstance(theirs, float):
        return abs(ours - theirs) <= CLOSE * max(1.0, abs(ours))
    return bool(ours == theirs)


def _processor_of(transformers: Any, transform: Transform) -> Any:
    """A processor of the plainest kind: resize, centre crop, scale, normalise."""
    resize, crop = transform.resize, transform.crop
    size: dict[str, int] = {"shortest_edge": 224}
    if isinstance(resize, int):
        size = {"shortest_edge": resize}
    elif resize is not None:
        size = {"height": resize[0], "width": resize[1]}
    height, width = (crop, crop) if isinstance(crop, int) else crop or (224, 224)
    return transformers.CLIPImageProcessor(
        do_resize=resize is not None,
        size=size,
        resample=int(Image.Resampling[transform.interpolation.upper()]),
        do_center_crop=crop is not None,
        crop_size={"height": height, "width": width},
        do_rescale=True,
        rescale_factor=transform.scale,
        do_normalize=True,
        image_mean=list(transform.mean),
        image_std=list(transform.std),
        do_convert_rgb=True,
    )
