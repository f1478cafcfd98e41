"""Thumbnails: what the network sees in an image, as a picture and as a small file."""

from __future__ import annotations

import io

import torch
from PIL import Image, features
from torch import Tensor

SIDE = 64  # pixels of a picture
QUALITY = 78


def picture_of(pixels: Tensor, *, exact: bool = True) -> bytes:
    """A small picture of what the network sees: uint8 (h, w, c), or a float tensor (c, h, w).

    Of a tensor that came ready for the network the values between its least and its largest are
    spread over the grey levels. Where `exact`, tiny images keep every pixel as it is.
    """
    image = image_of(pixels)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    kept = io.BytesIO()
    if features.check("webp"):
        tiny = max(image.size) <= SIDE // 2
        image.save(kept, "WEBP", quality=QUALITY, method=4, lossless=exact and tiny)
    else:
        image.save(kept, "PNG", optimize=True)
    return kept.getvalue()


def image_of(pixels: Tensor) -> Image.Image:
    """The image that the network sees, as a picture."""
    if pixels.is_floating_point():
        low, high = pixels.min(), pixels.max()
        pixels = (pixels - low) / (high - low).clamp(min=1e-12) * 255
        pixels = pixels.round().to(torch.uint8).permute(1, 2, 0)
        if pixels.shape[2] not in (1, 3):
            pixels = pixels[:, :, :1]
    array = pixels.numpy()
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).convert("RGB")
