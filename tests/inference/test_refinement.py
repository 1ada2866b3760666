from itertools import pairwise

import numpy as np
import pytest
from skimage import data

from moebius.inference.refinement import join_tiles, refine, tile_boxes
from moebius.inference.working_copy import make_working_copy

PHOTO = data.astronaut()[:150, :200]


@pytest.mark.parametrize("shape", [(64, 64), (64, 65), (150, 200), (64, 1000)])
def test_tiles_cover_the_picture_and_overlap_by_a_quarter(shape):
    seen = np.zeros(shape, int)
    boxes = tile_boxes(shape, 64)
    for box in boxes:
        assert box.width == box.height == 64
        seen[box.slices] += 1
    assert seen.min() == 1
    for axis in (0, 1):
        starts = sorted({box[axis] for box in boxes})
        assert all(b - a <= 48 for a, b in pairwise(starts))


def test_tiles_that_agree_leave_no_seam():
    boxes = tile_boxes(PHOTO.shape, 64)
    tiles = np.stack([PHOTO[box.slices] for box in boxes])
    assert np.array_equal(join_tiles(np.zeros_like(PHOTO), boxes, tiles), PHOTO)


def test_tiles_that_differ_fade_into_each_other():
    boxes = tile_boxes((64, 112), 64)
    tiles = np.stack([np.full((64, 64, 3), level, np.uint8) for level in (0, 170)])
    row = join_tiles(np.zeros((64, 112, 3), np.uint8), boxes, tiles)[30, :, 0].astype(int)
    assert row[0] == 0 and row[-1] == 170 and 0 < np.diff(row).max() <= 12


def test_only_tiles_with_a_hole_are_refined_from_the_coarse_picture():
    hole = np.zeros(PHOTO.shape[:2], bool)
    hole[10:60, 10:50] = True
    copy = make_working_copy(PHOTO, hole, side=200, least=64)
    coarse = np.full((75, 100, 3), 90, np.uint8)
    asked = []

    def fill(images, holes, start):
        asked.append((images, holes, start))
        return np.full_like(images, 33)

    result = refine(copy, coarse, 64, fill)
    [(images, holes, start)] = asked
    assert len(images) == 4 and all(holes.any(axis=(1, 2)))
    assert (start[holes] == 90).all() and np.array_equal(start[~holes], images[~holes])
    assert (result[hole] == 33).all() and np.array_equal(result[:, 120:], PHOTO[:, 120:])


def test_padding_shows_nothing_hidden():
    """What a hole hides must not come back mirrored, as something to start from."""
    hole = np.zeros((40, 200), bool)
    hole[30:, 50:90] = True
    image = np.where(hole[..., None], 255, PHOTO[:40] // 2).astype(np.uint8)
    copy = make_working_copy(image, hole, side=200, least=64)
    starts = []
    refine(copy, np.zeros((20, 100, 3), np.uint8), 64, lambda *a: starts.append(a[2]) or a[0])
    assert starts[0].max() < 255
