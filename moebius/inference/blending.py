"""Putting the synthesised hole back into the photograph.

With d(p) the distance of pixel p to the hole (0 inside) and r the dilation's radius, every blend
keeps the photograph to the byte where d > r. The ring 0 < d <= r is where the two are mixed:

    hard       all of the ring is synthesised
    feather    the inner half of the ring is synthesised; a linear ramp over the outer half
    laplacian  likewise, fine detail changing over a narrower part of the outer half than colour
               (Burt & Adelson 1983)
    poisson    hard, after the harmonic shift that makes the synthesised part meet the photograph
               at d = r (Perez et al. 2003)

Without dilation there is no ring, and feather and laplacian are hard.
"""

from typing import Literal, get_args

import cv2
import numpy as np

Blend = Literal["feather", "hard", "laplacian", "poisson"]

SWEEPS = 40
COARSEST = 4


def check_blend(blend: str) -> None:
    """Raises ValueError for a blend that there is not."""
    if blend not in get_args(Blend):
        raise ValueError(f"blend {blend!r} is unknown: use {', '.join(get_args(Blend))}")


def composite(
    known: np.ndarray,
    generated: np.ndarray,
    distance: np.ndarray,
    *,
    radius: int,
    blend: Blend = "feather",
    reach: int = 0,
) -> np.ndarray:
    """Mix a synthesised picture into a photograph.

    Args:
        known: (H, W, 3) uint8.
        generated: (H, W, 3) uint8.
        distance: (H, W), to the hole before dilation, see `distance_to_hole`.
        radius: of the dilation, pixels.
        blend: see above.
        reach: colour compensation: the synthesised picture is first shifted, channel by channel,
            by its mean difference to the known pixels up to so far beyond the ring; 0 for none.

    Returns:
        (H, W, 3) uint8.
    """
    assert known.dtype == generated.dtype == np.uint8
    assert known.shape == generated.shape == (*distance.shape, 3)
    inside = distance <= radius
    levels = generated.astype(np.float32)
    if reach:
        near = ~inside & (distance <= radius + reach)
        if near.any():
            levels += (known[near].astype(np.float32) - levels[near]).mean(axis=0)
    if blend == "poisson":
        levels += harmonic(known - levels, ~inside)
    elif blend != "hard":
        ring = inside & (distance > 0)
        mixed = _mixed(known, levels, distance, radius, blend)
        levels[ring] = mixed[ring]
    result = known.copy()
    result[inside] = levels[inside].round().clip(0, 255).astype(np.uint8)
    return result


def harmonic(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Continue (H, W, 3) float32 values from where they are given so that they are harmonic.

    Solved from coarse to fine, with `SWEEPS` Jacobi sweeps a level; the picture's border is free.
    Zero everywhere where nothing is given.
    """
    if not given.any():
        return np.zeros_like(values)
    values = np.where(given[..., None], values, 0).astype(np.float32)
    height, width = given.shape
    if min(height, width) > COARSEST and not given.all():
        size = ((width + 1) // 2, (height + 1) // 2)
        weight = cv2.resize(given.astype(np.float32), size, interpolation=cv2.INTER_AREA)
        coarse = cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        coarse = coarse / np.maximum(weight, 1e-6)[..., None]
        start = cv2.resize(harmonic(coarse, weight > 0), (width, height))
    else:
        start = np.broadcast_to(values[given].mean(axis=0), values.shape)
    missing = ~given
    values[missing] = start[missing]
    cross = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32) / 4
    for _ in range(SWEEPS):
        values[missing] = cv2.filter2D(values, -1, cross, borderType=cv2.BORDER_REPLICATE)[missing]
    return values


def _mixed(
    known: np.ndarray, levels: np.ndarray, distance: np.ndarray, radius: int, blend: Blend
) -> np.ndarray:
    """(H, W, 3) float32, to be used in the ring."""
    difference = levels - known
    if blend == "feather":
        return known + _ramp(distance, radius, 1)[..., None] * difference
    # Only where the photograph is valid: what it shows inside the hole must not leak out.
    valid = (distance > 0).astype(np.float32)
    coarse = _blurred(difference, valid, radius / 4)
    fine = _blurred(difference, valid, radius / 16)
    bands = (coarse, fine - coarse, difference - fine)
    ramps = (_ramp(distance, radius, width) for width in (1, 1 / 2, 1 / 4))
    return known + sum(ramp[..., None] * band for ramp, band in zip(ramps, bands, strict=True))


def _ramp(distance: np.ndarray, radius: int, width: float) -> np.ndarray:
    """From 1 to 0 around the middle of the ring's outer half, over a share `width` of it.

    The whole ramp is 1 up to half the radius, and 0 a pixel beyond the radius.
    """
    low, high = radius / 2, radius + 1
    middle, half = (low + high) / 2, width * (high - low) / 2
    return ((middle + half - distance) / (2 * half)).clip(0, 1)


def _blurred(values: np.ndarray, valid: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over the valid pixels."""
    if sigma < 0.1:
        return values
    total = cv2.GaussianBlur(values * valid[..., None], (0, 0), sigma)
    weight = cv2.GaussianBlur(valid, (0, 0), sigma)
    return total / np.maximum(weight, 1e-6)[..., None]
