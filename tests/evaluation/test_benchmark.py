"""What is scored is written once, checked when it is read, and refused when it is another."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moebius.config import Protocol, Scoring
from moebius.evaluation.benchmark import Benchmark, Item, prepare_benchmark
from moebius.evaluation.pixels import checksum, read_hole, read_picture, write_png
from moebius.scoring import protocol_names, read_protocol

SIZE = 48


@pytest.fixture
def source(tmp_path) -> Path:
    """Six pictures of odd sizes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "source"
    folder.mkdir()
    for n, shape in enumerate([(50, 61), (40, 90), (48, 48), (33, 35), (100, 20), (64, 64)]):
        pixels = rng.integers(256, size=(*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"picture{n}.png")
    return folder


@pytest.fixture
def protocol() -> Protocol:
    data = {
        "title": "Small",
        "images": {"about": "six pictures", "count": 6},
        "geometry": "crop",
        "size": SIZE,
        "masks": {"generator": "mat_512_large", "published": {"about": "x", "white": "known"}},
        "metrics": ["psnr"],
    }
    return Protocol.model_validate(data)


def published(folder: Path, protocol: Protocol, invert: bool) -> Path:
    """The benchmark's own holes, as somebody else would publish them."""
    made = prepare_benchmark(protocol, Scoring(images=str(folder)), folder.parent / "first")
    masks = folder.parent / "masks"
    masks.mkdir()
    for name in made.names:
        hole = made.read(name).hole
        write_png(masks / f"{name}.png", ~hole if invert else hole)
    return masks


def test_pictures_and_holes_are_written_and_read_back(protocol, source, tmp_path):
    made = prepare_benchmark(protocol, Scoring(images=str(source)), tmp_path / "b")
    assert made.names == [f"picture{n}" for n in range(6)]
    for name in made.names:
        item = made.read(name)
        assert item.image.shape == (SIZE, SIZE, 3) and item.hole.shape == (SIZE, SIZE)
        shown = Image.open(tmp_path / "b" / "masks" / f"{name}.png")
        assert (np.asarray(shown) == 255 * item.hole).all(), "white is the hole"
        line = made.lines[name]
        assert line.source == f"{name}.png" and line.mask == "drawn"
        assert line.image_sha256 == checksum(read_picture(made.folder / "images" / line.source))
        assert line.hole == pytest.approx(item.hole.mean(), abs=1e-6)
    assert np.array_equal(made.read("picture2").image, read_picture(source / "picture2.png"))


def test_the_same_inputs_give_the_same_manifest_and_nothing_is_written_twice(
    protocol, source, tmp_path
):
    scoring, folder = Scoring(images=str(source)), tmp_path / "b"
    first = prepare_benchmark(protocol, scoring, folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = prepare_benchmark(protocol, scoring, folder)
    other = prepare_benchmark(protocol, scoring, tmp_path / "c")
    assert first.sha256 == again.sha256 == other.sha256
    assert times == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_holes_do_not_depend_on_what_else_is_scored(protocol, source, tmp_path):
    whole = prepare_benchmark(protocol, Scoring(images=str(source)), tmp_path / "b")
    part = prepare_benchmark(protocol, Scoring(images=str(source), limit=3), tmp_path / "c")
    assert [*part.lines.values()] == [*whole.lines.values()][:3]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"limit": 3}, "limit"),
        ({"images": "elsewhere"}, "source"),
        ({"masks": "masks"}, "masks, white"),
    ],
)
def test_another_setting_in_the_same_folder_is_refused(protocol, source, tmp_path, change, named):
    scoring = Scoring(images=str(source))
    prepare_benchmark(protocol, scoring, tmp_path / "b")
    with pytest.raises(ValueError, match=rf"other settings \({named}\); choose another --out"):
        prepare_benchmark(protocol, scoring.model_copy(update=change), tmp_path / "b")


