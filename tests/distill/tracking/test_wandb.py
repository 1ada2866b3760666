"""W&B in its offline mode: what it keeps, read back from its own log."""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moebius.distill.run_folder import RunFolder
from moebius.distill.tracking.wandb import WandbTracker
from moebius.recipes import read_recipe

wandb = pytest.importorskip("wandb")


BLOCK, HEADER = 32768, struct.Struct("<IHB")
"""Of LevelDB's log format: checksum, length, and which part of a record it is."""


@pytest.fixture(autouse=True)
def fresh_wandb() -> Iterator[None]:
    """W&B reads the environment once a process."""
    yield
    wandb.teardown()


def records(path: Path) -> list[Any]:
    """What a process logged, from the file that `wandb sync` would send."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, found, part = path.read_bytes(), [], b""
    place = HEADER.size  # W&B's own, of the same size
    while place + HEADER.size <= len(data):
        if BLOCK - place % BLOCK < HEADER.size:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = HEADER.unpack_from(data, place)
        part += data[place + HEADER.size : place + HEADER.size + length]
        place += HEADER.size + length
        if kind in (1, 4):  # whole, or the last part
            found.append(Record.FromString(part))
            part = b""
    return found


def test_a_run_that_resumes_is_one_run_without_secrets(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_API_KEY", "hidden1" * 7)
    monkeypatch.setenv("HF_TOKEN", "hidden2")
    monkeypatch.setattr("sys.argv", ["train", "data.source=s3://key:hidden3@bucket"])
    recipe = read_recipe(tiny_recipe, {"data.source": "s3://key:hidden4@bucket/photos"})
    for step, finished in ((2, False), (4, True)):
        tracker = WandbTracker(recipe, RunFolder(tmp_path))
        tracker.log({"step": step, "loss/task": 1 / step})
        tracker.close(finished)
    wandb.teardown()  # waits for what is still to be written
    logs = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"), key=lambda p: p.stat().st_mtime_ns)
    assert len(logs) == 2
    logged = [record for log in logs for record in records(log)]
    runs = [r.run for r in logged if r.HasField("run")]
    assert len({run.run_id for run in runs}) == 1 and runs[0].project == "moebius"
    config = {item.key: item.value_json for item in runs[0].config.update}
    assert '"s3://***@bucket/photos"' in config["data"]
    rows = [
        {(item.key or "/".join(item.nested_key)): item.value_json for item in r.history.item}
        for r in logged
        if r.HasField("history")
    ]
    assert [(row["step"], row["loss/task"]) for row in rows] == [("2", "0.5"), ("4", "0.25")]
    exits = [r.exit.exit_code for r in logged if r.HasField("exit")]
    assert exits == [1, 0]
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"hidden" not in path.read_bytes(), path


def test_without_a_login_it_is_refused_in_one_line(tiny_recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_API_KEY", "short")
    with pytest.raises(ValueError, match=r"^trackers: wandb: .+") as refused:
        WandbTracker(read_recipe(tiny_recipe), RunFolder(tmp_path))
    assert "\n" not in str(refused.value) and not (tmp_path / "trackers.json").exists()
