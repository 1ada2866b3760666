import numpy as np

from moebius.inference.boxes import Box


def test_boxes_are_arithmetic_on_corners():
    box = Box(2, 3, 10, 5)
    assert (box.width, box.height, box.side) == (8, 2, 8)
    assert box.grown(1) == (1, 2, 11, 6)
    assert box.union(Box(0, 4, 3, 9)) == (0, 3, 10, 9)
    assert box.within(Box(0, 4, 3, 9)) == (2, 4, 3, 5)
    assert box.relative_to(Box(2, 1, 90, 90)) == (0, 2, 8, 4)


def test_boxes_that_touch_do_not_overlap():
    box = Box(0, 0, 4, 4)
    assert box.overlaps(Box(3, 3, 5, 5))
    assert not box.overlaps(Box(4, 0, 8, 4)) and not box.overlaps(Box(0, 4, 4, 8))


def test_slices_index_an_array():
    grid = np.arange(20).reshape(4, 5)
    assert np.array_equal(grid[Box(1, 2, 3, 4).slices], grid[2:4, 1:3])
