"""A photograph as it was given: cut into RGB crops, filled patches put back, all else kept."""

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

from moebius.inference.boxes import Box

logger = logging.getLogger(__name__)

KEPT_MODES = ("L", "LA", "RGB", "RGBA")
KEPT_INFO = ("icc_profile", "exif", "dpi")
_CONVERTED = {"1": "L", "P": "RGB", "PA": "RGBA", "RGBX": "RGB", "La": "LA", "RGBa": "RGBA"}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Patch:
    """New colours for some pixels.

    Attributes:
        box: around them.
        colours: (h, w, 3) uint8.
        where: (h, w) bool, the pixels.
    """

    box: Box
    colours: np.ndarray
    where: np.ndarray


@dataclass(frozen=True)
class Photograph:
    """A picture whose known pixels, alpha and colour profile go through unchanged.

    Attributes:
        picture: upright, of mode L, LA, RGB or RGBA.
    """

    picture: Image.Image

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), upright."""
        return self.picture.size

    def crop(self, box: Box) -> np.ndarray:
        """The colours of a part, (h, w, 3) uint8; alpha is left out."""
        return np.asarray(self.picture.crop(box).convert("RGB"))

    def like(self, colours: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 made grey where the photograph is, so that mixing the two is exact."""
        if self.picture.mode not in ("L", "LA"):
            return colours
        return np.asarray(Image.fromarray(colours).convert("L").convert("RGB"))

    def with_patches(self, patches: Iterable[Patch]) -> Image.Image:
        """A copy with new pixels in it; mode, alpha and profile are the same."""
        result = self.picture.copy()
        for patch in patches:
            colours = Image.fromarray(patch.colours).convert(self.picture.mode.removesuffix("A"))
            if self.picture.mode.endswith("A"):
                colours.putalpha(self.picture.crop(patch.box).getchannel("A"))
            result.paste(colours, patch.box, Image.fromarray(patch.where))
        result.info = {key: result.info[key] for key in KEPT_INFO if key in result.info}
        return result


def read_photograph(image: Image.Image | np.ndarray) -> Photograph:
    """Takes a picture or a uint8 array (H, W), (H, W, 3) or (H, W, 4).

    A palette becomes RGB or RGBA, and of an animation only the current frame is used: both are
    said.

    Raises:
        ValueError: more than 8 bits a channel, or colours such as CMYK that no crop of RGB keeps.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    image = upright(image, "image")
    mode = _CONVERTED.get(image.mode, image.mode)
    if "transparency" in image.info and not mode.endswith("A"):
        mode += "A"
    if mode != image.mode:
        logger.warning("the image has mode %s: the result is %s", image.mode, mode)
        image = image.convert(mode)
    if image.mode not in KEPT_MODES:
        raise ValueError(f"the image has mode {image.mode!r}: convert it to RGB with its profile")
    return Photograph(image)


def upright(image: object, what: str) -> Image.Image:
    """Apply the EXIF orientation and refuse what does not fit into 8 bits a channel."""
    if not isinstance(image, Image.Image):
        raise ValueError(f"the {what} is a {type(image).__name__}: give a PIL image or an array")
    check_depth(image, what)
    frames = getattr(image, "n_frames", 1)
    # Phones add a second, hidden picture to their JPEGs and call that MPO.
    if frames > 1 and image.format != "MPO":
        logger.warning("the %s has %d frames: one of them is used", what, frames)
    try:
        turned = image.getexif().get(_ORIENTATION, 1) != 1
        return ImageOps.exif_transpose(image) if turned else image
    # Pillow reads EXIF data only now, and answers broken ones with nearly any exception.
    except Exception:
        logger.warning("the %s has broken EXIF data: it is taken as upright", what)
        return image


def check_depth(image: Image.Image, what: str) -> None:
    """Raises ValueError for more than 8 bits a channel."""
    # Pillow opens 16-bit RGB files as 8-bit RGB in silence; the raw mode tells until loading.
    deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", []))
    if deep or image.mode[0] in "IF":
        kind = "16 bits" if deep else f"mode {image.mode!r}"
        raise ValueError(f"the {what} has {kind}: convert it to 8 bits a channel")


def _from_array(array: np.ndarray) -> Image.Image:
    shape = array.shape
    if array.dtype != np.uint8 or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))):
        raise ValueError(
            f"the image is an array {shape} of {array.dtype}: "
            "give (H, W), (H, W, 3) or (H, W, 4) of uint8"
        )
    return Image.fromarray(array)
