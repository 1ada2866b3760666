"""Holes and crops of background and foreground items."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moebius.data.holes import draw_hole
from moebius.data.manifest import Record
from moebius.data.sample_spec import SampleSpec
from moebius.data.transforms import UnreadableImage

PLAIN = Record(Path("a.png"), None, "background", "a")


def save_mask(path: Path, width: int, height: int, *boxes: tuple[int, int, int, int]) -> Path:
    mask = Image.new("L", (width, height), 0)
    for box in boxes:
        mask.paste(255, box)
    mask.save(path)
    return path


def test_drawn_holes_keep_to_the_cap_and_are_never_empty():
    rng = np.random.default_rng(0)
    spec = SampleSpec(size=64, short_side=96, background_mask="mat_512_large", max_hole=0.4)
    for _ in range(200):
        hole, top, left = draw_hole(PLAIN, [], spec, (128, 96), rng)
        assert hole.shape == (64, 64)
        assert 0 < hole.mean() <= 0.4
        assert 0 <= top <= 32
        assert 0 <= left <= 64


def test_an_object_is_used_as_it_is(tmp_path: Path):
    mask = save_mask(tmp_path / "m.png", 64, 64, (0, 0, 64, 60))
    record = Record(Path("a.png"), mask, "foreground", "a")
    spec = SampleSpec(size=64, dilation_probability=0.0)
    hole, _, _ = draw_hole(record, [], spec, (64, 64), np.random.default_rng(0))
    assert hole[:60].all()
    assert not hole[60:].any()


def test_half_of_the_scene_masks_are_used(tmp_path: Path):
    mask = save_mask(tmp_path / "m.png", 64, 64, (10, 10, 20, 20))
    record = Record(Path("a.png"), mask, "background", "a")
    spec = SampleSpec(size=64, dilation_probability=0.0)
    rng = np.random.default_rng(0)
    drawn = [draw_hole(record, [], spec, (64, 64), rng)[0] for _ in range(400)]
    scenes = np.mean([hole.sum() == 100 and hole[10:20, 10:20].all() for hole in drawn])
    assert scenes == pytest.approx(0.5, abs=0.08)


def test_extra_objects_are_united_half_of_the_time(tmp_path: Path):
    scene = save_mask(tmp_path / "s.png", 64, 64, (0, 0, 8, 8))
    extra = save_mask(tmp_path / "o.png", 32, 32, (16, 16, 20, 20))
    record = Record(Path("a.png"), scene, "background", "a")
    spec = SampleSpec(
        size=64, scene_mask_probability=1.0, extra_foreground_mask=True, dilation_probability=0.0
    )
    rng = np.random.default_rng(0)
    drawn = [draw_hole(record, [extra], spec, (64, 64), rng)[0] for _ in range(400)]
    assert all(hole[:8, :8].all() for hole in drawn)
    united = np.mean([bool(hole[33:39, 33:39].all()) for hole in drawn])
    assert united == pytest.approx(0.5, abs=0.08)
    # The item of a broken mask reports it itself; here the hole goes without.
    draw_hole(record, [tmp_path / "absent.png"], spec, (64, 64), rng)


def test_crops_find_a_hole_whose_centre_is_known(tmp_path: Path):
    mask = save_mask(tmp_path / "m.png", 640, 32, (0, 0, 4, 4), (636, 28, 640, 32))
    record = Record(Path("a.png"), mask, "foreground", "a")
    spec = SampleSpec(size=32)
    rng = np.random.default_rng(0)
    lefts = [draw_hole(record, [], spec, (640, 32), rng)[2] for _ in range(50)]
    assert min(lefts) < 10
    assert max(lefts) > 600


def test_masks_without_a_usable_hole_are_unreadable(tmp_path: Path):
    empty = save_mask(tmp_path / "empty.png", 64, 64)
    full = save_mask(tmp_path / "full.png", 64, 64, (0, 0, 64, 64))
    rng = np.random.default_rng(0)
    spec = SampleSpec(size=64, scene_mask_probability=1.0)
    for record in (
        Record(Path("a.png"), empty, "foreground", "a"),
        Record(Path("a.png"), full, "background", "a"),
    ):
        with pytest.raises(UnreadableImage, match=rf"at most .* draws: .*{record.mask.name}"):
            draw_hole(record, [], spec, (64, 64), rng)
    with pytest.raises(UnreadableImage, match="background_mask and max_hole"):
        draw_hole(PLAIN, [], SampleSpec(size=64, max_hole=1e-4), (64, 64), rng)
