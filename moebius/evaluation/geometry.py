"""From a picture of any size to the square that is scored (protocols, section 1.1)."""

import numpy as np
from PIL import Image

from moebius.config import Images, Protocol
from moebius.data.transforms import resize_short_side
from moebius.evaluation.pixels import stable_seed

BICUBIC, LANCZOS = Image.Resampling.BICUBIC, Image.Resampling.LANCZOS


def to_square(image: Image.Image, protocol: Protocol, name: str) -> np.ndarray:
    """Bring a picture to a protocol's size by its geometry.

    Args:
        image: RGB, any size.
        protocol: whose `geometry` is one of

            - `crop`: no resizing; short sides are mirrored at the bottom and at the right, then
              the centre is cut (MAT).
            - `squash`: bicubic, aspect ratio ignored (MI-GAN).
            - `square`: the centre square, then Lanczos.
            - `short_side`: Lanczos to the short side, then the centre.
            - `random_crop`: a window at a scale and place that the name decides.
        name: id of the picture.

    Returns:
        (size, size, 3) uint8.
    """
    size = protocol.size
    if protocol.geometry == "squash":
        return np.array(resize(image, size, BICUBIC))
    if protocol.geometry == "square":
        return np.array(resize(_centre(image, min(image.size)), size, LANCZOS))
    if protocol.geometry == "short_side":
        return np.array(_centre(resize_short_side(image, size), size))
    if protocol.geometry == "random_crop":
        return _random_crop(image, size, protocol.images, name)
    pixels = np.asarray(image)
    missing = [(0, max(0, size - side)) for side in pixels.shape[:2]]
    padded = np.pad(pixels, (*missing, (0, 0)), mode="symmetric")  # OpenCV's BORDER_REFLECT
    return np.array(_centre(Image.fromarray(padded), size))


def resize(image: Image.Image, size: int, method: Image.Resampling) -> Image.Image:
    """Resize to a square; a picture of that size stays as it is."""
    return image if image.size == (size, size) else image.resize((size, size), method)


def resize_hole(hole: np.ndarray, size: int) -> np.ndarray:
    """Resize an (H, W) bool hole to a square by its nearest pixels."""
    resized = resize(Image.fromarray(hole), size, Image.Resampling.NEAREST)
    return np.asarray(resized)


def resize_picture(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize (H, W, 3) uint8 to a square by Lanczos, antialiased when it shrinks (trap 7)."""
    return np.asarray(resize(Image.fromarray(pixels), size, LANCZOS))


def _centre(image: Image.Image, size: int) -> Image.Image:
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def _random_crop(image: Image.Image, size: int, images: Images, name: str) -> np.ndarray:
    assert images.short_side is not None, "the schema asks for it"
    rng = np.random.default_rng(stable_seed("crop", name))
    low, high = images.short_side
    resized = resize_short_side(image, int(rng.integers(low, high + 1)))
    left, top = (int(rng.integers(side - size + 1)) for side in resized.size)
    return np.array(resized.crop((left, top, left + size, top + size)))
