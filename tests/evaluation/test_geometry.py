"""From pictures of any size to the scored square, held against OpenCV and plain slicing."""

import cv2
import numpy as np
import pytest
from PIL import Image

from moebius.config import Protocol
from moebius.evaluation.geometry import resize_hole, resize_picture, to_square
from moebius.scoring import read_protocol


def protocol(geometry: str, size: int) -> Protocol:
    base = read_protocol("places2_large").model_dump()
    images = {"about": "x", "count": 1}
    if geometry == "random_crop":
        images["short_side"] = (size, 2 * size)
    return Protocol.model_validate(base | {"geometry": geometry, "size": size, "images": images})


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(256, size=(height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "shape", [(64, 64), (65, 101), (101, 64), (40, 90), (90, 33), (33, 47), (9, 200), (1, 1)]
)
def test_crop_is_mats_rule(shape):
    """Mirror at the bottom and at the right by OpenCV, then a centre cut of floored offsets."""
    pixels, size = noise(*shape), 64
    bottom, right = (max(0, size - side) for side in shape)
    padded = cv2.copyMakeBorder(pixels, 0, bottom, 0, right, cv2.BORDER_REFLECT)
    top, left = ((side - size) // 2 for side in padded.shape[:2])
    expected = padded[top : top + size, left : left + size]
    assert np.array_equal(to_square(Image.fromarray(pixels), protocol("crop", size), "x"), expected)


@pytest.mark.parametrize("geometry", ["crop", "squash", "square", "short_side", "random_crop"])
@pytest.mark.parametrize("shape", [(32, 32), (31, 77), (77, 31), (33, 32)])
def test_every_geometry_gives_the_square(geometry, shape):
    made = to_square(Image.fromarray(noise(*shape)), protocol(geometry, 32), "x")
    assert made.shape == (32, 32, 3) and made.dtype == np.uint8
    assert made.flags.writeable


def test_squash_ignores_the_aspect_ratio_and_keeps_what_fits():
    pixels = noise(48, 96)
    made = to_square(Image.fromarray(pixels), protocol("squash", 32), "x")
    expected = Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC)
    assert np.array_equal(made, np.asarray(expected))
    fitting = noise(32, 32)
    assert np.array_equal(to_square(Image.fromarray(fitting), protocol("squash", 32), "x"), fitting)


def test_square_and_short_side_show_the_centre():
    """A wide picture with a coloured middle: the sides are gone, the middle is not squashed."""
    pixels = np.zeros((40, 100, 3), np.uint8)
    pixels[:, 30:70] = 255
    for geometry in ("square", "short_side"):
        made = to_square(Image.fromarray(pixels), protocol(geometry, 20), "x")
        assert made[:, 1:-1].min() > 240, geometry


def test_a_random_crop_belongs_to_its_name():
    image, rule = Image.fromarray(noise(50, 80)), protocol("random_crop", 32)
    first, again, other = (to_square(image, rule, name) for name in ("a-000", "a-000", "a-001"))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_up_and_down_again_keep_a_smooth_picture_and_every_hole():
    ramp = np.tile(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], (256, 1, 3))
    back = resize_picture(resize_picture(ramp, 512), 256)
    assert np.abs(back.astype(int) - ramp).max() <= 1
    hole = np.random.default_rng(0).random((256, 256)) > 0.7
    assert np.array_equal(resize_hole(hole, 512), hole.repeat(2, 0).repeat(2, 1))


def test_shrinking_is_antialiased():
    """Stripes of one pixel become grey, not black or white."""
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    assert abs(resize_picture(stripes, 32)[8:-8, 8:-8].mean() - 127.5) < 3
    assert resize_picture(stripes, 32)[8:-8, 8:-8].std() < 3
