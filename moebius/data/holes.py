"""The hole of one sample and the crop around it (protocols 2.3, trap 17)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moebius.data.manifest import Record
from moebius.data.masks import Mask, draw_mask
from moebius.data.sample_spec import SampleSpec
from moebius.data.transforms import (
    UnreadableImage,
    dilate,
    extents,
    load_mask,
    resize_mask,
    window_start,
)

EXTRA_MASK_PROBABILITY = 0.5
ATTEMPTS = 100
"""Draws of a hole before its record is given up."""


def draw_hole(
    record: Record,
    objects: Sequence[Path],
    spec: SampleSpec,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[Mask, int, int]:
    """Draw a hole that is neither empty nor too large, and the crop that shows it.

    Args:
        record: whose picture is cut.
        objects: masks of the foreground items, for `spec.extra_foreground_mask`.
        spec: how to draw.
        size: width and height of the resized picture.
        rng: source of randomness.

    Returns:
        The hole, (spec.size, spec.size), and the top and left of the crop in the picture.

    Raises:
        UnreadableImage: the record's mask cannot be read, has not the picture's shape, or gives no
            such hole.
    """
    own = _own_mask(record.mask, size) if record.mask else None
    is_object = record.category == "foreground"
    limit = 1.0 if is_object else spec.max_hole
    missed = False
    for _ in range(ATTEMPTS):
        mask = own if is_object else _background_mask(own, objects, spec, size, rng)
        assert mask is not None, "a foreground record has a mask"
        if not mask.any():
            continue
        if rng.random() < spec.dilation_probability:
            mask = dilate(mask, rng)
        top, left = _place_crop(mask, spec.size, rng, aim=missed)
        hole = mask[top : top + spec.size, left : left + spec.size]
        missed = not hole.any()
        if not missed and hole.mean() <= limit:
            return hole, top, left
    culprit = f"the mask {record.mask} (white = hole)" if record.mask else "background_mask"
    raise UnreadableImage(
        f"no hole of more than 0 and at most {limit:g} of the crop in {ATTEMPTS} draws: "
        f"check {culprit} and max_hole"
    )


def _own_mask(path: Path, size: tuple[int, int]) -> Mask:
    """A record's mask at the picture's size; it may be stored at another scale."""
    mask = load_mask(path)
    (width, height), (w, h) = size, mask.size
    # Each side of either may have been rounded to a whole pixel.
    if abs(w * height - h * width) > max(w + h, width + height):
        raise UnreadableImage(
            f"the mask {path} of {w}x{h} pixels is not of its picture ({width}x{height} at this "
            "scale): give one of the same shape"
        )
    return resize_mask(mask, width, height)


def _background_mask(
    scene: Mask | None,
    objects: Sequence[Path],
    spec: SampleSpec,
    size: tuple[int, int],
    rng: np.random.Generator,
) -> Mask:
    width, height = size
    if scene is not None and rng.random() < spec.scene_mask_probability:
        mask = scene
    else:
        mask = draw_mask(spec.background_mask, height, width, rng)
    if spec.extra_foreground_mask and rng.random() < EXTRA_MASK_PROBABILITY:
        # The union of the paper; the release intersects, which is often empty (trap 17).
        mask = mask | _object_mask(objects[int(rng.integers(len(objects)))], size)
    return mask


def _object_mask(path: Path, size: tuple[int, int]) -> Mask:
    """Read a foreground item's mask; empty where unreadable, which its own draw reports."""
    try:
        return resize_mask(load_mask(path), *size)
    except UnreadableImage:
        return np.zeros(size[::-1], np.uint8)


def _place_crop(mask: Mask, side: int, rng: np.random.Generator, aim: bool) -> tuple[int, int]:
    rows, columns = extents(mask)
    if aim:
        # A scattered hole may miss its own centre: aim at one of its pixels instead.
        row, column = divmod(int(rng.choice(np.flatnonzero(mask))), mask.shape[1])
        rows, columns = (row, row), (column, column)
    top = window_start(mask.shape[0], side, rows, rng)
    return top, window_start(mask.shape[1], side, columns, rng)
