"""Decoding, resizing and placing, each against what it must give by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moebius.data import transforms
from moebius.data.masks import draw_mask
from moebius.data.transforms import UnreadableImage

RED = (255, 0, 0)


def test_every_mode_becomes_rgb(tmp_path: Path):
    ramp16 = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    images = {
        "grey.png": Image.new("L", (8, 8), 77),
        "bits.png": Image.new("1", (8, 8), 1),
        "palette.png": Image.new("RGB", (8, 8), RED).convert("P"),
        "cmyk.jpg": Image.new("CMYK", (8, 8), (0, 255, 255, 0)),
        "clear.png": Image.new("RGBA", (8, 8), (9, 9, 9, 0)),
        "deep.png": Image.fromarray(ramp16),
    }
    pixels = {}
    for name, image in images.items():
        image.save(tmp_path / name)
        loaded = transforms.load_image(tmp_path / name)
        assert loaded.mode == "RGB"
        pixels[name] = np.asarray(loaded)
    assert (pixels["grey.png"] == 77).all()
    assert (pixels["bits.png"] == 255).all()
    assert (pixels["palette.png"] == RED).all()
    assert np.abs(pixels["cmyk.jpg"][0, 0].astype(int) - RED).max() < 10
    assert (pixels["clear.png"] == 255).all()
    assert np.array_equal(pixels["deep.png"][..., 0], np.round(ramp16 / 257).astype(np.uint8))


def test_masks_are_grey_and_clear_pixels_are_known(tmp_path: Path):
    image = np.zeros((4, 4, 4), np.uint8)
    image[:, :2] = 255
    image[:, 2:, :3] = 255
    Image.fromarray(image).save(tmp_path / "mask.png")
    mask = transforms.load_mask(tmp_path / "mask.png")
    assert mask.mode == "L"
    assert np.asarray(mask)[0].tolist() == [255, 255, 0, 0]


def test_exif_orientation_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (20, 10)).save(tmp_path / "turned.jpg", exif=exif)
    assert transforms.load_image(tmp_path / "turned.jpg").size == (10, 20)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "folder.png").mkdir()
    Image.new("F", (8, 8)).save(tmp_path / "float.tif")
    for name in ("cut.png", "text.png", "folder.png", "float.tif", "absent.png"):
        with pytest.raises(UnreadableImage, match=name):
            transforms.load_image(tmp_path / name)
    # Pillow only warns up to twice its limit.
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with pytest.raises(UnreadableImage, match=r"whole\.png"):
        transforms.load_image(tmp_path / "whole.png")


@pytest.mark.parametrize(
    ("size", "resized"), [((300, 200), (150, 100)), ((200, 301), (100, 150)), ((7, 7), (100, 100))]
)
def test_short_side(size: tuple[int, int], resized: tuple[int, int]):
    assert transforms.resize_short_side(Image.new("RGB", size), 100).size == resized


def test_slivers_are_refused():
    with pytest.raises(UnreadableImage, match="limit"):
        transforms.resize_short_side(Image.new("RGB", (1, 10_000)), 512)


def test_mask_resize_binarises_at_one_half():
    mask = Image.fromarray(np.array([[127, 128], [0, 255]], np.uint8))
    assert transforms.resize_mask(mask, 2, 2).tolist() == [[0, 1], [0, 1]]
    assert transforms.resize_mask(mask, 6, 4).shape == (4, 6)


def test_dilation_grows_a_pixel_to_each_size():
    mask = np.zeros((31, 31), np.uint8)
    mask[15, 15] = 1
    rng = np.random.default_rng(0)
    areas = {int(transforms.dilate(mask, rng).sum()) for _ in range(200)}
    # Side 3, 5, 7, once and twice: 3, 5, 7 and 5, 9, 13 pixels.
    assert areas == {side**2 for side in (3, 5, 7, 9, 13)}


def test_mean_hole_after_dilation():
    rng = np.random.default_rng(0)
    masks = (draw_mask("lama_medium_512", 512, 512, rng) for _ in range(1000))
    holes = [transforms.dilate(mask, rng).mean() for mask in masks]
    assert np.mean(holes) == pytest.approx(0.335, abs=0.02)


def reference_starts(length: int, size: int, first: int, last: int) -> range:
    """The rule of protocols 2.3 word by word, for extents whose centre is a whole pixel."""
    middle = first + (last - first) // 2
    left = max(0, min(length - size - 1, middle - size))
    return range(left, max(left + 1, min(length - size, middle)))


@pytest.mark.parametrize(
    ("length", "extent"),
    [(64, (3, 9)), (65, (10, 60)), (200, (0, 10)), (200, (90, 110)), (200, (190, 198))],
)
def test_window_covers_the_published_range(length: int, extent: tuple[int, int]):
    rng = np.random.default_rng(0)
    starts = {transforms.window_start(length, 64, extent, rng) for _ in range(2000)}
    assert starts == set(reference_starts(length, 64, *extent))


def test_extents_and_tensor():
    mask = np.zeros((6, 9), np.uint8)
    mask[2, 3] = mask[4, 7] = 1
    assert transforms.extents(mask) == ((2, 4), (3, 7))
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 2] = (255, 51, 0)
    tensor = transforms.to_tensor(pixels[:, ::-1])
    assert tensor.dtype == torch.float32
    assert tensor.shape == (3, 2, 3)
    assert tensor[:, 0, 0].tolist() == pytest.approx([1.0, -0.6, -1.0])
