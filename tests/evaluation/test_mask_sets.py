"""Holes drawn by id, published masks with their polarity, and the check on their mean."""

import numpy as np
import pytest
from PIL import Image

from moebius.config import Masks
from moebius.evaluation.mask_sets import check_mean_hole, draw_hole, pair_masks, read_published
from moebius.scoring import protocol_names, read_protocol


def save_masks(folder, names, white_share=0.4, size=32):
    folder.mkdir(exist_ok=True)
    for name in names:
        mask = np.zeros((size, size), np.uint8)
        mask[: round(white_share * size)] = 255
        Image.fromarray(mask).save(folder / f"{name}.png")
    return folder


def test_a_hole_belongs_to_its_id_and_seed():
    masks = Masks(generator="mat_512_large")
    hole = draw_hole(masks, "a", 64)
    assert np.array_equal(hole, draw_hole(masks, "a", 64))
    assert not np.array_equal(hole, draw_hole(masks, "b", 64))
    assert not np.array_equal(hole, draw_hole(masks.model_copy(update={"seed": 1}), "a", 64))


def test_areas_are_kept_in_their_range():
    masks = Masks(generator="lama_thick_512", area=(0.4, 0.5))
    areas = [draw_hole(masks, str(n), 128).mean() for n in range(40)]
    assert min(areas) >= 0.4 and max(areas) < 0.5
    empty = Masks(generator="lama_thin_512")
    assert all(draw_hole(empty, str(n), 64).any() for n in range(40))


def test_an_area_that_never_comes_and_an_unknown_generator_are_refused(monkeypatch):
    monkeypatch.setattr("moebius.evaluation.mask_sets.ATTEMPTS", 20)
    with pytest.raises(ValueError, match=r"drew no hole of 0.999 to 1 .* widen masks.area"):
        draw_hole(Masks(generator="lama_thin_512", area=(0.999, 1)), "a", 64)
    with pytest.raises(ValueError, match="unknown mask generator 'x': use one of lama_"):
        draw_hole(Masks(generator="x"), "a", 64)


@pytest.mark.parametrize(("white", "share"), [("hole", 0.4), ("known", 0.6)])
def test_polarity_is_explicit(tmp_path, white, share):
    folder = save_masks(tmp_path / "masks", ["a"], white_share=0.40625)
    hole = read_published(folder / "a.png", 32, white)
    assert hole.mean() == pytest.approx(share, abs=0.01) and hole.dtype == bool
    assert hole[0, 0] == (white == "hole")


def test_masks_of_another_size_and_broken_ones_are_refused(tmp_path):
    folder = save_masks(tmp_path / "masks", ["a"])
    with pytest.raises(ValueError, match=r"a.png is 32x32 pixels, the protocol's pictures 64x64"):
        read_published(folder / "a.png", 64, "hole")
    whole = (folder / "a.png").read_bytes()
    (folder / "a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"cannot read .*a.png"):
        read_published(folder / "a.png", 32, "hole")


def test_masks_are_paired_by_stem(tmp_path):
    folder = save_masks(tmp_path / "masks", ["b", "a", "more"])
    pairs = pair_masks(folder, ["a", "b"], by_order=False)
    assert {name: path.stem for name, path in pairs.items()} == {"a": "a", "b": "b"}
    names = ["a", *"cdefgh"]
    with pytest.raises(ValueError, match=r"no mask for 6 of 7 pictures: c, d, e, f, g, \.\.\."):
        pair_masks(folder, names, by_order=False)


def test_masks_are_paired_by_order_where_the_protocol_says_so(tmp_path):
    folder = save_masks(tmp_path / "masks", ["000", "001"])
    pairs = pair_masks(folder, ["x", "y"], by_order=True)
    assert {name: path.stem for name, path in pairs.items()} == {"x": "000", "y": "001"}
    with pytest.raises(ValueError, match="2 masks for 3 pictures"):
        pair_masks(folder, ["x", "y", "z"], by_order=True)


def test_the_mean_hole_is_held_against_its_source():
    rng = np.random.default_rng(0)
    areas = list(rng.uniform(0.3, 0.5, 2000))
    check_mean_hole(areas, 0.4, "masks")
    check_mean_hole(areas, None, "masks")
    with pytest.raises(ValueError, match="these are other masks"):
        check_mean_hole(areas, 0.43, "masks")
    with pytest.raises(ValueError, match="the rest does: white means the opposite here"):
        check_mean_hole([1 - area for area in areas], 0.4, "masks")


def test_a_small_set_may_be_off_by_chance():
    check_mean_hole([0.1, 0.12, 0.2, 0.3], 0.4, "masks")
    check_mean_hole([0.9], 0.4, "masks")
    with pytest.raises(ValueError, match="white means the opposite"):
        check_mean_hole([0.62, 0.55, 0.6, 0.58] * 5, 0.4, "masks")
    with pytest.raises(ValueError, match="these are other masks"):
        check_mean_hole([0.7, 0.8] * 20, 0.45, "masks")


@pytest.mark.parametrize("name", [n for n in protocol_names() if n != "builtin"])
def test_the_holes_of_every_protocol_have_their_sources_mean(name):
    """At a quarter of the size where that is the same: lengths scale with the side."""
    protocol = read_protocol(name)
    areas = [draw_hole(protocol.masks, str(n), protocol.size // 4).mean() for n in range(200)]
    expected = protocol.masks.mean_hole
    error = np.std(areas) / len(areas) ** 0.5
    assert abs(np.mean(areas) - expected) < 4 * error, (np.mean(areas), expected)
