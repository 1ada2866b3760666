"""The stream of samples: repeatable, complete, and steadfast against broken files."""

import json
import logging
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Subset

from moebius.data.manifest import Record, read_records
from moebius.data.samples import InpaintingSamples, Sample, SampleSpec, fixed_pairs

SPEC = SampleSpec(size=32, seed=3)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for n in range(8):
        pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{n}.png")
    return tmp_path


def same(a: Sample, b: Sample) -> bool:
    plain = all(a[key] == b[key] for key in ("index", "name", "category"))
    return plain and torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])


def test_a_sample_is_what_it_says(folder: Path):
    samples = InpaintingSamples(read_records(folder), SPEC)
    for n in range(40):
        sample = samples[n]
        assert sample["image"].shape == (3, 32, 32)
        assert sample["mask"].shape == (1, 32, 32)
        assert sample["image"].dtype == sample["mask"].dtype == torch.float32
        assert -1 <= sample["image"].min() < 0 < sample["image"].max() <= 1
        assert set(sample["mask"].unique().tolist()) <= {0.0, 1.0}
        assert 0 < sample["mask"].mean() <= SPEC.max_hole
        assert sample["category"].dtype == torch.int64
        assert sample["category"] == 0


def test_picture_and_hole_stay_together(tmp_path: Path):
    # The object is white on black and its mask white: wherever the hole is, the picture is white.
    picture = Image.new("RGB", (96, 64))
    picture.paste((255, 255, 255), (20, 10, 50, 40))
    picture.save(tmp_path / "a.png")
    picture.convert("L").save(tmp_path / "m.png")
    record = Record(tmp_path / "a.png", tmp_path / "m.png", "foreground", "a")
    spec = SampleSpec(size=32, short_side=64, dilation_probability=0.0)
    samples = InpaintingSamples([record], spec)
    for n in range(30):
        sample = samples[n]
        assert torch.equal(sample["image"], (2 * sample["mask"] - 1).expand(3, -1, -1))


def test_half_of_the_samples_are_flipped(tmp_path: Path):
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (32, 1))
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    samples = InpaintingSamples(read_records(tmp_path), SPEC)
    falling = [
        bool(samples[n]["image"][0, 0, 0] > samples[n]["image"][0, 0, -1]) for n in range(300)
    ]
    assert np.mean(falling) == pytest.approx(0.5, abs=0.1)


def test_short_side_is_drawn_from_its_bounds(folder: Path):
    samples = InpaintingSamples(read_records(folder), SampleSpec(size=32, short_side=(32, 34)))
    sides: list[int] = []
    resized = samples._pictures.resized
    samples._pictures.resized = lambda path, side: sides.append(side) or resized(path, side)
    [samples[n] for n in range(60)]
    assert set(sides) == {32, 33, 34}


def test_number_epoch_and_index_name_the_same_draw(folder: Path):
    samples, again = (InpaintingSamples(read_records(folder), SPEC) for _ in range(2))
    later = again[21]
    for n in range(24):
        epoch, index = samples.stream_position(n)
        assert epoch == n // 8
        assert samples[n]["index"] == index
        assert same(samples[n], again.draw(epoch, index))
    assert same(samples[21], later)
    assert same(samples[21], pickle.loads(pickle.dumps(samples))[21])


def test_seed_epoch_and_index_all_matter(folder: Path):
    records = read_records(folder)
    samples = InpaintingSamples(records, SPEC)
    other = InpaintingSamples(records, SampleSpec(size=32, seed=4))
    first = samples.draw(0, 0)["mask"]
    for mask in (samples.draw(1, 0)["mask"], samples.draw(0, 1)["mask"], other.draw(0, 0)["mask"]):
        assert not torch.equal(first, mask)


def test_channels_change_places_and_keep_their_values(folder: Path):
    records = read_records(folder)
    plain, shuffled = (
        InpaintingSamples(records, SampleSpec(size=32, channel_shuffle_probability=p))
        for p in (0.0, 1.0)
    )
    moved = 0
    for n in range(8):
        a, b = plain[n]["image"], shuffled[n]["image"]
        assert torch.equal(plain[n]["mask"], shuffled[n]["mask"])
        assert sorted(c.sum().item() for c in a) == sorted(c.sum().item() for c in b)
        moved += not torch.equal(a, b)
    assert moved >= 4


