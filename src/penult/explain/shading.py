"""Shading: the colour behind a word, by what it adds."""

from __future__ import annotations

from penult.explain.overlay import ABOVE, BELOW

FAINTEST = 0.06  # of the strongest word's: what is left without colour
DEEPEST = 0.75  # how much of the full colour lies behind the strongest word: text stays legible

Colour = tuple[int, int, int]


def shaded(strength: float) -> Colour | None:
    """Red, green and blue behind a word; None for none.

    Args:
        strength: in [-1, 1]; orange above zero, blue below, deeper the stronger.
    """
    if abs(strength) < FAINTEST:
        return None
    depth = DEEPEST * min(abs(strength), 1.0)
    red, green, blue = (
        round(255 + (full - 255) * depth) for full in (ABOVE if strength > 0 else BELOW)
    )
    return red, green, blue
