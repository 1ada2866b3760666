"""Sources of pictures: what they give, and one clear line for what they cannot."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moebius.data.manifest import Record, parse_line, read_records


def write_lines(folder: Path, *lines: str) -> Path:
    path = folder / "set.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_builtin_sources():
    train, validation = read_records("builtin"), read_records("builtin:validation")
    assert train == read_records("builtin:train")
    assert all(record.image.is_file() and record.mask is None for record in train + validation)
    assert {r.category for r in train + validation} == {"background"}
    assert not {r.name for r in train} & {r.name for r in validation}
    with pytest.raises(ValueError, match="nothing"):
        read_records("builtin:nothing")


def test_manifest_records(tmp_path: Path):
    path = write_lines(
        tmp_path,
        '\ufeff{"image": "a.png", "category": "background", "mask": null}',
        "",
        '{"image": "sub/../b.png", "mask": "/masks/b.png", "prompt": "foreground"}',
    )
    assert read_records(path) == [
        Record(tmp_path / "a.png", None, "background", "a.png"),
        Record(tmp_path / "b.png", Path("/masks/b.png"), "foreground", "sub/../b.png"),
    ]


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ("{", "write one object a line"),
        ("[" * 100_000, "write one object a line"),
        ("[]", "not a JSON object"),
        ('{"category": "background"}', '"image" is missing'),
        ('{"image": "a.png"}', 'give one "category"'),
        ('{"image": "a.png", "category": null}', 'use "background" or'),
        ('{"image": "a.png", "category": ["background"]}', 'use "background" or'),
        ('{"image": "a.png", "prompt": "a cat"}', "\"prompt\" is 'a cat'"),
        ('{"image": "a.png", "category": "background", "prompt": "background"}', "give one"),
        ('{"image": "a.png", "category": "background", "masks": "m"}', "unknown key 'masks'"),
        ('{"image": "a.png", "category": "foreground"}', 'needs a "mask"'),
        ('{"image": 3, "category": "background"}', '"image" is 3'),
        ('{"image": "a.png", "mask": " ", "category": "background"}', "\"mask\" is ' '"),
        ('{"image": "a\\u0000.png", "category": "background"}', "give a path"),
        ('{"image": "x/../../a.png", "category": "background"}', "leaves the manifest's folder"),
        ('{"image": "a", "mask": "..", "category": "background"}', "leaves the manifest's folder"),
    ],
)
def test_bad_lines_are_named(tmp_path: Path, line: str, remedy: str):
    path = write_lines(tmp_path, '{"image": "a.png", "category": "background"}', line)
    with pytest.raises(ValueError) as caught:
        read_records(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert remedy in str(caught.value)


def test_bytes_that_are_no_text_are_named(tmp_path: Path):
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"set\.jsonl:1: .*UTF-8"):
        read_records(path)


def test_folder_is_searched_and_sorted(tmp_path: Path):
    (tmp_path / "sub").mkdir()
    for name in ("b.JPG", "sub/a.png", "a.webp", ".a.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [record.name for record in read_records(tmp_path)] == ["a.webp", "b.JPG", "sub/a.png"]


def test_sources_without_pictures(tmp_path: Path):
    with pytest.raises(ValueError, match="no images in folder"):
        read_records(tmp_path)
    with pytest.raises(ValueError, match="is empty"):
        read_records(write_lines(tmp_path, " ", ""))
    with pytest.raises(ValueError, match=r"no data at .*absent"):
        read_records(tmp_path / "absent")
    (tmp_path / "set.csv").touch()
    with pytest.raises(ValueError, match=r"set\.csv' is not a manifest"):
        read_records(tmp_path / "set.csv")


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["background", "foreground", "a.png", "../a.png", "/a.png", "."]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=4,
)
ITEMS = st.dictionaries(
    st.sampled_from(["image", "mask", "category", "prompt"]) | st.text(max_size=3), VALUES
)


@settings(max_examples=250, deadline=None)
@given(st.text() | VALUES.map(json.dumps) | ITEMS.map(json.dumps))
def test_any_line_is_a_record_or_one_error(text: str):
    folder = Path("/data")
    try:
        record = parse_line(text, folder)
    except ValueError as error:
        assert len(str(error).splitlines()) == 1
        return
    assert record.category in ("background", "foreground")
    item = json.loads(text)
    assert record.name == item["image"]
    assert item["image"].startswith("/") or record.image.is_relative_to(folder)


@settings(max_examples=100, deadline=None)
@given(content=st.binary(max_size=200))
def test_any_file_is_records_or_one_error(content: bytes, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    path.write_bytes(content)
    try:
        assert read_records(path)
    except ValueError as error:
        assert str(path) in str(error)
