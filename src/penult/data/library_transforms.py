"""What the library of a network says of its inputs: timm, torchvision, Hugging Face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from penult.data.transform import Size, Transform
from penult.errors import InputError
from penult.extras import import_torchvision


def from_timm(model: nn.Module) -> Transform:
    """Transform of a timm model, as its pretrained configuration says.

    Raises:
        InputError: the model carries no such configuration, or one that `Transform` cannot express.
    """
    if not getattr(model, "pretrained_cfg", None):
        raise InputError(f"{type(model).__name__} has no pretrained_cfg: it is no model of timm's")
    from timm.data import resolve_data_config

    return _from_timm_config(resolve_data_config(model=model))


def from_torchvision(weights: Any) -> Transform:
    """Transform of torchvision's `weights` (of a weights enum), or of a model's default ones.

    Raises:
        InputError: no model of that name, or one whose weights are not for image classification.
    """
    if isinstance(weights, str):
        weights = _default_weights(weights)
    preset = weights.transforms()
    wanted = ("resize_size", "crop_size", "mean", "std", "interpolation")
    missing = [name for name in wanted if not hasattr(preset, name)]
    if missing:
        raise InputError(
            f"the transform of {weights} is not for image classification (it has no "
            f"{', '.join(missing)}): give --size, --mean and --std"
        )
    return Transform(
        resize=_size_of(preset.resize_size),
        crop=_size_of(preset.crop_size),
        mean=tuple(preset.mean),
        std=tuple(preset.std),
        interpolation=preset.interpolation.value,
        source="torchvision weights",
    )


def from_hf(processor: Any) -> Transform:
    """Transform of a Hugging Face image processor, or of its settings as a dict.

    A processor is also run on two synthetic images and compared, so that one that does something of
    its own is never silently misread.

    Raises:
        InputError: the settings are incomplete or `Transform` cannot express them.
    """
    if isinstance(processor, Mapping):
        return _from_hf_settings(processor)
    timm_config = getattr(processor, "data_config", None)
    if timm_config is not None:
        return replace(_from_timm_config(timm_config), source="hf processor (timm)")
    transform = _from_hf_settings(processor.to_dict())
    _compare_with_processor(transform, processor)
    return transform


def assumed_for(network: nn.Module) -> Transform:
    """What to assume where nothing says how inputs are made.

    ImageNet's mean and standard deviation; for a network whose first convolution reads one channel,
    grey images in [0, 1]. The size stays as it is.
    """
    first = next((m for m in network.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels == 1:
        return Transform(mean=(0.0,), std=(1.0,), source="assumed")
    return Transform(source="assumed")


def _from_timm_config(config: Mapping[str, Any]) -> Transform:
    _, height, width = config["input_size"]
    mode = config["crop_mode"]
    if mode not in ("center", "squash") or (mode == "center" and height != width):
        raise InputError(
            f"timm's preprocessing with crop mode {mode!r} at {height} × {width} is not supported: "
            f"give --size, --mean and --std"
        )
    enlarged = (math.floor(height / config["crop_pct"]), math.floor(width / config["crop_pct"]))
    return Transform(
        resize=enlarged if mode == "squash" else enlarged[0],
        crop=(height, width),
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        interpolation=config["interpolation"],
        source="timm",
    )


def _default_weights(name: str) -> Any:
    models = import_torchvision().models
    try:
        return models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise InputError(f"torchvision has no weights for {name!r}: {error}") from None


def _from_hf_settings(settings: Mapping[str, Any]) -> Transform:
    kind = str(settings.get("image_processor_type", settings.get("feature_extractor_type", "")))
    resize, crop = _hf_resize(settings, kind) if settings.get("do_resize") else (None, None)
    if settings.get("do_center_crop"):
        crop = _hf_pair(settings.get("crop_size"), "crop_size")
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.get("do_normalize"):
        mean = _three(_required(settings, "image_mean"))
        std = _three(_required(settings, "image_std"))
    if settings.get("rescale_offset"):
        mean = (mean[0] + 1.0, mean[1] + 1.0, mean[2] + 1.0)
    if settings.get("include_top"):
        # Hugging Face's EfficientNet divides by the standard deviation a second time.
        twice = _three(_required(settings, "image_std"))
        std = (std[0] * twice[0], std[1] * twice[1], std[2] * twice[2])
    resample = settings.get("resample")
    return Transform(
        resize=resize,
        crop=crop,
        mean=mean,
        std=std,
        interpolation="bilinear" if resample is None else Image.Resampling(resample).name.lower(),
        scale=settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale", True) else 1.0,
        bgr=bool(settings.get("do_flip_channel_order")),
        crop_rounding="down",
        source="hf processor",
    )


def _hf_resize(settings: Mapping[str, Any], kind: str) -> tuple[Size, Size | None]:
    """Resize, and the crop that ConvNeXt's processor makes part of it."""
    size = settings.get("size")
    if not isinstance(size, Mapping):
        raise InputError(
            f"the processor's size is {size!r}, which Hugging Face reads differently from class to "
            "class: build the processor with AutoImageProcessor and give that"
        )
    given = {name: value for name, value in size.items() if value is not None}
    if set(given) == {"height", "width"} and not kind.startswith("PoolFormer"):
        return (given["height"], given["width"]), None
    if set(given) != {"shortest_edge"}:
        raise InputError(
            f"the processor's size {given} is not supported, only shortest_edge, or height and "
            "width: give --size, --mean and --std"
        )
    edge = given["shortest_edge"]
    if kind.startswith("ConvNext"):
        if edge >= 384:
            return (edge, edge), None
        return int(edge / _required(settings, "crop_pct")), (edge, edge)
    if kind.startswith("PoolFormer"):
        return int(edge / _required(settings, "crop_pct")), None
    if kind.startswith("Levit"):
        return int((256 / 224) * edge), None
    return edge, None


