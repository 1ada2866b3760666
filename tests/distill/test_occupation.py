"""Who works on a folder: seen from other processes, and gone with its own."""

import json
import multiprocessing
import os
import platform
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from moebius.distill import occupation as module
from moebius.distill.occupation import MARK, occupation, occupied

FORK = multiprocessing.get_context("fork")


def hold(folder: Path, held: Any) -> None:
    with occupied(folder):
        held.set()
        time.sleep(600)


def test_a_killed_process_leaves_nothing_held(tmp_path: Path):
    assert occupation(tmp_path) == "free"
    held = FORK.Event()
    holder = FORK.Process(target=hold, args=(tmp_path, held), daemon=True)
    holder.start()
    assert held.wait(timeout=200)
    assert occupation(tmp_path) == "held"
    mark = json.loads((tmp_path / MARK).read_text())
    assert (mark["host"], mark["pid"]) == (platform.node(), holder.pid)
    holder.kill()
    holder.join()
    assert occupation(tmp_path) == "free"


def test_who_comes_next_waits_until_a_killed_one_is_gone(tmp_path: Path, caplog):
    held, killed = FORK.Event(), threading.Event()
    holder = FORK.Process(target=hold, args=(tmp_path, held), daemon=True)
    holder.start()
    assert held.wait(timeout=200)

    def kill() -> None:
        killed.set()
        holder.kill()

    threading.Timer(1, kill).start()
    with occupied(tmp_path):
        assert killed.is_set()
        assert json.loads((tmp_path / MARK).read_text())["pid"] == os.getpid()
    assert not caplog.records


def test_who_hangs_keeps_nobody_out_and_the_last_ends_it(tmp_path: Path, monkeypatch, caplog):
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    with occupied(tmp_path):
        with occupied(tmp_path):
            assert occupation(tmp_path) == "held"
            assert f"{tmp_path} is worked on by another process, too" in caplog.text
        assert occupation(tmp_path) == "held"
    assert occupation(tmp_path) == "free"


def test_a_failure_leaves_its_traceback_and_an_interruption_none(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt), occupied(tmp_path):
        raise KeyboardInterrupt
    assert not (tmp_path / "error.txt").exists()
    with pytest.raises(ValueError), occupied(tmp_path):
        raise ValueError("no data")
    assert (tmp_path / "error.txt").read_text().endswith("ValueError: no data\n")


@pytest.mark.parametrize("text", ['{"host": "elsewhere"}', "", "[]"])
def test_what_another_machine_left_counts_while_it_is_fresh(tmp_path: Path, text: str):
    (tmp_path / MARK).write_text(text)
    assert occupation(tmp_path) == "perhaps"
    for path in (tmp_path / MARK, tmp_path):
        os.utime(path, (1, 1))
    assert occupation(tmp_path) == "free"


def test_storage_without_locks_is_no_reason_to_stop(tmp_path: Path, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise OSError("no locks here")

    monkeypatch.setattr(module.fcntl, "flock", refuse)
    with occupied(tmp_path):
        assert occupation(tmp_path) == "perhaps"
