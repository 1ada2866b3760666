"""Pictures and holes on disk, to the bit: PNG, written whole or not at all, with checksums."""

import hashlib
import os
from pathlib import Path
from uuid import uuid4

import numpy as np
from PIL import Image

from moebius.data.transforms import load_image, load_mask


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Replaces a file by (H, W, 3) uint8 pixels, or by an (H, W) bool hole in white."""
    levels = np.where(pixels, np.uint8(255), np.uint8(0)) if pixels.dtype == bool else pixels
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    # The weakest compression takes a third of the time for a tenth more bytes.
    Image.fromarray(levels).save(temporary, format="PNG", compress_level=1)
    os.replace(temporary, path)


def read_picture(path: Path) -> np.ndarray:
    """(H, W, 3) uint8, see `load_image`."""
    return np.array(load_image(path))


def read_hole(path: Path) -> np.ndarray:
    """(H, W) bool of a mask whose white, 128 and above, is the hole."""
    return np.asarray(load_mask(path)) >= 128


def checksum(pixels: np.ndarray) -> str:
    """SHA-256 of shape and pixels: the same for every file that shows the same."""
    digest = hashlib.sha256(repr((pixels.dtype.str, pixels.shape)).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def stable_seed(*parts: int | str) -> int:
    """A seed of 63 bits that is the same on every machine."""
    text = "\0".join(map(str, parts))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
