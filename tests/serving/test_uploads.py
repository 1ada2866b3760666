"""What strangers send is refused in one line, before it costs anything."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moebius.serving.uploads import Limits, decode_upload, encode_png, read_upload

LIMITS = Limits(megabytes=0.1, megapixels=0.05)


def png(width: int, height: int) -> bytes:
    return encode_png(Image.new("RGB", (width, height)))


def huge_header(side: int) -> bytes:
    """A PNG that claims a size and holds no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def noise() -> bytes:
    rng = np.random.default_rng(0)
    return encode_png(Image.fromarray(rng.integers(0, 256, (200, 200, 3), np.uint8)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"just text", "the mask is no picture that can be read"),
        (b"", "the mask is no picture that can be read"),
        (png(200, 200)[:-40], "the mask cannot be read"),
        (png(400, 200), "the mask has more than 0.05 megapixels: it is 400x200"),
        (huge_header(50_000), "the mask has more than 0.05 megapixels"),
        (noise(), "the mask has more than 0.1 megabytes"),
    ],
)
def test_a_bad_upload_is_refused_in_one_line_that_names_no_path(data: bytes, reason: str):
    with pytest.raises(ValueError, match=f"^{reason}") as caught:
        decode_upload(data, LIMITS, "mask")
    assert "\n" not in str(caught.value) and "/tmp" not in str(caught.value)


def test_sixteen_bits_are_still_refused(tmp_path: Path):
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(ValueError, match="8 bits"):
        read_upload(tmp_path / "deep.png", LIMITS)


def test_a_png_keeps_pixels_and_profile():
    image = Image.fromarray(np.arange(300, dtype=np.uint8).reshape(10, 10, 3))
    image.info["icc_profile"] = b"profile"
    again = Image.open(io.BytesIO(encode_png(image)))
    assert again.tobytes() == image.tobytes() and again.info["icc_profile"] == b"profile"


@pytest.mark.parametrize("limits", [{"megabytes": 0}, {"megapixels": -1}])
def test_limits_that_let_nothing_through_are_refused(limits: dict[str, float]):
    with pytest.raises(ValueError, match=f"--max-{next(iter(limits))}"):
        Limits(**limits)
