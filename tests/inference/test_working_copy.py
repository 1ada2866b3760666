import numpy as np
import pytest

from moebius.inference.working_copy import make_working_copy


def photograph(height: int, width: int) -> np.ndarray:
    rows = np.linspace(0, 200, height)[:, None, None]
    columns = np.linspace(0, 55, width)[None, :, None]
    return np.broadcast_to(rows + columns, (height, width, 3)).round().astype(np.uint8)


def no_hole(height: int, width: int) -> np.ndarray:
    return np.zeros((height, width), bool)


@pytest.mark.parametrize("size", [(1, 64), (64, 5), (64, 64), (33, 64)])
def test_pictures_of_the_side_are_only_padded(size):
    image = photograph(*size)
    copy = make_working_copy(image, no_hole(*size), side=64, least=64)
    assert copy.image.shape == (64, 64, 3) and copy.hole.shape == (64, 64)
    assert np.array_equal(copy.image[: size[0], : size[1]], image)
    assert np.array_equal(copy.restore(copy.image), image)


def test_padding_mirrors_the_picture_and_its_holes():
    image, hole = photograph(30, 64), no_hole(30, 64)
    hole[29, 7] = True
    copy = make_working_copy(image, hole, side=64, least=64)
    assert np.array_equal(copy.image[30], image[29]) and np.array_equal(copy.image[31], image[28])
    assert copy.hole[30, 7] and copy.hole.sum() == 2


@pytest.mark.parametrize(
    ("size", "inner"), [((300, 200), (64, 43)), ((40, 20), (64, 32)), ((10, 20), (20, 40))]
)
def test_others_are_resized_and_come_back(size, inner):
    image = photograph(*size)
    copy = make_working_copy(image, no_hole(*size), side=64, least=64)
    assert copy.inner == inner and copy.image.shape == (64, 64, 3)
    restored = copy.restore(copy.image)
    assert restored.shape == image.shape
    assert np.abs(restored.astype(int) - image).max() <= 8


def test_a_finer_level_is_padded_only_up_to_a_tile():
    copy = make_working_copy(photograph(300, 90), no_hole(300, 90), side=150, least=64)
    assert copy.inner == (150, 45) and copy.image.shape == (150, 64, 3)


@pytest.mark.parametrize("side", [64, 150, 200])
def test_nothing_that_a_hole_hides_gets_into_known_pixels(side):
    image, hole = photograph(90, 150), no_hole(90, 150)
    hole[31:60, 43:91] = True
    other = np.where(hole[..., None], 255 - image, image)
    first, second = (make_working_copy(i, hole, side=side, least=64) for i in (image, other))
    assert np.array_equal(first.image[~first.hole], second.image[~second.hole])
    assert not np.array_equal(first.image[first.hole], second.image[second.hole])


def test_known_pixels_at_a_hole_are_not_tinted():
    """What the filter sees in the hole is the colour next to it."""
    image, hole = np.full((90, 150, 3), 180, np.uint8), no_hole(90, 150)
    hole[31:60, 43:91] = True
    image[hole] = 0
    copy = make_working_copy(image, hole, side=64, least=64)
    assert (copy.image[~copy.hole] == 180).all()
