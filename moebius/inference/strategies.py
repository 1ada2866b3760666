"""Which parts of a photograph are worked on, and how finely.

The model works on squares of the side that it was trained at. Around every hole lies a window:

    crop    a square around the hole, twice its side and no smaller than the model's
    resize  the whole photograph in one window
    tile    a window as in crop; what the model made of it small is then refined in overlapping
            tiles, the resolution doubling until it is the photograph's (see `refinement`)
    auto    crop, and where that would shrink the window to less than half, tile up to 4 times the
            model's side
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from typing import Literal, get_args

import cv2
import numpy as np

from moebius.inference.boxes import Box

Strategy = Literal["auto", "crop", "resize", "tile"]

AUTO_SHRINK = 2
AUTO_SIDES = 4
DILATION = 0.01
"""Radius in proportion to a window's side: 5 pixels at 512, as in the release's training."""


@dataclass(frozen=True)
class Window:
    """A part of the photograph that is worked on at once.

    Attributes:
        box: the part.
        hole: bounding box of the holes that are filled from it.
        parts: bounding boxes of these holes, one by one; other windows' holes that reach into
            this one are hidden from the model, but filled from there.
        sides: longer side of the working copy, level after level; the first is the model's.
        dilation: radius in pixels of the photograph.
    """

    box: Box
    hole: Box
    parts: tuple[Box, ...]
    sides: tuple[int, ...]
    dilation: int


def plan_windows(
    hole: np.ndarray, *, side: int, strategy: Strategy = "auto", dilation: int | None = None
) -> list[Window]:
    """The windows that together fill every hole, from the top; each hole is filled from one.

    Args:
        hole: (H, W) bool.
        side: that the model works at.
        strategy: see above.
        dilation: radius in pixels; by default `DILATION` of each window's longer side.

    Raises:
        ValueError: unknown strategy or negative dilation.
    """
    if strategy not in get_args(Strategy):
        raise ValueError(f"strategy {strategy!r} is unknown: use {', '.join(get_args(Strategy))}")
    if dilation is not None and dilation < 0:
        raise ValueError(f"dilation is {dilation}: give a radius in pixels, 0 for none")
    photo = Box(0, 0, hole.shape[1], hole.shape[0])
    # A grid of cells finds the holes in little memory, and joins what lies within a cell or two.
    found = find_holes(hole, cell=max(1, side // 64))
    groups = [found] if strategy == "resize" and found else _grouped(found, side, dilation)
    windows = []
    for parts in groups:
        box = _union(parts)
        around = photo if strategy == "resize" else _around(box.grown(dilation or 0), photo, side)
        radius = max(1, round(DILATION * around.side)) if dilation is None else dilation
        sides = _sides(around.side, side, strategy)
        windows.append(Window(around, box, tuple(parts), sides, radius))
    return sorted(windows, key=lambda window: (window.hole.top, window.hole.left))


def find_holes(hole: np.ndarray, cell: int) -> list[Box]:
    """Bounding boxes of the holes; holes in the same or in touching cells of a grid are one."""
    rows = np.logical_or.reduceat(hole, np.arange(0, hole.shape[0], cell), axis=0)
    grid = np.logical_or.reduceat(rows, np.arange(0, hole.shape[1], cell), axis=1)
    count, _, stats, _ = cv2.connectedComponentsWithStats(grid.view(np.uint8), connectivity=8)
    boxes = []
    for x, y, width, height, _ in stats[1:count].tolist():
        part = hole[y * cell : (y + height) * cell, x * cell : (x + width) * cell]
        ys, xs = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
        left, top = x * cell, y * cell
        boxes.append(
            Box(*map(int, (left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1)))
        )
    return boxes


def _grouped(holes: list[Box], side: int, dilation: int | None) -> list[list[Box]]:
    """Holes that share a window: those close to each other, then what fits into it at no cost."""
    groups: list[tuple[Box, list[Box]]] = []
    for parts in _linked(holes, max(side // 64, dilation or 0) + 1):
        box = _union(parts)
        for n, (other, others) in enumerate(groups):
            if 2 * box.union(other).side <= side:
                groups[n] = (box.union(other), others + parts)
                break
        else:
            groups.append((box, parts))
    return [parts for _, parts in groups]


def _linked(holes: list[Box], reach: int) -> list[list[Box]]:
    """Chains of holes, each within the next one's surroundings: a quarter of its side."""
    corners = np.array(holes).reshape(-1, 4)
    extent = np.maximum(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    grown = np.maximum(extent // 4, reach)[:, None] * [-1, -1, 1, 1] + corners
    label = np.arange(len(holes))
    for box in grown:
        near = (grown[:, :2] < box[2:]).all(axis=1) & (box[:2] < grown[:, 2:]).all(axis=1)
        merged = np.unique(label[near])
        label[np.isin(label, merged)] = merged[0]
    return [[holes[n] for n in np.flatnonzero(label == one)] for one in np.unique(label)]


def _union(boxes: Iterable[Box]) -> Box:
    return reduce(Box.union, boxes)


def _around(hole: Box, photo: Box, side: int) -> Box:
    """A square around a hole, moved into the photograph and cut where that is smaller."""
    wanted = max(side, 2 * hole.side)
    corner = []
    for low, high, extent in (
        (hole.left, hole.right, photo.right),
        (hole.top, hole.bottom, photo.bottom),
    ):
        length = min(wanted, extent)
        start = min(max((low + high - length) // 2, 0), extent - length)
        corner.append((start, start + length))
    (left, right), (top, bottom) = corner
    return Box(left, top, right, bottom)


def _sides(native: int, side: int, strategy: Strategy) -> tuple[int, ...]:
    """The model's side, then doubled up to the finest that the strategy works at."""
    finest = side
    if strategy == "tile":
        finest = native
    elif strategy == "auto" and native > AUTO_SHRINK * side:
        finest = min(native, AUTO_SIDES * side)
    sides = [side]
    while sides[-1] < finest:
        sides.append(min(2 * sides[-1], finest))
    return tuple(sides)
