"""Which pictures a benchmark takes: counts, numbers, CelebA's partition, small ones, a list."""

from pathlib import Path

import pytest
from PIL import Image

from moebius.config import Images
from moebius.data.manifest import read_records
from moebius.evaluation import listing
from moebius.evaluation.listing import by_stem, list_entries


def save(folder: Path, *names: str, side: int = 8) -> str:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side + 3)).save(path)
    return str(folder)


def names(images: dict, source: str, ids: str | None = None, limit: int | None = None) -> list[str]:
    entries = list_entries(Images(about="x", **images), source, ids, limit)
    return [entry.name for entry in entries]


def test_all_pictures_by_name_and_their_count(tmp_path):
    source = save(tmp_path, "b.png", "sub/a.png", "c.jpg")
    assert names({"count": 3}, source) == ["a", "b", "c"]
    for count in (2, 4):
        with pytest.raises(ValueError, match=rf"scores {count} pictures, .* gives 3"):
            names({"count": count}, source)
    assert names({"count": 2, "take": "first"}, source) == ["a", "b"]


def test_a_limit_needs_no_whole_set(tmp_path):
    source = save(tmp_path, "a.png", "b.png", "c.png")
    assert names({"count": 100}, source, limit=2) == ["a", "b", "c"]
    with pytest.raises(ValueError, match="complete it"):
        names({"count": 100}, source, limit=4)


def test_stems_must_differ(tmp_path):
    source = save(tmp_path, "x/a.png", "y/a.jpg")
    with pytest.raises(ValueError, match=r"a.png and .*a.jpg have the same stem"):
        by_stem(read_records(source))


def test_ids_are_numbers_in_a_range(tmp_path):
    source = save(tmp_path, "00000.png", "1000/01999.png", "02000.png", "notes.png")
    assert names({"count": 2, "ids": (0, 1999)}, source) == ["00000", "01999"]


def test_small_pictures_are_left_out_before_counting(tmp_path):
    save(tmp_path, "a.png", "c.png", side=8)
    source = save(tmp_path, "b.png", "d.png", side=16)
    assert names({"count": 2, "min_side": 16, "take": "first"}, source) == ["b", "d"]


def test_crops_are_numbered(tmp_path):
    source = save(tmp_path, "a.png", "b.png")
    images = {"count": 4, "crops": 2, "short_side": (8, 8)}
    assert names(images, source) == ["a-000", "a-001", "b-000", "b-001"]


def test_a_list_of_names_replaces_the_choice(tmp_path):
    source = save(tmp_path / "images", "a.png", "b.png", "c.png")
    ids = tmp_path / "ids.txt"
    ids.write_text("c.png\n\na\n")
    assert names({"count": 1000}, source, str(ids)) == ["a", "c"]
    ids.write_text("a\nz\n")
    with pytest.raises(ValueError, match="lacks 1 of 2 pictures: z"):
        names({"count": 2}, source, str(ids))
    with pytest.raises(ValueError, match="cannot read the list of --ids"):
        names({"count": 2}, source, str(tmp_path / "none.txt"))


@pytest.fixture
def celeba(tmp_path, monkeypatch):
    """Four pictures of CelebA-HQ, mapped to four of CelebA: one train, two validation, one test."""
    monkeypatch.setattr(listing, "CELEBA_COUNTS", {"train": 1, "validation": 2, "test": 1})
    rows = ["idx orig_idx orig_file", "0 7 000008.jpg", "1 2 000003.jpg", "2 4 000005.jpg"]
    rows.append("3 0 000001.jpg")
    (tmp_path / listing.CELEBA_MAPPING).write_text("\n".join(rows))
    labels = {"000001": 0, "000003": 1, "000005": 2, "000008": 1, "000009": 1}
    lines = [f"{name}.jpg {label}" for name, label in labels.items()]
    (tmp_path / listing.CELEBA_PARTITION).write_text("\n".join(lines))
    return save(tmp_path / "images", "0.jpg", "00001.jpg", "2.jpg", "3.jpg")


def test_celebas_partition_decides(celeba):
    assert names({"count": 2, "celeba_partition": "validation"}, celeba) == ["0", "00001"]
    assert names({"count": 1, "celeba_partition": "train"}, celeba) == ["3"]


def test_celebas_files_must_be_there_and_whole(celeba, tmp_path):
    (tmp_path / listing.CELEBA_PARTITION).write_text("000003.jpg 1")
    with pytest.raises(ValueError, match="give 1 pictures for validation, not 2"):
        names({"count": 2, "celeba_partition": "validation"}, celeba)
    (tmp_path / listing.CELEBA_MAPPING).unlink()
    with pytest.raises(ValueError, match="cannot read CelebA-HQ-to-CelebA-mapping.txt at"):
        names({"count": 2, "celeba_partition": "validation"}, celeba)


def test_the_counts_of_the_partitions_are_celeba_hqs():
    assert sum(listing.CELEBA_COUNTS.values()) == 30_000
