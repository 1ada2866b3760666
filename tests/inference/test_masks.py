import numpy as np
import pytest
from PIL import Image

from moebius.inference.masks import distance_to_hole, is_boxes, read_hole, resize_hole

SIZE = (6, 4)
HOLE = np.zeros((4, 6), bool)
HOLE[1:3, 2:5] = True


def picture(mode: str) -> Image.Image:
    grey = Image.fromarray(np.where(HOLE, 255, 0).astype(np.uint8))
    if mode == "alpha":  # white paint on a transparent layer
        layer = Image.new("RGBA", SIZE, (255, 255, 255, 0))
        layer.putalpha(grey)
        return layer
    if mode == "opaque":
        return grey.convert("RGBA")
    return grey.convert(mode)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "alpha", "opaque"])
def test_white_and_opaque_means_hole(mode):
    assert np.array_equal(read_hole(picture(mode), SIZE), HOLE)


def test_what_is_black_or_transparent_is_kept():
    layer = Image.new("RGBA", SIZE, (255, 255, 255, 0))
    layer.paste((0, 0, 0, 255), (0, 0, 3, 3))
    assert not read_hole(layer, SIZE).any()


@pytest.mark.parametrize(
    "array", [HOLE, HOLE.astype(np.uint8) * 255, HOLE * 1.0, HOLE.astype(np.float32)]
)
def test_arrays(array):
    assert np.array_equal(read_hole(array, SIZE), HOLE)


def test_the_threshold_lies_between_127_and_128():
    assert read_hole(Image.new("L", (1, 1), 128), (1, 1)).all()
    assert not read_hole(Image.new("L", (1, 1), 127), (1, 1)).any()


def test_boxes_are_clipped_to_the_image():
    hole = read_hole([(2, 1, 5, 3), (5, 3, 99, 99)], SIZE)
    expected = HOLE.copy()
    expected[3, 5] = True
    assert np.array_equal(hole, expected)


def test_a_list_of_boxes_is_told_from_a_list_of_masks():
    assert is_boxes([(0, 0, 1, 1)]) and is_boxes(((0, 0, 1, 1), [1, 2, 3, 4]))
    assert not is_boxes([]) and not is_boxes([[(0, 0, 1, 1)]])
    assert not is_boxes([HOLE]) and not is_boxes([picture("L")] * 4)


def test_inverting_leaves_the_given_mask_alone():
    given = HOLE.copy()
    assert np.array_equal(read_hole(given, SIZE, invert=True), ~HOLE)
    assert np.array_equal(given, HOLE)


def test_another_size_is_refused_unless_it_is_to_be_fitted():
    with pytest.raises(ValueError, match="mask is 6x4 pixels and the image 12x8"):
        read_hole(picture("L"), (12, 8))
    fitted = read_hole(picture("L"), (12, 8), fit=True)
    assert np.array_equal(fitted, HOLE.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("I;16", SIZE), "mask has mode 'I;16'"),
        (Image.new("CMYK", SIZE), "mask has mode 'CMYK'"),
        ([(2, 2, 2, 4)], r"box \(2, 2, 2, 4\) holds no pixel"),
        ([(6, 0, 9, 2)], "holds no pixel of the image of 6x4"),
        (np.zeros((4, 6, 3), np.uint8), "mask is an array"),
        (np.zeros((4, 6), np.uint16), "mask is an array"),
        ("mask.png", "mask is a str"),
    ],
)
def test_bad_masks_are_refused(mask, message):
    with pytest.raises(ValueError, match=message):
        read_hole(mask, SIZE)


def test_a_single_hole_pixel_survives_shrinking():
    hole = np.zeros((1000, 800), bool)
    hole[503, 401] = True
    small = resize_hole(hole, (51, 64))
    rows, columns = np.nonzero(small)
    assert 32 in rows and 25 in columns and small.sum() <= 4


def test_distance_is_euclidean():
    hole = np.zeros((9, 9), bool)
    hole[4, 4] = True
    y, x = np.indices((9, 9)) - 4
    np.testing.assert_allclose(distance_to_hole(hole), np.hypot(y, x), atol=1e-5)
    assert np.isinf(distance_to_hole(~hole & hole)).all()
