"""Folders and object stores: files whole or not at all, and what is said of the rest."""

import os
import pickle
from pathlib import Path

import pytest

from moebius.data.shards.storage import LocalStorage, open_storage


def test_a_folder_keeps_whole_files_only(tmp_path: Path, monkeypatch):
    storage = open_storage(str(tmp_path / "new" / "set"))
    assert storage.sizes() == {}
    storage.write("a", b"one")
    storage.write("a", b"other")
    assert storage.sizes() == {"a": 5} and storage.read("a") == b"other"

    def fail(*arguments: object) -> None:
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="disk full"):
        patch.setattr(os, "replace", fail)
        storage.write("b", b"two")
    folder = tmp_path / "new" / "set"
    assert [path.name for path in folder.iterdir()] == ["a"]
    (folder / "c.123.part").write_bytes(b"left by a kill")
    assert storage.sizes() == {"a": 5}
    storage.tidy()
    assert [path.name for path in folder.iterdir()] == ["a"]


def test_a_file_url_is_a_folder(tmp_path: Path):
    storage = open_storage(f"file://{tmp_path}")
    assert isinstance(storage, LocalStorage) and storage.folder == tmp_path


def test_an_object_store_is_read_and_written(bucket: str):
    storage = open_storage(bucket.format("some/set"))
    assert storage.sizes() == {}
    storage.write("a", b"one")
    storage.write("a", b"other")
    assert storage.sizes() == {"a": 5} and storage.read("a") == b"other"
    assert pickle.loads(pickle.dumps(storage)).read("a") == b"other"
    with pytest.raises(ValueError, match=r"^b is missing at s3://photos/some/set"):
        storage.read("b")


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ValueError, match=f"^b is missing at {tmp_path}$"):
        open_storage(str(tmp_path)).read("b")


@pytest.mark.parametrize("place", ["s3://key:secret@bucket/set", "gs://secret@bucket/set"])
def test_a_url_with_credentials_is_refused_and_not_repeated(place: str):
    with pytest.raises(ValueError, match="keep credentials out of the URL") as caught:
        open_storage(place)
    assert "secret@" not in str(caught.value) and "key:" not in str(caught.value)


@pytest.mark.parametrize("place", ["ftp://host/set", "s3://", "nothing://"])
def test_a_url_that_leads_nowhere_is_one_line(place: str):
    with pytest.raises(ValueError, match=f"^{place} cannot be reached: ") as caught:
        open_storage(place)
    assert "\n" not in str(caught.value)
