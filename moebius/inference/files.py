"""Pictures on disk: read whole, written at once, lossless unless the suffix says otherwise."""

import os
import warnings
from pathlib import Path
from typing import Any

from PIL import Image

from moebius.inference.photograph import KEPT_INFO, check_depth

LOSSLESS_SUFFIXES = (".png", ".tif", ".tiff", ".webp", ".bmp")
_SAVE_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95, "subsampling": 0},
    # Exact: colours under transparent pixels are kept, too.
    "WEBP": {"lossless": True, "exact": True},
}


def is_picture(path: Path) -> bool:
    """Whether Pillow reads files of this suffix."""
    return path.suffix.lower() in Image.registered_extensions()


def read_picture(path: Path, what: str = "image") -> Image.Image:
    """Read and decode.

    Raises:
        ValueError: no file, no picture, or more than 8 bits a channel.
    """
    if not os.path.isfile(path):
        raise ValueError(f"{path}: no such file")
    try:
        with warnings.catch_warnings():
            # Large photographs are what this is for; Pillow still refuses bombs.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
            check_depth(image, what)  # no longer seen once it is loaded
            image.load()
    # Pillow's decoders answer broken files with nearly any exception.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: cannot be read ({reason})") from error
    return image


def output_format(path: Path) -> str:
    """Pillow's name of the format that a suffix stands for.

    Raises:
        ValueError: none that it writes.
    """
    name = Image.registered_extensions().get(path.suffix.lower())
    if name not in Image.SAVE:
        raise ValueError(f"{path}: unknown image suffix, use .png, .jpg, .webp or .tif")
    return name


def check_fits(image: Image.Image, path: Path) -> None:
    """Raises ValueError where the suffix's format cannot hold the picture's alpha."""
    if output_format(path) == "JPEG" and image.has_transparency_data:
        raise ValueError(f"{path}: JPEG holds no alpha, which the photograph has: use .png")


def write_picture(image: Image.Image, path: Path) -> None:
    """Write with the colour profile and EXIF data that the picture carries; all or nothing.

    Raises:
        ValueError: a format that cannot hold the picture.
    """
    name = output_format(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    info = {key: image.info[key] for key in KEPT_INFO if key in image.info}
    try:
        image.save(part, format=name, **info, **_SAVE_OPTIONS.get(name, {}))
        os.replace(part, path)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be written as {name} ({error})") from error
    finally:
        part.unlink(missing_ok=True)
