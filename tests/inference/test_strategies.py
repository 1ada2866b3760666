import numpy as np
import pytest

from moebius.inference.boxes import Box
from moebius.inference.strategies import find_holes, plan_windows

SIDE = 512


def holes(*boxes: tuple[int, int, int, int], size=(2000, 3000)) -> np.ndarray:
    hole = np.zeros(size, bool)
    for box in boxes:
        hole[Box(*box).slices] = True
    return hole


def plan(hole: np.ndarray, **options):
    return plan_windows(hole, side=SIDE, **options)


def test_a_small_hole_gets_a_square_of_the_models_side_around_it():
    [window] = plan(holes((1000, 800, 1060, 840)))
    assert window.box == (774, 564, 1286, 1076) and window.hole == (1000, 800, 1060, 840)
    assert window.sides == (SIDE,) and window.dilation == 5


def test_a_hole_of_one_pixel_is_found():
    [window] = plan(holes((1999, 77, 2000, 78)))
    assert window.hole == (1999, 77, 2000, 78)


@pytest.mark.parametrize(
    ("hole", "box"),
    [
        ((0, 0, 40, 30), (0, 0, 512, 512)),
        ((2980, 1990, 3000, 2000), (2488, 1488, 3000, 2000)),
        ((100, 900, 900, 1000), (0, 150, 1600, 1750)),
    ],
)
def test_windows_stay_in_the_photograph(hole, box):
    [window] = plan(holes(hole))
    assert window.box == box


def test_windows_are_cut_where_the_photograph_is_smaller():
    [window] = plan(holes((10, 10, 200, 90), size=(100, 2000)))
    assert window.box == (0, 0, 512, 100)


def test_the_dilation_is_in_proportion_to_the_window_unless_given():
    hole = holes((1000, 500, 1700, 600))
    assert plan(hole)[0].dilation == 14
    assert plan(hole, dilation=0)[0].dilation == 0
    [window] = plan(hole, dilation=100)
    assert window.dilation == 100 and window.box.side == 2 * 900


def test_holes_far_apart_are_done_separately_and_near_ones_together():
    far = plan(holes((100, 100, 140, 140), (2000, 1500, 2100, 1600)))
    assert [window.hole for window in far] == [(100, 100, 140, 140), (2000, 1500, 2100, 1600)]
    near = plan(holes((100, 100, 140, 140), (300, 200, 330, 210)))
    assert [window.hole for window in near] == [(100, 100, 330, 210)]
    # Too far apart for one window of the model's side, but near in proportion to their size.
    large = plan(holes((100, 100, 700, 700), (800, 100, 1400, 700)))
    assert [window.hole for window in large] == [(100, 100, 1400, 700)]


@pytest.mark.parametrize("dilation", [None, 0, 60])
def test_every_hole_is_filled_from_one_window_that_holds_its_dilation(dilation):
    rng = np.random.default_rng(0)
    for _ in range(20):
        boxes = []
        for _ in range(rng.integers(1, 12)):
            x, y, w, h = rng.integers(0, [2900, 1900, 300, 300])
            boxes.append((x, y, x + 1 + w, y + 1 + h))
        hole = holes(*boxes)
        seen = np.zeros(hole.shape, int)
        for window in plan(hole, dilation=dilation):
            for part in window.parts:
                grown = part.grown(window.dilation).within(Box(0, 0, 3000, 2000))
                assert grown.within(window.box) == grown
                seen[part.slices] += 1
        assert (seen[hole] == 1).all()


def test_specks_all_over_a_photograph_are_not_one_hole():
    rng = np.random.default_rng(0)
    hole = np.zeros((4000, 6000), bool)
    hole[rng.integers(0, 4000, 200), rng.integers(0, 6000, 200)] = True
    windows = plan(hole)
    assert all(window.sides == (SIDE,) and window.box.side == SIDE for window in windows)
    assert sum(len(window.parts) for window in windows) == 200 > len(windows)


def test_resize_is_one_window_of_everything():
    [window] = plan(holes((100, 100, 140, 140), (2000, 1500, 2100, 1600)), strategy="resize")
    assert window.box == (0, 0, 3000, 2000) and window.hole == (100, 100, 2100, 1600)
    assert window.sides == (SIDE,)


@pytest.mark.parametrize(
    ("strategy", "hole", "sides"),
    [
        ("auto", 500, (512,)),
        ("auto", 600, (512, 1024, 1200)),
        ("auto", 1500, (512, 1024, 2048)),
        ("crop", 1500, (512,)),
        ("tile", 200, (512,)),
        ("tile", 1500, (512, 1024, 2048, 3000)),
    ],
)
def test_levels_double_up_to_what_the_strategy_asks_for(strategy, hole, sides):
    [window] = plan(holes((0, 0, hole, hole)), strategy=strategy)
    assert window.sides == sides


def test_no_hole_is_no_window():
    assert plan(holes()) == [] and plan(holes(), strategy="resize") == []


def test_bad_options_are_refused():
    with pytest.raises(ValueError, match="'zoom' is unknown: use auto, crop"):
        plan(holes(), strategy="zoom")
    with pytest.raises(ValueError, match="dilation is -1"):
        plan(holes(), dilation=-1)


def test_diagonal_neighbours_are_one_hole():
    grid = np.zeros((40, 40), bool)
    grid[9, 9] = grid[10, 10] = grid[35, 2] = True
    assert sorted(find_holes(grid, cell=10)) == [(2, 35, 3, 36), (9, 9, 11, 11)]
