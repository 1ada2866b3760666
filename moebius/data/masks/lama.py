"""LaMa's masks: thick lines or boxes, never both (protocols 2.2, after arXiv 2109.07161)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from moebius.data.masks.generator import Mask, Rng, integer, scaled

BOX_SHARE = 0.3 / 1.3
"""Weights of lines and boxes in LaMa's test sets are 1 and 0.3."""


@dataclass(frozen=True)
class Lines:
    """Chains of one to five straight segments, drawn one after the other."""

    min_count: int
    max_count: int
    """LaMa adds one to this bound before it draws, and so does `draw`."""
    max_thickness: int
    """Thickness is 5 + U{0..max_thickness-1} pixels."""
    max_length: int
    """Length of a segment is 10 + U{0..max_length-1} pixels."""

    def draw(self, mask: Mask, scale: float, rng: Rng) -> None:
        """Draw a random number of chains into `mask`."""
        for chain in range(integer(rng, self.min_count, self.max_count + 2)):
            self._draw_chain(mask, scale, rng, mirrored=chain % 2 == 0)

    def _draw_chain(self, mask: Mask, scale: float, rng: Rng, mirrored: bool) -> None:
        height, width = mask.shape
        x, y = integer(rng, 0, width), integer(rng, 0, height)
        for _ in range(1 + integer(rng, 0, 5)):
            angle = 0.01 + integer(rng, 0, 4)
            if mirrored:
                angle = math.tau - angle
            length = scale * (10 + integer(rng, 0, self.max_length))
            thickness = scaled(5 + integer(rng, 0, self.max_thickness), scale)
            # The upper bound is the size itself, one past the last pixel, as in LaMa.
            end_x = min(max(int(x + length * math.sin(angle)), 0), width)
            end_y = min(max(int(y + length * math.cos(angle)), 0), height)
            cv2.line(mask, (x, y), (end_x, end_y), 1, thickness)
            x, y = end_x, end_y


@dataclass(frozen=True)
class Boxes:
    """Upright rectangles inside a margin."""

    min_count: int
    max_count: int
    min_side: int
    max_side: int
    """Inclusive; must leave room for the margin on both sides of the native square."""
    margin: int

    def draw(self, mask: Mask, scale: float, rng: Rng) -> None:
        """Draw a random number of boxes into `mask`."""
        height, width = mask.shape
        margin = round(self.margin * scale)
        for _ in range(integer(rng, self.min_count, self.max_count + 1)):
            box_width = scaled(integer(rng, self.min_side, self.max_side + 1), scale)
            box_height = scaled(integer(rng, self.min_side, self.max_side + 1), scale)
            x = integer(rng, margin, width - margin - box_width + 1)
            y = integer(rng, margin, height - margin - box_height + 1)
            mask[y : y + box_height, x : x + box_width] = 1


@dataclass(frozen=True)
class LamaMasks:
    """One configuration of LaMa's test-set generator: lines, or boxes with `BOX_SHARE`.

    The order of draws is LaMa's, so a `RandomState` replays its masks at the native size. Its
    selection among five draws belongs to the making of test sets and is not part of a draw.
    """

    native: int
    lines: Lines
    boxes: Boxes | None = None
    """None: lines only."""

    def draw(self, height: int, width: int, rng: Rng) -> Mask:
        """See `MaskGenerator.draw`."""
        mask = np.zeros((height, width), np.uint8)
        scale = min(height, width) / self.native
        # The choice is drawn even where there is none, as LaMa does.
        boxed = rng.random() >= 1 - BOX_SHARE
        shapes = self.boxes if boxed and self.boxes else self.lines
        shapes.draw(mask, scale, rng)
        return mask


LAMA: dict[str, LamaMasks] = {
    "lama_thick_512": LamaMasks(512, Lines(1, 5, 250, 450), Boxes(1, 4, 30, 300, margin=10)),
    "lama_medium_512": LamaMasks(512, Lines(4, 10, 100, 200), Boxes(1, 5, 30, 150, margin=0)),
    "lama_thin_512": LamaMasks(512, Lines(4, 70, 20, 100)),
    "lama_thick_256": LamaMasks(256, Lines(1, 5, 100, 200), Boxes(1, 3, 30, 150, margin=10)),
    "lama_medium_256": LamaMasks(256, Lines(4, 5, 50, 100), Boxes(1, 5, 10, 50, margin=0)),
    "lama_thin_256": LamaMasks(256, Lines(4, 50, 10, 40)),
}
