"""Random masks by name: LaMa's family and CoModGAN's."""

from __future__ import annotations

from moebius.data.masks.comodgan import COMODGAN
from moebius.data.masks.generator import Mask, MaskGenerator, Rng
from moebius.data.masks.lama import LAMA

MASKS: dict[str, MaskGenerator] = {**LAMA, **COMODGAN}
"""The number in a name is the side of the square that the variant was made for."""

MIN_SIDE = 8
"""Smallest side of a canvas in pixels."""


def draw_mask(name: str, height: int, width: int, rng: Rng) -> Mask:
    """Draw one mask of a variant in `MASKS`.

    A canvas whose short side is the variant's native side gets exactly the published masks. On
    any other canvas every length is multiplied by short side / native side, so the shapes keep
    their place in the picture; the numbers drawn at random are the same.

    Args:
        name: key of `MASKS`, for example `lama_medium_512`.
        height: of the canvas, in pixels.
        width: of the canvas, in pixels.
        rng: the only source of randomness.

    Returns:
        uint8 (height, width), 1 = hole. LaMa's masks may be empty or nearly full.

    Raises:
        ValueError: unknown name, or a side below `MIN_SIDE`.
    """
    if name not in MASKS:
        raise ValueError(f"unknown mask generator {name!r}: use one of {', '.join(MASKS)}")
    if min(height, width) < MIN_SIDE:
        raise ValueError(f"no mask of {height}x{width} pixels: sides start at {MIN_SIDE}")
    return MASKS[name].draw(height, width, rng)


__all__ = ["MASKS", "Mask", "MaskGenerator", "Rng", "draw_mask"]
