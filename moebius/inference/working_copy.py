"""The copy of a window that the model sees: of the side that it works at, padded to a square."""

from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from moebius.inference.masks import resize_hole

MAX_ENLARGEMENT = 2


@dataclass(frozen=True)
class WorkingCopy:
    """A part of a photograph brought to a model's size, and the way back.

    Attributes:
        image: (h, w, 3) uint8.
        hole: (h, w) bool.
        inner: (height, width) before padding.
        full: (height, width) of the part itself.
    """

    image: np.ndarray
    hole: np.ndarray
    inner: tuple[int, int]
    full: tuple[int, int]

    def restore(self, generated: np.ndarray) -> np.ndarray:
        """Crop the padding off (h, w, 3) uint8 and resize it to the part's size."""
        height, width = self.inner
        return resize(generated[:height, :width], self.full)


def make_working_copy(image: np.ndarray, hole: np.ndarray, *, side: int, least: int) -> WorkingCopy:
    """Resize until the longer side is `side`, then mirror at the bottom and at the right.

    Small pictures are enlarged `MAX_ENLARGEMENT` times at most. A pixel is hole if any that it
    covers is. Nothing that a hole hides gets into known pixels: not through the filter, which spans
    several, nor through the padding, which mirrors holes, too.

    Args:
        image: (H, W, 3) uint8.
        hole: (H, W) bool.
        side: pixels.
        least: what both sides are padded to at least.
    """
    full = (hole.shape[0], hole.shape[1])
    scale = min(MAX_ENLARGEMENT, side / max(full))
    inner = (max(1, round(scale * full[0])), max(1, round(scale * full[1])))
    if inner != full:
        shown, plain = resize(_extended(image, hole), inner), resize(image, inner)
        hole = resize_hole(hole, inner[::-1])
        image = np.where(hole[..., None], plain, shown)
    margin = tuple((0, max(0, least - length)) for length in inner)
    return WorkingCopy(
        image=np.pad(image, (*margin, (0, 0)), mode="symmetric"),
        hole=np.pad(hole, margin, mode="symmetric"),
        inner=inner,
        full=full,
    )


def _extended(image: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """(H, W, 3) with every hole pixel in the colour of the nearest known one."""
    if hole.all() or not hole.any():
        return image
    _, labels = cv2.distanceTransformWithLabels(
        hole.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    colours = np.zeros((labels.max() + 1, 3), np.uint8)
    colours[labels[~hole]] = image[~hole]
    return np.where(hole[..., None], colours[labels], image)


def resize(image: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 at another (height, width), by Lanczos with antialiasing."""
    if image.shape[:2] == shape:
        return image
    return np.asarray(Image.fromarray(image).resize(shape[::-1], Image.Resampling.LANCZOS))