def test_epochs_are_different_permutations(folder: Path):
    samples = InpaintingSamples(read_records(folder), SPEC)
    orders = [[samples.stream_position(8 * e + n)[1] for n in range(8)] for e in range(4)]
    assert all(sorted(order) == list(range(8)) for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_loaders_resume_and_share_the_stream(folder: Path):
    samples = InpaintingSamples(read_records(folder), SPEC)
    whole = list(DataLoader(Subset(samples, range(24)), batch_size=4))
    rest = list(DataLoader(Subset(samples, range(12, 24)), batch_size=4, num_workers=2))
    for batch, resumed in zip(whole[3:], rest, strict=True):
        assert torch.equal(batch["image"], resumed["image"])
        assert torch.equal(batch["mask"], resumed["mask"])
    assert whole[0]["category"].tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("objects", "share", "length"), [(1, 0.1, 22), (1, 0.5, 38), (3, 0.5, 34), (5, 0.1, 20)]
)
def test_foreground_share_is_kept(folder: Path, objects: int, share: float, length: int):
    image, mask = folder / "0.png", folder / "mask.png"
    Image.new("L", (60, 40), 255).save(mask)
    records = [Record(image, None, "background", str(n)) for n in range(20 - objects)]
    records += [Record(image, mask, "foreground", f"object {n}") for n in range(objects)]
    samples = InpaintingSamples(records, SampleSpec(size=32, foreground_share=share))
    epoch = [samples[n] for n in range(len(samples))]
    assert {sample["name"] for sample in epoch} == {record.name for record in records}
    shown = sum(int(sample["category"]) for sample in epoch)
    assert shown >= share * len(epoch)
    counts = [sum(s["name"] == f"object {n}" for s in epoch) for n in range(objects)]
    assert max(counts) - min(counts) <= 1
    # The least number of repeats that does it.
    assert len(samples) == length


def test_repeats_of_a_foreground_item_are_drawn_apart(folder: Path):
    mask = folder / "mask.png"
    Image.new("L", (60, 40), 255).save(mask)
    records = [*read_records(folder)[:2], Record(folder / "0.png", mask, "foreground", "object")]
    samples = InpaintingSamples(records, SampleSpec(size=32, foreground_share=0.8))
    shown = [s for s in map(samples.__getitem__, range(len(samples))) if s["name"] == "object"]
    assert len({sample["index"] for sample in shown}) == len(shown) == 8
    assert len({sample["image"].numpy().tobytes() for sample in shown}) > 1


