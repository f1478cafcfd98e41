"""Images of noise, whose every pixel counts."""

from __future__ import annotations

import numpy as np
from PIL import Image


def noise(height: int, width: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """An image whose every pixel differs from its neighbours, so that a shift by one shows."""
    generator = np.random.default_rng(seed)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8))
