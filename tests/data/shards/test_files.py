"""Shards on this machine's disk: damage is refused by name, copies keep to their budget."""

import os
from pathlib import Path

import pytest
import torch
from made_latents import make_set

from moebius.data.shards.files import ShardFiles
from moebius.data.shards.index import Index, read_index
from moebius.data.shards.storage import open_storage


@pytest.fixture
def remote(samples, codec, bucket: str, request) -> tuple[str, Index]:
    place = bucket.format(request.node.name.partition("[")[0])
    return place, make_set(place, samples, codec, 3, 4)


def local(latents: Path, tmp_path: Path) -> tuple[ShardFiles, Index]:
    storage = open_storage(str(latents))
    return ShardFiles(storage, tmp_path / "copies", 1e9), read_index(storage)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    cut = {
        "truncated": data[:-1],
        "half": data[: len(data) // 2],
        "empty": b"",
        "flipped": data[:-5] + bytes([data[-5] ^ 1]) + data[-4:],
        "header": b"\xff" * 8 + data[8:],
    }
    path.write_bytes(cut[how])


@pytest.mark.parametrize("how", ["truncated", "half", "empty", "flipped", "header"])
def test_a_damaged_shard_is_refused_by_name(latents: Path, tmp_path: Path, how: str):
    files, index = local(latents, tmp_path)
    damage(latents / index.shards[2].name, how)
    files.load(index.shards[1])
    said = f"^shard {index.shards[2].name} at {latents} does not match its checksum: delete it"
    with pytest.raises(ValueError, match=said) as caught:
        files.load(index.shards[2])
    assert "\n" not in str(caught.value)


def test_a_missing_shard_is_named(latents: Path, tmp_path: Path):
    files, index = local(latents, tmp_path)
    (latents / index.shards[2].name).unlink()
    said = f"^shard {index.shards[2].name} is missing at {latents}$"
    with pytest.raises(ValueError, match=said):
        files.load(index.shards[2])


def test_a_local_shard_is_mapped_where_it_lies(latents: Path, tmp_path: Path):
    files, index = local(latents, tmp_path)
    tensors = files.load(index.shards[0])
    assert tensors["clean"].shape == (4, 2, 4, 4, 4)
    maps = Path("/proc/self/maps").read_text()
    assert index.shards[0].name in maps
    files.fetch(index.shards[1])
    assert not (tmp_path / "copies").exists()


def test_copies_keep_to_their_budget(remote, tmp_path: Path):
    place, index = remote
    size = max(shard.bytes for shard in index.shards)
    files = ShardFiles(open_storage(place), tmp_path / "copies", 3 * size)
    mapped = [files.load(shard) for shard in index.shards]
    kept = sorted(path.name for path in (tmp_path / "copies").glob("*.safetensors"))
    assert kept == [shard.name for shard in index.shards[-3:]]
    # What was dropped is still there for who has it mapped, and is fetched again for others.
    again = files.load(index.shards[0])
    assert torch.equal(again["clean"], mapped[0]["clean"])


def test_a_copy_is_fetched_once_and_a_damaged_one_again(remote, tmp_path: Path):
    place, index = remote
    shard, copy = index.shards[0], tmp_path / "copies" / index.shards[0].name
    ShardFiles(open_storage(place), tmp_path / "copies", 1e9).load(shard)
    number = copy.stat().st_ino
    ShardFiles(open_storage(place), tmp_path / "copies", 1e9).load(shard)
    assert copy.stat().st_ino == number
    whole = copy.read_bytes()
    damage(copy, "flipped")
    ShardFiles(open_storage(place), tmp_path / "copies", 1e9).load(shard)
    assert copy.read_bytes() == whole


def test_a_damaged_or_missing_object_is_named(remote, tmp_path: Path):
    place, index = remote
    storage = open_storage(place)
    files = ShardFiles(storage, tmp_path / "copies", 1e9)
    storage.write(index.shards[0].name, b"cut")
    with pytest.raises(ValueError, match=f"^shard {index.shards[0].name} at s3://.* its checksum"):
        files.load(index.shards[0])
    assert os.listdir(tmp_path / "copies") == ["lock0"]
    storage._files.delete_file(f"{storage._root}/{index.shards[1].name}")
    with pytest.raises(ValueError, match=f"^{index.shards[1].name} is missing at s3://"):
        files.load(index.shards[1])


def test_a_budget_that_holds_too_little_is_refused(remote, latents: Path, tmp_path: Path):
    place, index = remote
    size = max(shard.bytes for shard in index.shards)
    ShardFiles(open_storage(place), tmp_path, 12 * size).check_budget(size)
    with pytest.raises(ValueError, match=r"data.latents_cache is .* GB: reading s3://.* takes"):
        ShardFiles(open_storage(place), tmp_path, 12 * size - 1).check_budget(size)
    ShardFiles(open_storage(str(latents)), tmp_path, 1).check_budget(size)
