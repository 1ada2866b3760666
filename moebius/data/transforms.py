"""Pictures from files to tensors: decode, resize, dilate, place a window (protocols 2.3)."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from moebius.data.masks import Mask

_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


class UnreadableImage(ValueError):
    """A file that cannot serve as a picture or a mask; the message names it and says why."""


def load_image(path: Path) -> Image.Image:
    """Decode a picture as 8-bit RGB, upright; what is transparent becomes white.

    Raises:
        UnreadableImage: missing or broken file, or more pixels than Pillow's limit.
    """
    return _decode(path, _WHITE)


def load_mask(path: Path) -> Image.Image:
    """Decode a mask as 8-bit grey, upright, white = hole; what is transparent is known.

    Raises:
        UnreadableImage: missing or broken file, or more pixels than Pillow's limit.
    """
    return _decode(path, _BLACK).convert("L")


def _decode(path: Path, backdrop: tuple[int, int, int]) -> Image.Image:
    try:
        with Image.open(path) as image:
            _check_pixels(image.size)
            return _to_rgb(ImageOps.exif_transpose(image), backdrop)
    # Decoders answer broken bytes with nearly any exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise UnreadableImage(f"cannot read {path}: {reason}") from error


def _check_pixels(size: tuple[int, int]) -> None:
    # Pillow itself only warns between its limit and twice the limit.
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and size[0] * size[1] > limit:
        raise UnreadableImage(f"{size[0]}x{size[1]} pixels are more than the limit of {limit}")


def _to_rgb(image: Image.Image, backdrop: tuple[int, int, int]) -> Image.Image:
    if image.mode == "F":
        raise UnreadableImage("floating-point pixels have no known range: save it with 8 or 16 bit")
    if image.mode.startswith("I"):
        # 16-bit grey; Pillow's own conversion would clip at 255 instead of scaling.
        grey = np.clip(np.asarray(image, np.int64), 0, 65535) / 257
        image = Image.fromarray(grey.round().astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        ground = Image.new("RGBA", image.size, (*backdrop, 255))
        image = Image.alpha_composite(ground, image)
    return image.convert("RGB")


def resize_short_side(image: Image.Image, side: int) -> Image.Image:
    """Resize with Lanczos until the short side is `side`, keeping the aspect ratio.

    Raises:
        UnreadableImage: the picture is so narrow that its long side would pass Pillow's limit.
    """
    width, height = image.size
    ratio = side / min(width, height)
    size = (side, round(height * ratio)) if width <= height else (round(width * ratio), side)
    _check_pixels(size)
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def resize_mask(mask: Image.Image, width: int, height: int) -> Mask:
    """Resize with bicubic to (height, width) and binarise: 128 and above is hole."""
    resized = mask.resize((width, height), Image.Resampling.BICUBIC)
    return (np.asarray(resized) >= 128).astype(np.uint8)


def dilate(mask: Mask, rng: np.random.Generator) -> Mask:
    """Grow the hole by a square of 3, 5 or 7 pixels, once or twice."""
    side = int(rng.choice((3, 5, 7)))
    kernel = np.ones((side, side), np.uint8)
    grown = cv2.dilate(mask, kernel, iterations=int(rng.integers(1, 3)))
    return np.asarray(grown, np.uint8)


def extents(mask: Mask) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row, and first and last column, of a hole that is not empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1])), (int(columns[0]), int(columns[-1]))


def window_start(length: int, size: int, extent: tuple[int, int], rng: np.random.Generator) -> int:
    """Place a window of `size` along an axis so that it meets the centre of the hole.

    Args:
        length: of the axis; at least `size`.
        size: of the window.
        extent: first and last pixel of the hole.
        rng: source of randomness.

    Returns:
        First pixel of the window, by the rule of protocols 2.3.
    """
    assert length >= size
    centre = sum(extent) // 2
    low = max(0, min(length - size - 1, centre - size))
    high = max(low + 1, min(length - size, centre))
    return int(rng.integers(low, high))


def to_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    """Turn uint8 (H, W, 3) into float32 (3, H, W) in [-1, 1]."""
    chw = np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)
    return torch.from_numpy(chw / 127.5 - 1)
