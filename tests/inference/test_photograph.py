import logging

import numpy as np
import pytest
from PIL import Image, ImageCms
from skimage import data

from moebius.inference.boxes import Box
from moebius.inference.photograph import Patch, read_photograph

PHOTO = Image.fromarray(data.astronaut()).resize((60, 40))


def in_mode(mode: str) -> Image.Image:
    image = PHOTO.convert(mode.removesuffix("A"))
    if mode.endswith("A"):
        image.putalpha(Image.fromarray(np.arange(2400, dtype=np.uint8).reshape(40, 60)))
    return image


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_crops_and_patches_are_the_same_bytes(mode):
    image = in_mode(mode)
    photo, box = read_photograph(image), Box(10, 5, 30, 25)
    crop = photo.crop(box)
    assert crop.shape == (20, 20, 3) and crop.dtype == np.uint8
    result = photo.with_patches([Patch(box, crop, np.ones((20, 20), bool))])
    assert result.mode == mode and result.tobytes() == image.tobytes()


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_alpha_is_kept_where_colours_change(mode):
    image = in_mode(mode)
    box = Box(10, 5, 30, 25)
    where = np.random.default_rng(0).random((20, 20)) < 0.5
    patch = Patch(box, np.full((20, 20, 3), 7, np.uint8), where)
    result = read_photograph(image).with_patches([patch])
    assert np.array_equal(result.getchannel("A"), image.getchannel("A"))
    before, after = (np.asarray(i)[box.slices] for i in (image, result))
    assert (after[where][..., :-1] == 7).all() and np.array_equal(after[~where], before[~where])


def test_colours_for_a_grey_photograph_are_made_grey():
    colours = np.asarray(PHOTO)
    assert read_photograph(in_mode("RGB")).like(colours) is colours
    grey = read_photograph(in_mode("L")).like(colours)
    assert np.array_equal(grey[..., 0], np.asarray(PHOTO.convert("L")))
    assert (grey == grey[..., :1]).all()


def test_the_colour_profile_and_exif_data_stay_without_the_orientation():
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 8, "maker"
    image = PHOTO.copy()
    image.info = {"icc_profile": profile, "exif": exif.tobytes(), "gamma": 2.2}
    result = read_photograph(image).with_patches([])
    assert result.size == (40, 60)
    assert result.info["icc_profile"] == profile and "gamma" not in result.info
    assert dict(result.getexif()) == {0x010F: "maker"}


@pytest.mark.parametrize(
    ("mode", "info", "expected"),
    [
        ("1", {}, "L"),
        ("P", {}, "RGB"),
        ("P", {"transparency": 3}, "RGBA"),
        ("RGB", {"transparency": (1, 2, 3)}, "RGBA"),
        ("RGBX", {}, "RGB"),
    ],
)
def test_odd_modes_are_converted_without_loss_and_that_is_said(mode, info, expected, caplog):
    image = PHOTO.convert(mode)
    image.info |= info
    with caplog.at_level(logging.WARNING, logger="moebius"):
        photo = read_photograph(image)
    assert photo.picture.mode == expected and expected in caplog.text
    assert np.array_equal(
        np.asarray(photo.picture.convert("RGB")), np.asarray(image.convert("RGB"))
    )


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "LAB", "HSV"])
def test_colours_that_rgb_does_not_keep_are_refused(mode):
    with pytest.raises(ValueError, match=f"'{mode}': convert it to RGB"):
        read_photograph(Image.new(mode, (4, 4)))


@pytest.mark.parametrize("mode", ["I;16", "I", "F"])
def test_more_than_8_bits_are_refused(mode):
    with pytest.raises(ValueError, match=f"'{mode}': convert it to 8 bits"):
        read_photograph(Image.new(mode, (4, 4)))


def test_a_frame_of_an_animation_is_used_and_that_is_said(tmp_path, caplog):
    frames = [PHOTO.convert("RGB"), PHOTO.rotate(180)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with caplog.at_level(logging.WARNING, logger="moebius"):
        photo = read_photograph(Image.open(tmp_path / "a.png"))
    assert photo.picture.tobytes() == PHOTO.tobytes() and "2 frames" in caplog.text


def test_arrays_are_photographs():
    grey = np.arange(24, dtype=np.uint8).reshape(4, 6)
    assert read_photograph(grey).picture.mode == "L"
    assert read_photograph(np.stack([grey] * 3, -1)).size == (6, 4)
    assert read_photograph(np.stack([grey] * 4, -1)).picture.mode == "RGBA"
    for bad in (grey / 255, grey[None], np.stack([grey] * 2, -1), grey.astype(np.uint16)):
        with pytest.raises(ValueError, match="image is an array"):
            read_photograph(bad)
    with pytest.raises(ValueError, match="image is a str"):
        read_photograph("photo.png")
