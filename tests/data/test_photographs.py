import pytest
from PIL import Image

from moebius.data import photographs
from moebius.data.photographs import BUILTIN, builtin_paths


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_photograph_is_a_readable_colour_picture(split):
    paths = builtin_paths(split)
    assert [path.name for path in paths] == list(BUILTIN[split])
    for path in paths:
        with Image.open(path) as picture:
            picture.load()
            assert picture.mode == "RGB"
            assert min(picture.size) >= 300


def test_splits_share_no_photograph():
    assert set(BUILTIN) == {"train", "validation"}
    assert len(BUILTIN["train"]) == 7
    assert len(BUILTIN["validation"]) == 2
    assert not set(BUILTIN["train"]) & set(BUILTIN["validation"])


def test_unknown_split_names_the_two():
    with pytest.raises(ValueError, match=r"'test'.*'train' or 'validation'"):
        builtin_paths("test")


def test_without_scikit_image_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(photographs, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install scikit-image"):
        builtin_paths("train")


def test_a_missing_file_is_named(monkeypatch):
    monkeypatch.setitem(BUILTIN, "validation", ("coffee.png", "absent.png"))
    with pytest.raises(ValueError, match=r"photographs absent\.png are not in .*reinstall"):
        builtin_paths("validation")
