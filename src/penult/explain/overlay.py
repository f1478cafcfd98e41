"""Overlay: a heat map drawn over the image that it belongs to."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from penult.explain.maps import upsampled

# Okabe and Ito's vermilion and blue, told apart by the colour-blind.
ABOVE, BELOW = (213, 94, 0), (0, 114, 178)
OPACITY = 0.85
LEAST_SIDE = 96
LEAST_SPAN = 0.15  # of the largest value: what exceeds the mean by less is no full colour


def standing_out(map: Tensor, top: float) -> Tensor:
    """How far each place of a map stands out, in [-1, 1]: what a picture of it colours.

    Places no stronger than the map's mean strength are 0, those of strength `top` are 1, or −1
    where the map is below zero. So a feature that is strong everywhere, as one capped at 6 is
    nearly all over its best images, still shows where it is stronger than elsewhere.

    Args:
        map: (h, w), or several, (n, h, w).
        top: the |value| of full colour, the same for all maps that are to be compared.
    """
    strength = map.abs()
    mean = strength.mean((-2, -1), keepdim=True)
    span = (top - mean).clamp_min(max(LEAST_SPAN * top, 1e-12))
    return map.sign() * ((strength - mean) / span).clamp(0, 1)


def overlay(image: Image.Image, map: Tensor, scale: float | None = None) -> Image.Image:
    """The image in grey with the map in colour over it: warm where above zero, blue where below.

    Only what stands out is coloured, see `standing_out`.

    Args:
        image: what the network saw.
        map: (h, w) of one feature; spread smoothly over the image.
        scale: the |value| of full colour; the map's largest where None.
    """
    image = enlarged(image)
    size = (image.height, image.width)
    top = float(map.abs().max()) if scale is None else scale
    strength = upsampled(standing_out(map.float(), top)[None], size)[0]
    opacity = (strength.abs() ** 0.7 * OPACITY)[:, :, None].numpy()
    colour = torch.where(strength[:, :, None] > 0, torch.tensor(ABOVE), torch.tensor(BELOW)).numpy()
    grey = np.asarray(image.convert("L").convert("RGB"), np.float32)
    mixed: NDArray[np.float32] = grey * (1 - opacity) + colour * opacity
    return Image.fromarray(mixed.round().astype(np.uint8))


def enlarged(image: Image.Image) -> Image.Image:
    """A tiny image with whole pixels repeated, so that what is drawn over it is smooth."""
    factor = -(-LEAST_SIDE // max(image.size))
    if factor <= 1:
        return image
    size = (image.width * factor, image.height * factor)
    return image.resize(size, Image.Resampling.NEAREST)


def data_uri(image: Image.Image) -> str:
    """The image as text that a page can hold."""
    kept = io.BytesIO()
    image.save(kept, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(kept.getvalue()).decode()}"
