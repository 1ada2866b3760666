"""Checkpoints: whole or refused, whatever happened to their files."""

import json
import logging
import shutil
from errno import ENOSPC
from pathlib import Path

import pytest

from moebius.distill.checkpoints import (
    MANIFEST,
    NotSaved,
    checkpoint_name,
    checkpoint_step,
    find_damage,
    newest_checkpoint,
    write_checkpoint,
)

WEIGHTS = bytes(range(256)) * 4


def write(root: Path, step: int, keep: int = 3, weights: bytes = WEIGHTS) -> Path:
    writers = {
        "weights.bin": lambda path: path.write_bytes(weights),
        "state.json": lambda path: path.write_text(json.dumps({"step": step})),
    }
    return write_checkpoint(root, step, writers, keep)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two checkpoints, of which tests damage the second."""
    write(tmp_path, 10)
    write(tmp_path, 20)
    return tmp_path


def assert_refused(root: Path, caplog: pytest.LogCaptureFixture, reason: str) -> None:
    with caplog.at_level(logging.WARNING):
        assert newest_checkpoint(root) == root / "step_000010"
    assert "step_000020 is refused" in caplog.text and reason in caplog.text


def test_the_newest_is_taken(root: Path):
    assert newest_checkpoint(root) == root / "step_000020"
    assert checkpoint_step(root / "step_000020") == 20 and checkpoint_name(20) == "step_000020"
    assert find_damage(root / "step_000020") is None
    write(root, 1_000_000)  # by number, not by the name's order
    assert newest_checkpoint(root) == root / "step_1000000"


def test_there_may_be_none(tmp_path: Path):
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize("name", ["weights.bin", "state.json", MANIFEST])
@pytest.mark.parametrize("tenth", range(10))
def test_a_file_cut_anywhere_is_refused(root: Path, caplog, name: str, tenth: int):
    path = root / "step_000020" / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * tenth // 10])
    assert_refused(root, caplog, name)


@pytest.mark.parametrize("place", [0, 511, 1023])
def test_a_flipped_bit_is_refused(root: Path, caplog, place: int):
    path = root / "step_000020" / "weights.bin"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    assert_refused(root, caplog, "weights.bin does not match its checksum")


@pytest.mark.parametrize("name", ["weights.bin", MANIFEST])
def test_a_missing_file_is_refused(root: Path, caplog, name: str):
    (root / "step_000020" / name).unlink()
    assert_refused(root, caplog, name)


@pytest.mark.parametrize(
    "manifest",
    ["", "[]", "null", "{}", '{"step": 20}', '{"step": 20, "sha256": 3}', "\xff"],
)
def test_a_bad_manifest_is_refused(root: Path, caplog, manifest: str):
    (root / "step_000020" / MANIFEST).write_text(manifest, encoding="latin-1")
    assert_refused(root, caplog, f"{MANIFEST} is unreadable")


def test_a_checkpoint_under_another_name_is_refused(root: Path, caplog):
    shutil.rmtree(root / "step_000020")
    shutil.copytree(root / "step_000010", root / "step_000020")
    assert_refused(root, caplog, f"{MANIFEST} is of step 10")


def test_only_the_newest_are_kept(tmp_path: Path):
    for step in (1, 2, 3, 4):
        write(tmp_path, step, keep=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step_000003", "step_000004"]


def test_a_damaged_newer_one_does_not_push_out_the_new(root: Path):
    # A run resumed from step 10 because 20 was damaged, and writes step 15.
    (root / "step_000020" / "weights.bin").write_bytes(b"")
    write(root, 15, keep=1)
    assert newest_checkpoint(root) == root / "step_000015"
    write(root, 20, keep=1)
    assert newest_checkpoint(root) == root / "step_000020"
    assert find_damage(root / "step_000020") is None


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (OSError(ENOSPC, "No space left"), NotSaved, "No space left"),
        (KeyboardInterrupt(), KeyboardInterrupt, None),
    ],
)
def test_a_writer_that_fails_leaves_the_old(root: Path, error, raised, said: str | None):
    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise error

    for step in (20, 30):
        with pytest.raises(raised, match=said):
            write_checkpoint(root, step, {"weights.bin": fail}, keep=1)
        assert newest_checkpoint(root) == root / "step_000020"
        assert (root / "step_000020" / "weights.bin").read_bytes() == WEIGHTS
    assert sorted(path.name for path in root.iterdir()) == ["step_000010", "step_000020"]


def test_what_a_killed_writer_left_is_neither_taken_nor_in_the_way(root: Path):
    left = root / ".step_000030.partial"
    left.mkdir()
    (left / "weights.bin").write_bytes(b"half")
    (root / "step_000040x").mkdir()
    assert newest_checkpoint(root) == root / "step_000020"
    write(root, 30, weights=b"new")
    assert (root / "step_000030" / "weights.bin").read_bytes() == b"new"
    assert not left.exists()