def test_the_next_readable_record_stands_in(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "5.png").write_text("broken")
    records = read_records(folder)
    spec = SampleSpec(size=32, short_side=(32, 40))
    samples, fresh = (InpaintingSamples(records, spec, max_unreadable=0.2) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        drawn = [samples[n] for n in range(24)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "5.png" in caplog.text
    assert samples.unreadable == ["5.png"]
    order = [samples.stream_position(n)[1] for n in range(8)]
    place = order.index(5)
    assert drawn[place]["name"] == f"{order[(place + 1) % 8]}.png"
    assert drawn[place]["index"] == 5
    # Whether the failure is met for the first time or remembered makes no difference.
    assert same(samples.draw(2, 5), fresh.draw(2, 5))


def test_a_broken_mask_counts_too(folder: Path):
    records = read_records(folder)
    records[0] = Record(records[0].image, folder / "absent.png", "foreground", "lost")
    samples = InpaintingSamples(records, SPEC, max_unreadable=0.2)
    assert {samples[n]["name"] for n in range(len(samples))} == {f"{n}.png" for n in range(1, 8)}
    assert samples.unreadable == ["lost"]


def test_too_many_unreadable_stop_the_run(folder: Path):
    for n in (2, 5):
        (folder / f"{n}.png").write_text("broken")
    records = read_records(folder)
    patient = InpaintingSamples(records, SPEC, max_unreadable=0.25)
    assert len([patient[n] for n in range(16)]) == 16
    samples = InpaintingSamples(records, SPEC, max_unreadable=0.2)
    with pytest.raises(ValueError, match=r"2 of 8 images .*(2\.png.*5\.png|5\.png.*2\.png)"):
        [samples[n] for n in range(16)]
    with pytest.raises(ValueError, match="1 of 8 images"):
        InpaintingSamples(records, SPEC).draw(0, 2)


def test_every_kind_of_bad_file_is_skipped_by_name_and_odd_ones_are_read(tmp_path: Path, caplog):
    """A manifest as they come: what can be read is read, the rest is named with its reason."""
    rng = np.random.default_rng(0)
    good = Image.fromarray(rng.integers(0, 256, (40, 60, 3), np.uint8))
    good.save(tmp_path / "good.png")
    good.convert("CMYK").save(tmp_path / "cmyk.jpg")
    good.save(tmp_path / "moving.gif", save_all=True, append_images=[Image.new("RGB", (60, 40))])
    whole = (tmp_path / "good.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("no picture")
    # A header of 50,000 x 50,000 pixels: 7.5 GB once decoded.
    header = b"IHDR" + struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    (tmp_path / "huge.png").write_bytes(whole[:8] + chunk + whole[33:])
    Image.new("L", (40, 60), 255).save(tmp_path / "upright.png")
    Image.new("L", (30, 20), 255).save(tmp_path / "half.png")
    lines = [{"image": name} for name in ("good.png", "good.png", "cmyk.jpg", "moving.gif")]
    lines += [{"image": name} for name in ("cut.png", "empty.png", "text.png", "huge.png")]
    lines += [{"image": "absent.png"}, {"image": "good.png", "mask": "upright.png"}]
    lines += [{"image": "good.png", "mask": "half.png"}]
    text = "".join(json.dumps({**line, "category": "background"}) + "\n" for line in lines)
    (tmp_path / "all.jsonl").write_text(text)
    spec = SampleSpec(size=32, short_side=40, scene_mask_probability=0.0)
    samples = InpaintingSamples(read_records(tmp_path / "all.jsonl"), spec, max_unreadable=0.6)
    with caplog.at_level(logging.WARNING):
        drawn = [samples.draw(0, index) for index in range(len(lines))]
    # Two lines of one picture are two samples.
    assert [drawn[n]["name"] for n in (0, 1)] == ["good.png", "good.png"]
    assert not torch.equal(drawn[0]["mask"], drawn[1]["mask"])
    assert [drawn[n]["name"] for n in (2, 3, 10)] == ["cmyk.jpg", "moving.gif", "good.png"]
    skipped = sorted(record.getMessage() for record in caplog.records)
    reasons = {
        "absent.png": "No such file",
        "cut.png": "truncated",
        "empty.png": "cannot identify",
        "good.png": "of 40x60 pixels is not of its picture (60x40",
        "huge.png": "exceeds limit",
        "text.png": "cannot identify",
    }
    assert len(skipped) == len(reasons) == len(samples.unreadable)
    for (name, reason), line in zip(reasons.items(), skipped, strict=True):
        assert line.startswith(f"skipped {name}: ") and reason in line and "\n" not in line


@pytest.mark.parametrize("workers", [0, 1])
def test_a_picture_that_hangs_stops_the_run_by_name(tmp_path: Path, workers: int):
    """Nobody writes into the pipe, so opening it for reading never returns."""
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "all.jsonl").write_text('{"image": "pipe.png", "category": "background"}\n')
    samples = InpaintingSamples(read_records(tmp_path / "all.jsonl"), SPEC, timeout_s=0.3)
    with pytest.raises(TimeoutError, match=r"reading pipe\.png .*data\.timeout_s.* than 0\.3 s"):
        next(iter(DataLoader(samples, 1, num_workers=workers)))


def test_nothing_readable_is_an_error_at_any_share(folder: Path):
    for path in folder.iterdir():
        path.write_text("broken")
    samples = InpaintingSamples(read_records(folder), SPEC, max_unreadable=1.0)
    for _ in range(2):
        with pytest.raises(ValueError, match="none of the 8 images"):
            samples[0]


def test_fixed_pairs_show_photographs_as_they_are():
    records = read_records("builtin:validation")
    moving = SampleSpec(
        size=64, flip_probability=1.0, dilation_probability=1.0, channel_shuffle_probability=1.0
    )
    plain = fixed_pairs(records, SampleSpec(size=64), 8, seed=0)
    for a, b in zip(plain, fixed_pairs(records, moving, 8, seed=0), strict=True):
        assert torch.equal(a["image"], b["image"]) and torch.equal(a["mask"], b["mask"])


def test_fixed_pairs_are_fixed_and_fair():
    records = read_records("builtin:validation")
    pairs = fixed_pairs(records, SampleSpec(size=64), 32, seed=0)
    again = fixed_pairs(records, SampleSpec(size=64, seed=9), 32, seed=0)
    other = fixed_pairs(records, SampleSpec(size=64), 32, seed=1)
    assert all(same(a, b) for a, b in zip(pairs, again, strict=True))
    assert not all(same(a, b) for a, b in zip(pairs, other, strict=True))
    assert len(pairs) == 32
    assert all(0.1 <= pair["mask"].mean() <= 0.5 for pair in pairs)
    for record in records:
        assert sum(pair["name"] == record.name for pair in pairs) >= 8


def test_fixed_pairs_give_up_on_holes_that_never_fit(folder: Path):
    mask = folder / "mask.png"
    Image.new("L", (60, 40), 255).save(mask)
    records = [Record(folder / "0.png", mask, "foreground", "all of it")]
    with pytest.raises(ValueError, match="only 0 of 2 holes"):
        fixed_pairs(records, SPEC, 2, seed=0)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"size": 4}, "size"),
        ({"short_side": 500}, "short_side"),
        ({"short_side": (600, 550)}, "short_side"),
        ({"background_mask": "thick"}, "lama_thick_512"),
        ({"flip_probability": 1.5}, "flip_probability"),
        ({"dilation_probability": float("nan")}, "dilation_probability"),
        ({"scene_mask_probability": -0.1}, "scene_mask_probability"),
        ({"max_hole": 0.0}, "max_hole"),
        ({"foreground_share": 1.0}, "foreground_share"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, object], name: str):
    with pytest.raises(ValueError, match=name):
        SampleSpec(**settings)


def test_records_that_cannot_serve_are_refused(folder: Path):
    with pytest.raises(ValueError, match="no records"):
        InpaintingSamples([], SPEC)
    with pytest.raises(ValueError, match="extra_foreground_mask"):
        InpaintingSamples(read_records(folder), SampleSpec(size=32, extra_foreground_mask=True))
