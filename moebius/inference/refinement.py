"""Large holes, level by level: what was made small is enlarged and refined in overlapping tiles."""

from collections.abc import Callable

import numpy as np

from moebius.inference.boxes import Box
from moebius.inference.working_copy import WorkingCopy, resize

STRENGTH = 0.4
"""Of each refinement: the coarse result gives the layout, the last steps the detail."""

OVERLAP = 0.25
"""The least share of a tile that its neighbour has, too."""

Fill = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""Takes tiles (N, s, s, 3) uint8, their holes (N, s, s), and pictures of the tiles' shape to
start from; returns pictures."""


def refine(copy: WorkingCopy, coarse: np.ndarray, tile: int, fill: Fill) -> np.ndarray:
    """Refine the hole of a working copy.

    Args:
        copy: of the finer level, at least a tile large.
        coarse: (H, W, 3) uint8 of any size, what the level before made of the copy's inner part.
        tile: side of a tile.
        fill: runs the model.

    Returns:
        (h, w, 3) uint8 of the copy's size.
    """
    height, width = copy.inner
    inner = copy.image[:height, :width]
    made = np.where(copy.hole[:height, :width, None], resize(coarse, copy.inner), inner)
    margin = tuple(
        (0, whole - part) for whole, part in zip(copy.hole.shape, copy.inner, strict=True)
    )
    start = np.pad(made, (*margin, (0, 0)), mode="symmetric")
    boxes = [box for box in tile_boxes(copy.hole.shape, tile) if copy.hole[box.slices].any()]
    cut = [np.stack([a[box.slices] for box in boxes]) for a in (copy.image, copy.hole, start)]
    return join_tiles(start, boxes, fill(*cut))


def tile_boxes(shape: tuple[int, ...], tile: int) -> list[Box]:
    """Tiles that cover a picture, evenly spread, neighbours sharing at least `OVERLAP`."""
    tops, lefts = ([*_starts(length, tile)] for length in shape[:2])
    return [Box(left, top, left + tile, top + tile) for top in tops for left in lefts]


def _starts(length: int, tile: int) -> np.ndarray:
    stride = (1 - OVERLAP) * tile
    count = 1 + int(np.ceil((length - tile) / stride))
    return np.linspace(0, length - tile, count).round().astype(int)


def join_tiles(picture: np.ndarray, boxes: list[Box], tiles: np.ndarray) -> np.ndarray:
    """Lay tiles on a picture, (h, w, 3) uint8; where tiles overlap, one fades into the next."""
    side = tiles.shape[1]
    # Highest in the middle, never zero: the weight of a tile falls off to all sides.
    fall = np.minimum(np.arange(1, side + 1), np.arange(side, 0, -1)).astype(np.float32)
    weight = np.minimum(fall, OVERLAP * side)
    weight = (weight[:, None] * weight[None, :])[..., None]
    total = np.zeros(picture.shape, np.float32)
    weights = np.zeros((*picture.shape[:2], 1), np.float32)
    for box, made in zip(boxes, tiles, strict=True):
        total[box.slices] += weight * made
        weights[box.slices] += weight
    covered = weights[..., 0] > 0
    result = picture.copy()
    result[covered] = (total[covered] / weights[covered]).round().astype(np.uint8)
    return result
