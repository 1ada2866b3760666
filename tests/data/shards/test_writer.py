"""Encoding: shards hold the stream's draws, and what is missing is made, no more."""

from pathlib import Path

import pytest
import torch
from made_latents import make_codec, make_set
from safetensors.torch import load_file

from moebius.data.latents import encode_pixels
from moebius.data.shards import writer
from moebius.data.shards.index import describe_encoding
from moebius.data.shards.storage import open_storage
from moebius.data.shards.writer import STORED, ShardWriter, claim, draw_bytes, finish


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_shard_holds_the_streams_draws_in_bf16(latents: Path, samples, codec):
    """Draw 13 is of the second epoch: the photograph again, with another crop and hole."""
    for n in (0, 13, 29):
        number, row = divmod(n, 4)
        (path,) = latents.glob(f"{number:06d}-*")
        stored = load_file(path)
        assert {key: t.dtype for key, t in stored.items()} == STORED
        sample = samples[n]
        expected = encode_pixels(codec, sample["image"][None], sample["mask"][None], torch.ones(1))
        for key in ("clean", "masked"):
            error = (stored[key][row].float() - expected[key][0]).abs()  # type: ignore[literal-required]
            assert (error <= 2**-8 * expected[key][0].abs() + 1e-5).all()  # type: ignore[literal-required]
        assert torch.equal(stored["mask"][row].float(), expected["mask"][0])
        assert stored["category"][row] == sample["category"]


def test_the_size_of_a_draw_is_known_before(latents: Path, codec):
    (path,) = latents.glob("000000-*")
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    assert path.stat().st_size == header + 4 * draw_bytes(codec, 32)


@pytest.mark.parametrize("lost", [[0], [2, 5, 7]])
def test_what_is_missing_is_made_again_and_nothing_else(latents: Path, samples, codec, lost):
    before = contents(latents)
    (latents / "index.json").unlink()
    for number in lost:
        next(latents.glob(f"{number:06d}-*")).unlink()
    (latents / "000002-half.safetensors.part").write_bytes(b"left by a kill")
    encoding = describe_encoding(samples, codec, "photographs", 3, 4)
    assert claim(open_storage(str(latents)), encoding) == lost
    times = {path: path.stat().st_mtime_ns for path in latents.glob("*-*.safetensors")}
    make_set(str(latents), samples, codec, 3, 4)
    assert contents(latents) == before
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_a_failure_leaves_only_whole_shards(samples, codec, tmp_path: Path, monkeypatch):
    calls = []

    def fail(*arguments: object):
        calls.append(1)
        if len(calls) > 2:
            raise RuntimeError("out of memory")
        return encode_pixels(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        patch.setattr(writer, "encode_pixels", fail)
        make_set(str(tmp_path / "set"), samples, codec, 3, 8)
    storage = open_storage(str(tmp_path / "set"))
    assert claim(storage, describe_encoding(samples, codec, "photographs", 3, 8)) == [2, 3]


def test_other_settings_or_files_are_refused(latents: Path, samples, codec, tmp_path: Path):
    before = contents(latents)
    for args, named in (
        ((samples, codec, 4, 4), "masks, draws"),
        ((samples, codec, 3, 5), "shard_draws"),
        ((samples, make_codec(1), 3, 4), "codec_sha256"),
    ):
        with pytest.raises(ValueError, match=rf"encoded with other settings \({named}\)"):
            make_set(str(latents), *args)
    assert contents(latents) == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "diary.txt").write_text("dear")
    with pytest.raises(ValueError, match="holds other files: choose an empty --out"):
        make_set(str(tmp_path / "mine"), samples, codec, 3, 4)


def test_looking_writes_nothing(samples, codec, tmp_path: Path):
    storage = open_storage(str(tmp_path / "set"))
    encoding = describe_encoding(samples, codec, "photographs", 1, 4)
    assert claim(storage, encoding, dry_run=True) == [0, 1, 2]
    assert not (tmp_path / "set").exists()


def test_of_two_versions_of_a_shard_one_is_taken(latents: Path, samples, codec):
    """Two GPUs may round otherwise, and two jobs may make the same shard."""
    twin = "000001-" + 64 * "f" + ".safetensors"
    (latents / twin).write_bytes(b"another")
    encoding = describe_encoding(samples, codec, "photographs", 3, 4)
    storage = open_storage(str(latents))
    assert claim(storage, encoding) == []
    names = [shard.name for shard in finish(storage, encoding).shards]
    assert len(names) == 8 and twin not in names


def test_loader_processes_change_nothing(latents: Path, samples, codec, tmp_path: Path):
    storage = open_storage(str(tmp_path / "set"))
    encoding = describe_encoding(samples, codec, "photographs", 3, 4)
    ShardWriter(samples, codec, storage, encoding, loaders=1)(2)
    (made,) = (tmp_path / "set").iterdir()
    assert made.read_bytes() == (latents / made.name).read_bytes()
