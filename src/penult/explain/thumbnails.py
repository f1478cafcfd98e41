"""Thumbnails: what the network sees in an image, and a heat map of it, as small as a page needs."""

from __future__ import annotations

import io

import torch
from PIL import Image, features
from torch import Tensor

SIDE = 64  # pixels of a picture's longer side
QUALITY = 78


def picture_of(pixels: Tensor, *, exact: bool = True, side: int = SIDE) -> bytes:
    """A small picture of what the network sees: uint8 (h, w, c), or a float tensor (c, h, w).

    Of a tensor that came ready for the network the values between its least and its largest are
    spread over the grey levels. Where `exact`, tiny images keep every pixel as it is. No
    picture is larger than its image.
    """
    image = image_of(pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=None)
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


def coarser(maps: Tensor, most: int) -> Tensor:
    """Maps (n, h, w) of at most `most` cells a side, each with the same mean.

    A cell is the mean of the area that it covers; cells that it cuts count by the part within.
    """
    h, w = maps.shape[1:]
    if max(h, w) <= most:
        return maps
    rows, columns = _areas(h, min(h, most)).to(maps), _areas(w, min(w, most)).to(maps)
    return rows @ maps @ columns.T


def _areas(n: int, n_cells: int) -> Tensor:
    """(n_cells, n): the part that each of n equal lengths has in each of n_cells longer ones."""
    left = torch.arange(n, dtype=torch.float64)
    edges = torch.arange(n_cells + 1, dtype=torch.float64)[:, None] * n / n_cells
    inside = torch.minimum(left + 1, edges[1:]) - torch.maximum(left, edges[:-1])
    return inside.clamp_min(0) * n_cells / n
