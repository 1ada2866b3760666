"""Any file is a picture, or one line that names it and says why not: in every reader."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fuzzing import RUNS, Choices, answer, cases, spliced_bytes
from hypothesis import given
from PIL import Image

from moebius.data.transforms import load_image, load_mask, resize_short_side
from moebius.inference.files import read_picture
from moebius.inference.masks import read_hole
from moebius.inference.photograph import read_photograph
from moebius.serving.uploads import Limits, decode_upload

PIXELS = 20_000
"""Of the largest picture that readers take here: bombs stay small."""
WORDS = (0, 1, 2, 3, 4, 8, 16, 255, 256, 65_535, 2**31 - 1, 2**31, 2**32 - 1)


def saved(kind: str, mode: str = "RGB", **options: Any) -> bytes:
    shown = np.arange(12 * 9 * 3, dtype=np.uint8).reshape(12, 9, 3)
    file = io.BytesIO()
    Image.fromarray(shown).convert(mode).save(file, kind, **options)
    return file.getvalue()


def exif() -> Image.Exif:
    made = Image.Exif()
    made[0x0112] = 6
    return made


FRAMES = [Image.new("P", (9, 12), n) for n in range(3)]
FILES = (
    saved("PNG", exif=exif(), icc_profile=b"profile"),
    saved("PNG", "P", transparency=3),
    saved("PNG", "LA"),
    saved("PNG", "I;16"),
    saved("JPEG", exif=exif(), dpi=(72, 72)),
    saved("JPEG", "CMYK"),
    saved("JPEG", "L", progressive=True),
    saved("TIFF", compression="tiff_lzw"),
    saved("TIFF", "RGBA"),
    saved("TIFF", "F"),
    saved("WEBP", "RGBA", lossless=True),
    saved("GIF", "P", save_all=True, append_images=FRAMES),
    saved("BMP"),
    saved("BMP", "1"),
    saved("PPM"),
    saved("TGA", "RGBA"),
    saved("ICO", "RGBA"),
    b"text",
)


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of PNG with its right checksum."""
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


EXTRA = [
    chunk(name, data)
    for name, contents in {
        b"tEXt": (b"key\0" + b"x" * 99, b""),
        b"zTXt": (b"key\0\0" + zlib.compress(bytes(999)), b"key\0\0broken", b""),
        b"iTXt": (b"key\0\1\0\0\0" + zlib.compress(b"x"), b"k"),
        b"iCCP": (b"n\0\0" + zlib.compress(b"p"), b"n\0\0broken", b""),
        b"eXIf": (exif().tobytes()[6:], b"x", b"II*\0" + b"\xff" * 8),
        b"tRNS": (b"", b"\0\1\2", bytes(6)),
        b"PLTE": (b"", b"1234", b"123456"),
        b"acTL": (struct.pack(">II", 9, 0), b""),
        b"fcTL": (bytes(26), b""),
        b"IDAT": (b"", b"broken"),
        **dict.fromkeys((b"pHYs", b"gAMA", b"cHRM", b"fdAT", b"IEND"), (b"", b"x")),
    }.items()
    for data in contents
]


def png(choices: Choices) -> bytes:
    """A PNG whose header, chunks and order may be anything, with right checksums."""
    header = [9, 12, 8, 2, 0, 0, 0]
    for _ in range(choices.number(3)):
        field = choices.number(7)
        header[field] = choices.one_of(WORDS) & (0xFFFFFFFF if field < 2 else 0xFF)
    pixels = chunk(b"IDAT", zlib.compress(bytes(choices.one_of((12 * 28, 100, 0, 4_000)))))
    chunks = [chunk(b"IHDR", struct.pack(">IIBBBBB", *header)), pixels, chunk(b"IEND", b"")]
    for _ in range(choices.number(3)):
        chunks.insert(choices.place(len(chunks)), choices.one_of(EXTRA))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def for_training(path: Path) -> None:
    picture = answer(lambda: load_image(path), str(path))
    if picture is not None:
        assert picture.mode == "RGB"
        answer(lambda: resize_short_side(picture, 8))


def for_a_mask(path: Path) -> None:
    mask = answer(lambda: load_mask(path), str(path))
    assert mask is None or mask.mode == "L"


def for_filling(path: Path) -> None:
    picture = answer(lambda: read_picture(path), str(path))
    if picture is None:
        return
    photograph = answer(lambda: read_photograph(picture))
    hole = answer(lambda: read_hole(picture, (9, 12), fit=True))
    if photograph is not None:
        assert photograph.crop((0, 0, 2, 2)).shape == (2, 2, 3)
    assert hole is None or (hole.shape == (12, 9) and hole.dtype == bool)


def for_upload(path: Path) -> None:
    limits = Limits(megabytes=1, megapixels=PIXELS / 1e6)
    picture = answer(lambda: decode_upload(path.read_bytes(), limits, "mask"), "the mask")
    assert picture is None or picture.width * picture.height <= PIXELS


READERS = [for_training, for_a_mask, for_filling, for_upload]


@RUNS
@pytest.mark.parametrize("read", READERS)
def test_any_picture(fuzz, read: Callable[[Path], None], tmp_path: Path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", PIXELS)
    path = tmp_path / "picture"

    @fuzz
    @given(spliced_bytes(*FILES) | cases(png))
    def check(data: bytes):
        path.write_bytes(data)
        read(path)

    check()
