"""Masks of CoModGAN, MAT and MI-GAN: rectangles and brush strokes together (protocols 2.1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from moebius.data.masks.generator import Mask, Rng, integer

MEAN_TURN = 2 * math.pi / 5
TURN_SPREAD = 2 * math.pi / 15


@dataclass(frozen=True)
class ComodganMasks:
    """One configuration of the family; variants differ in the three counts only.

    Counts are exclusive upper bounds. All lengths follow the canvas by themselves, except the
    thickness of strokes (12 to 48 pixels of the native square). The order of draws is MAT's, and
    strokes are drawn with Pillow as there, so a `RandomState` replays its masks at the native
    size.
    """

    native: int
    half_boxes: int
    """Rectangles of up to half of the canvas' sides."""
    boxes: int
    """Rectangles of up to the whole of the canvas' sides."""
    strokes: int

    def draw(self, height: int, width: int, rng: Rng) -> Mask:
        """See `MaskGenerator.draw`; an empty or a full mask is drawn anew."""
        while True:
            mask = np.zeros((height, width), np.uint8)
            _fill(mask, self.half_boxes, height // 2, width // 2, rng)
            _fill(mask, self.boxes, height, width, rng)
            mask |= self._brush(height, width, rng)
            if 0 < mask.mean() < 1:
                return mask

    def _brush(self, height: int, width: int, rng: Rng) -> Mask:
        layer = Image.new("L", (width, height), 0)
        scale = min(height, width) / self.native
        for _ in range(integer(rng, 0, self.strokes)):
            vertices = _stroke(height, width, rng)
            thickness = max(1, int(scale * rng.uniform(12, 48)))
            _paint(layer, vertices, thickness)
            # MAT draws two flips here and loses their results: only the numbers are used up.
            rng.random()
            rng.random()
        brushed = np.asarray(layer)
        if rng.random() > 0.5:
            brushed = brushed[::-1]
        if rng.random() > 0.5:
            brushed = brushed[:, ::-1]
        return brushed


def _fill(mask: Mask, count: int, max_height: int, max_width: int, rng: Rng) -> None:
    """Mark fewer than `count` rectangles, which may stick out of the canvas by half."""
    height, width = mask.shape
    for _ in range(integer(rng, 0, count)):
        w, h = integer(rng, 0, max_width), integer(rng, 0, max_height)
        x = integer(rng, -(w // 2), width - w + w // 2)
        y = integer(rng, -(h // 2), height - h + h // 2)
        mask[max(y, 0) : y + h, max(x, 0) : x + w] = 1


def _stroke(height: int, width: int, rng: Rng) -> list[tuple[int, int]]:
    """Walk 4 to 17 zigzag steps from a random pixel; returns the (x, y) vertices."""
    radius = math.hypot(height, width) / 8
    steps = integer(rng, 4, 18)
    low = MEAN_TURN - rng.uniform(0, TURN_SPREAD)
    high = MEAN_TURN + rng.uniform(0, TURN_SPREAD)
    angles = [rng.uniform(low, high) for _ in range(steps)]
    x, y = integer(rng, 0, width), integer(rng, 0, height)
    vertices = [(x, y)]
    for step, angle in enumerate(angles):
        if step % 2 == 0:
            angle = math.tau - angle
        length = min(max(rng.normal(radius, radius // 2), 0), 2 * radius)
        x = int(min(max(x + length * math.cos(angle), 0), width))
        y = int(min(max(y + length * math.sin(angle), 0), height))
        vertices.append((x, y))
    return vertices


def _paint(layer: Image.Image, vertices: list[tuple[int, int]], thickness: int) -> None:
    """Draw the polyline with a filled disc at every vertex."""
    pen = ImageDraw.Draw(layer)
    pen.line(vertices, fill=1, width=thickness)
    radius = thickness // 2
    for x, y in vertices:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=1)


COMODGAN: dict[str, ComodganMasks] = {
    "mat_512_large": ComodganMasks(512, half_boxes=5, boxes=3, strokes=9),
    "mat_512_small": ComodganMasks(512, half_boxes=3, boxes=2, strokes=4),
    "mat_256_large": ComodganMasks(256, half_boxes=4, boxes=2, strokes=8),
    "mat_256_small": ComodganMasks(256, half_boxes=2, boxes=2, strokes=3),
    "free_form_512": ComodganMasks(512, half_boxes=10, boxes=5, strokes=20),
    "free_form_256": ComodganMasks(256, half_boxes=10, boxes=5, strokes=20),
}
