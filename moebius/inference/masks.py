"""Masks as people make them, read as one thing: an (H, W) bool array, True = hole.

White and opaque means fill. Grey counts from 128, transparent never.
"""

from collections.abc import Sequence
from typing import TypeAlias, TypeGuard

import cv2
import numpy as np
from PIL import Image

from moebius.inference.boxes import Box
from moebius.inference.photograph import upright

Boxes: TypeAlias = Sequence[tuple[int, int, int, int]]
Mask: TypeAlias = Image.Image | np.ndarray | Boxes

_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX")


def read_hole(
    mask: Mask, size: tuple[int, int], *, invert: bool = False, fit: bool = False
) -> np.ndarray:
    """Where to fill.

    Args:
        mask: a picture; an (H, W) array of bool, uint8 or floats in [0, 1]; or boxes
            (left, top, right, bottom) in pixels of the upright photograph.
        size: (width, height) of the upright photograph.
        invert: fill what is not white instead.
        fit: resize a mask of another size; a pixel is hole if any that it covers is.

    Raises:
        ValueError: another size and not `fit`, more than 8 bits, or a box outside.
    """
    hole = _from_boxes(mask, size) if is_boxes(mask) else _from_picture(mask)
    if hole.shape != size[::-1]:
        if not fit:
            raise ValueError(
                f"the mask is {hole.shape[1]}x{hole.shape[0]} pixels and the image "
                f"{size[0]}x{size[1]} (upright): resize the mask, or ask to fit it"
            )
        hole = resize_hole(hole, size)
    return np.logical_not(hole, out=hole) if invert else hole


def is_boxes(mask: object) -> TypeGuard[Boxes]:
    """Whether this is a list of boxes, not a list of masks."""
    return (
        isinstance(mask, Sequence)
        and len(mask) > 0
        and all(
            isinstance(box, Sequence)
            and len(box) == 4
            and all(isinstance(x, int | np.integer) for x in box)
            for box in mask
        )
    )


def resize_hole(hole: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool at another (width, height); no hole is lost, however thin."""
    # Floats, because in bytes a box average of a thin stroke could round to nothing.
    cover = Image.fromarray(hole.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(cover) > 0


def distance_to_hole(hole: np.ndarray) -> np.ndarray:
    """(H, W) float32: pixels to the nearest hole pixel, 0 inside; infinite without a hole."""
    if not hole.any():
        return np.full(hole.shape, np.inf, np.float32)
    return cv2.distanceTransform((~hole).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)


def _from_picture(mask: Mask) -> np.ndarray:
    if isinstance(mask, np.ndarray):
        if mask.ndim != 2 or mask.dtype.kind not in "buf" or mask.dtype.itemsize == 2:
            raise ValueError(
                f"the mask is an array {mask.shape} of {mask.dtype}: "
                "give (H, W) of bool, uint8, or floats in [0, 1]"
            )
        return mask >= {"b": True, "u": 128, "f": 0.5}[mask.dtype.kind]
    mask = upright(mask, "mask")
    if mask.mode not in _MODES:
        raise ValueError(f"the mask has mode {mask.mode!r}: convert it to grey")
    if mask.mode in ("PA", "LA", "RGBA") or "transparency" in mask.info:
        paint = mask.convert("RGBA")
        mask = Image.new("L", mask.size)
        mask.paste(paint.convert("L"), mask=paint.getchannel("A"))
    return np.asarray(mask.convert("L")) >= 128


def _from_boxes(boxes: Boxes, size: tuple[int, int]) -> np.ndarray:
    hole = np.zeros(size[::-1], bool)
    for given in boxes:
        box = Box(*given).within(Box(0, 0, *size))
        if box.width <= 0 or box.height <= 0:
            raise ValueError(
                f"box {tuple(given)} holds no pixel of the image of {size[0]}x{size[1]}: "
                "give left, top, right, bottom"
            )
        hole[box.slices] = True
    return hole