def _compare_with_processor(transform: Transform, processor: Any) -> None:
    """Run both on two images; an error where they differ by more than rounding."""
    scale = torch.tensor(transform.std).view(-1, 1, 1) / transform.scale
    for height, width in ((333, 482), (482, 333)):
        values = torch.rand(
            1, 3, height // 4, width // 4, generator=torch.Generator().manual_seed(0)
        )
        smooth = nn.functional.interpolate(values, (height, width), mode="bilinear")
        pixels = (smooth[0].permute(1, 2, 0) * 255).to(torch.uint8)
        image = Image.fromarray(pixels.numpy())
        theirs = torch.as_tensor(
            np.asarray(processor(images=image, return_tensors="np")["pixel_values"][0])
        )
        ours = transform.normalise(torch.tensor(transform.decode(image))[None])[0]
        if theirs.shape != ours.shape or ((theirs - ours) * scale).abs().mean() > 1.0:
            raise InputError(
                f"what {type(processor).__name__} does to an image is not supported: more than "
                "the resize, centre crop and normalisation of its settings: give --size, --mean "
                "and --std"
            )


def _three(values: float | list[float] | tuple[float, ...]) -> tuple[float, float, float]:
    """A number for all three channels, or one for each."""
    if isinstance(values, int | float):
        return (values, values, values)
    if len(values) != 3:
        raise InputError(f"the processor's mean and std need 3 values each, found {len(values)}")
    return (values[0], values[1], values[2])


def _required(settings: Mapping[str, Any], name: str) -> Any:
    if settings.get(name) is None:
        raise InputError(f"the processor's settings lack {name}: give --size, --mean and --std")
    return settings[name]


def _size_of(values: int | list[int]) -> Size:
    """torchvision's size: a list of one or two numbers, or a number."""
    if isinstance(values, int):
        return values
    return values[0] if len(values) == 1 else (values[0], values[1])


def _hf_pair(size: Any, what: str) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if isinstance(size, Mapping) and size.get("height") and size.get("width"):
        return size["height"], size["width"]
    raise InputError(f"the processor's {what} must have a height and a width, found {size!r}")
