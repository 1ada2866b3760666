import hashlib
import pickle
from pathlib import Path
from urllib.error import URLError

import pytest
import torch

from moebius.evaluation.weights import (
    PUBLISHED_FILES,
    PublishedFile,
    WeightsFile,
    find_weights,
    read_weights,
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoints of torch.hub, empty, without a network."""

    def refuse(address: str, path: str, prefix: str) -> None:
        raise URLError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


@pytest.mark.parametrize("key", PUBLISHED_FILES)
def test_a_missing_file_is_named_with_its_address_and_the_option(key: str, cache: Path):
    with pytest.raises(ValueError) as error:
        find_weights(key, cache.parent)
    message = str(error.value)
    file = PUBLISHED_FILES[key]
    assert file.name in message and file.address in message and "--weights" in message
    assert "\n" not in message


def test_published_names_end_in_their_checksums():
    prefixes = {key: file.prefix for key, file in PUBLISHED_FILES.items()}
    assert prefixes == {"inception": "6726825d", "alexnet": "7be5be79", "vgg16": "397923af"}


def test_the_named_folder_comes_before_the_cache(tmp_path: Path, cache: Path):
    name = PUBLISHED_FILES["alexnet"].name
    (cache / name).write_bytes(b"cached")
    assert find_weights("alexnet").path == cache / name
    assert find_weights("alexnet", tmp_path).path == cache / name
    (tmp_path / name).write_bytes(b"named")
    assert find_weights("alexnet", tmp_path).path == tmp_path / name


def test_what_others_call_a_file_is_found_as_well(cache: Path):
    (cache / "weights-inception-2015-12-05-6726825d.pth").write_bytes(b"")
    assert find_weights("inception").path.parent == cache


def test_a_missing_file_is_fetched_into_the_cache(cache: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def fetch(address: str, path: str, prefix: str) -> None:
        asked.append((address, prefix))
        Path(path).write_bytes(b"fetched")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    file = PUBLISHED_FILES["vgg16"]
    assert find_weights("vgg16").path == find_weights("vgg16").path == cache / file.name
    assert asked == [(file.address, "397923af")]


def test_a_folder_that_is_none_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        find_weights("alexnet", tmp_path / "nowhere")


def test_a_checksum_that_is_not_the_published_one_is_noted(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    sha256 = hashlib.sha256(b"real").hexdigest()
    file = PublishedFile(f"net-{sha256[:8]}.pth", "https://example.org")
    monkeypatch.setitem(PUBLISHED_FILES, "alexnet", file)
    (tmp_path / file.name).write_bytes(b"real")
    assert find_weights("alexnet", tmp_path) == WeightsFile(tmp_path / file.name, sha256, False)
    assert find_weights("alexnet", tmp_path).note is None
    (tmp_path / file.name).write_bytes(b"altered")
    found = find_weights("alexnet", tmp_path)
    sha256 = hashlib.sha256(b"altered").hexdigest()
    assert found.made_up and found.note == f"made-up or altered weights (sha256 {sha256})"


class Harmful:
    def __reduce__(self):
        return Path.touch, (Path("harm"),)


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404</html>", pickle.dumps(Harmful(), 2), pickle.dumps([1, 2], 2)],
    ids=["empty", "a page", "code", "a list"],
)
def test_only_tensors_are_read(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "net.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="checkpoint .*net.pth .*; fetch it anew"):
        read_weights(WeightsFile(path, "", True))
    torch.save({"a": Harmful()}, path)
    with pytest.raises(ValueError, match="checkpoint .*net.pth .*; fetch it anew"):
        read_weights(WeightsFile(path, "", True))
    assert not (tmp_path / "harm").exists()