def test_a_changed_file_is_noticed(protocol, source, tmp_path):
    made = prepare_benchmark(protocol, Scoring(images=str(source)), tmp_path / "b")
    hole = made.read("picture0").hole
    hole[0, 0] = not hole[0, 0]
    write_png(tmp_path / "b" / "masks" / "picture0.png", hole)
    with pytest.raises(ValueError, match="is not what the manifest says: remove"):
        Benchmark(tmp_path / "b").read("picture0")


def test_a_truncated_picture_is_one_clear_error_and_leaves_no_benchmark(protocol, source, tmp_path):
    broken = source / "picture3.png"
    broken.write_bytes(broken.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cannot read .*picture3.png"):
        prepare_benchmark(protocol, Scoring(images=str(source)), tmp_path / "b")
    assert not (tmp_path / "b" / "manifest.jsonl").exists()


def test_a_protocol_without_pictures_asks_for_them(protocol, tmp_path):
    with pytest.raises(ValueError, match="Small needs --images: six pictures"):
        prepare_benchmark(protocol, Scoring(), tmp_path / "b")


@pytest.mark.parametrize("white", ["known", "hole"])
def test_published_masks_are_read_by_their_polarity(protocol, source, tmp_path, white):
    masks = published(source, protocol, invert=white == "known")
    scoring = Scoring(images=str(source), masks=str(masks), white=white)
    made = prepare_benchmark(protocol, scoring, tmp_path / "b")
    drawn = Benchmark(tmp_path / "first")
    for name in made.names:
        assert np.array_equal(made.read(name).hole, drawn.read(name).hole)
        assert made.lines[name].mask == f"{name}.png"


def test_the_protocol_says_what_white_means_or_the_user_does(protocol, source, tmp_path):
    masks = published(source, protocol, invert=True)
    scoring = Scoring(images=str(source), masks=str(masks))
    made = prepare_benchmark(protocol, scoring, tmp_path / "b")
    assert np.array_equal(made.read("picture0").hole, ~read_hole(masks / "picture0.png"))
    unsaid = protocol.masks.model_copy(update={"published": None})
    with pytest.raises(ValueError, match="--white hole or --white known"):
        prepare_benchmark(protocol.model_copy(update={"masks": unsaid}), scoring, tmp_path / "c")


def test_inverted_masks_are_caught_by_their_mean(protocol, source, tmp_path):
    """Small holes, so that six of them tell."""
    masks = tmp_path / "masks"
    masks.mkdir()
    for n in range(6):
        write_png(masks / f"picture{n}.png", np.eye(SIZE, dtype=bool))
    expecting = protocol.masks.model_copy(update={"mean_hole": 1 / SIZE})
    rule = protocol.model_copy(update={"masks": expecting})
    with pytest.raises(ValueError, match="white means the opposite here, see --white"):
        prepare_benchmark(rule, Scoring(images=str(source), masks=str(masks)), tmp_path / "b")


def test_masks_that_are_missing_are_listed(protocol, source, tmp_path):
    masks = published(source, protocol, invert=True)
    (masks / "picture4.png").unlink()
    scoring = Scoring(images=str(source), masks=str(masks))
    with pytest.raises(ValueError, match="has no mask for 1 of 6 pictures: picture4"):
        prepare_benchmark(protocol, scoring, tmp_path / "b")


@pytest.mark.parametrize("name", protocol_names())
def test_every_protocol_prepares_pictures_of_its_size(name, source, tmp_path):
    rule = read_protocol(name)
    images = rule.images.model_dump() | {"celeba_partition": None, "ids": None, "min_side": 1}
    rule = Protocol.model_validate(rule.model_dump() | {"images": images})
    given = {} if rule.images.source else {"images": str(source)}
    made = prepare_benchmark(rule, Scoring(limit=2, **given), tmp_path / "b")
    item = made.read(made.names[0])
    assert isinstance(item, Item) and item.image.shape == (rule.size, rule.size, 3)
    low, high = rule.masks.area
    assert low <= item.hole.mean() < high
    settings = json.loads((tmp_path / "b" / "settings.json").read_text())
    assert settings["geometry"] == rule.geometry and settings["limit"] == 2
