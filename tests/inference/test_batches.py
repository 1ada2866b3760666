from pathlib import Path

import pytest
from PIL import Image

from moebius.inference.batches import derived_seed, folder, single


@pytest.fixture
def place(tmp_path) -> Path:
    """photos/{a.png, b.jpg, c.tif, notes.txt} and masks/{a.png, c.jpg, z.png}."""
    for name in ("photos/a.png", "photos/b.jpg", "photos/c.tif", "masks/a.png", "masks/c.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (4, 4)).save(tmp_path / name)
    Image.new("L", (4, 4)).save(tmp_path / "masks/z.png")
    (tmp_path / "photos/notes.txt").write_text("no picture")
    return tmp_path


def test_pairs_share_a_stem_and_what_has_no_pair_is_listed(place):
    batch = folder(place / "photos", place / "masks", place / "out", 1, 0)
    assert [(item.image.name, item.mask.name) for item in batch.items] == [
        ("a.png", "a.png"),
        ("c.tif", "c.jpg"),
    ]
    [missing], [unused] = batch.missing, batch.unused
    assert "b.jpg: no mask b.*" in missing and unused.endswith("z.png")


def test_one_mask_serves_all_and_lossless_formats_are_kept(place):
    batch = folder(place / "photos", place / "masks/a.png", place / "out", 1, 0)
    assert [item.outputs[0].name for item in batch.items] == ["a.png", "b.png", "c.tif"]
    assert {item.mask for item in batch.items} == {place / "masks/a.png"}


def test_boxes_need_no_mask(place):
    assert all(item.mask is None for item in folder(place / "photos", None, place, 1, 0).items[1:2])


def test_photographs_of_one_name_are_not_mixed_up(place):
    Image.new("L", (4, 4)).save(place / "photos/a.webp")
    batch = folder(place / "photos", None, place / "out", 1, 0)
    assert [item.image.name for item in batch.items] == ["a.png", "b.jpg", "c.tif"]
    assert "a.webp: another photograph has this name" in batch.missing[0]
    Image.new("L", (4, 4)).save(place / "masks/a.webp")
    with pytest.raises(ValueError, match="a.webp and a.png are masks of one name"):
        folder(place / "photos", place / "masks", place / "out", 1, 0)


def test_several_results_have_numbered_outputs_and_following_seeds(place):
    [item] = single(place / "photos/a.png", None, place / "out.png", 3, 7).items
    assert [path.name for path in item.outputs] == ["out_1.png", "out_2.png", "out_3.png"]
    assert item.seeds == (7, 8, 9)


def test_seeds_of_a_folder_depend_on_the_name_alone(place):
    def seeds():
        items = folder(place / "photos", None, place / "out", 2, 5).items
        return {item.image.stem: item.seeds for item in items}

    before = seeds()
    (place / "photos/a.png").unlink()
    assert seeds() == {"b": before["b"], "c": before["c"]}
    # printf '5/b' | sha256sum, the first 8 bytes without their last two bits
    assert before["b"][0] == derived_seed(5, "b") == 1811330979989442580
    assert derived_seed(6, "b") != derived_seed(5, "b")


def test_an_item_is_finished_when_all_its_outputs_are_there(place):
    [item] = single(place / "photos/a.png", None, place / "out.png", 2, 0).items
    item.outputs[0].touch()
    assert not item.finished
    item.outputs[1].touch()
    assert item.finished


@pytest.mark.parametrize("output", ["photos", "masks/../photos", "link", "masks"])
def test_inputs_are_never_overwritten(place, output):
    (place / "link").symlink_to(place / "photos")
    with pytest.raises(ValueError, match="would overwrite an input"):
        folder(place / "photos", place / "masks", place / output, 1, 0)


def test_folders_without_sense_are_refused(place):
    with pytest.raises(ValueError, match="keep them in two folders"):
        folder(place / "photos", place / "photos", place / "out", 1, 0)
    (place / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: no photograph"):
        folder(place / "empty", None, place / "out", 1, 0)
