"""What the doors share: exit codes, and the progress of runs read from their folders."""

import io
import logging
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from moebius import console
from moebius.config import Recipe, parse
from moebius.console import Tracked, guard, print_table, show_progress
from moebius.distill.run_folder import RunFolder

RECIPE = parse(Recipe, {"training": {"steps": 20, "global_batch": 4}}, "recipe")


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = RunFolder(tmp_path / "run")
    folder.prepare(RECIPE)
    return folder


def step(n: int, **more: float) -> dict[str, float]:
    return {"step": n, "loss/total": 9.0, "samples_per_second": 12.34, **more}


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("no such recipe"), 2, "error: no such recipe\n"),
        (RuntimeError("no trial finished"), 1, "failed: no trial finished\n"),
        (OSError(28, "No space left on device"), 1, "failed: [Errno 28] No space left on device\n"),
        (FloatingPointError("step 3: nan"), 1, "failed: step 3: nan\n"),
        (OSError(28, "disk full", "out/x"), 1, "failed: [Errno 28] disk full: 'out/x'\n"),
        (KeyboardInterrupt(), 130, "stopped; the same command goes on from the last checkpoint\n"),
    ],
)
def test_failures_are_one_line_and_a_code(error: BaseException, code: int, line: str, capsys):
    def door() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        guard(door)
    assert caught.value.code == code
    assert capsys.readouterr() == ("", line)


def test_a_reader_that_leaves_is_no_failure() -> None:
    """As `python -m moebius.runs list | head` ends."""
    program = (
        "from moebius.console import guard\nguard(lambda: [print(n) for n in range(100_000)])\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 141


def test_a_broken_pipe_elsewhere_is_one(capsys) -> None:
    def door() -> None:
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(SystemExit) as caught:
        guard(door)
    assert caught.value.code == 1
    assert capsys.readouterr() == ("", "failed: [Errno 32] Broken pipe\n")


def test_success_is_silent_and_mistakes_of_ours_are_not_hidden(capsys):
    guard(lambda: None)
    assert capsys.readouterr() == ("", "")
    with pytest.raises(KeyError):
        guard(lambda: {}["bug"])


def test_a_run_shows_its_newest_metrics(run: RunFolder):
    tracked = Tracked("student", run.path, 20)
    assert tracked.latest() is None
    run.log(step(5))
    assert tracked.latest() == (5, "12.3 samples/s", "loss 9.0000")
    run.log(step(10, **{"loss/task": 0.25}))
    assert tracked.latest() == (10, "12.3 samples/s", "loss 0.2500")


def test_a_run_is_finished_at_its_last_step_only(run: RunFolder):
    assert not Tracked("student", run.path, 20).finished
    run.write_result({"step": 20})
    assert Tracked("student", run.path, 20).finished
    assert not Tracked("student", run.path, 30).finished


def follow(run: RunFolder, terminal: bool, monkeypatch: pytest.MonkeyPatch) -> str:
    out = io.StringIO()
    shown = Console(file=out, force_terminal=terminal, width=120)
    monkeypatch.setattr(console, "Console", lambda **options: shown)
    runs = [Tracked("student", run.path, 20), Tracked("waiting run", run.path / "none", 20)]
    before = threading.active_count()
    with show_progress(runs):
        run.log(step(10))
    assert threading.active_count() == before
    return out.getvalue()


def test_a_terminal_shows_bars(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    text = follow(run, True, monkeypatch)
    assert "student" in text and "10/20" in text and "12.3 samples/s" in text
    assert "waiting run" in text and "loss 9.0000" in text


def test_a_log_shows_a_line_of_what_is_new(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    text = follow(run, False, monkeypatch)
    assert text == "student: 10/20 12.3 samples/s loss 9.0000\n"


def test_lines_come_now_and_then_and_not_twice(run: RunFolder, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "INTERVAL_S", 0.01)
    monkeypatch.setattr(console, "LINE_EVERY_S", 0.02)
    run.log(step(5))
    out, stop = io.StringIO(), threading.Event()
    runs = [Tracked("student", run.path, 20)]
    thread = threading.Thread(
        target=console._lines, args=(runs, Console(file=out, width=120), stop)
    )
    thread.start()
    stop.wait(0.3)
    stop.set()
    thread.join()
    assert out.getvalue().count("5/20") == 1


def test_progress_ends_with_a_failing_run(run: RunFolder):
    before = threading.active_count()
    with pytest.raises(RuntimeError), show_progress([Tracked("student", run.path, 20)]):
        raise RuntimeError("the run failed")
    assert threading.active_count() == before


def test_the_hubs_retries_are_not_told(capfd) -> None:
    def door() -> None:
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 8s [Retry 4/5].")
        raise ValueError("no model at a/b")

    with pytest.raises(SystemExit):
        guard(door)
    assert capfd.readouterr().err == "error: no model at a/b\n"
    assert not logging.getLogger("huggingface_hub").isEnabledFor(logging.WARNING)


def test_a_name_with_a_line_end_stays_in_the_one_line(capsys) -> None:
    def door() -> None:
        raise ValueError("no data at a\nb: give a folder")

    with pytest.raises(SystemExit):
        guard(door)
    assert capsys.readouterr().err == "error: no data at a b: give a folder\n"


def test_a_pipe_gets_cells_whole_and_a_terminal_folds_them(monkeypatch, capsys) -> None:
    reason = "checkpoint " + "/".join(["a folder"] * 40)
    table = Table("Exp.", "Status")
    table.add_row("plain promoted", reason)
    print_table(table)
    assert f"plain promoted │ {reason} │" in capsys.readouterr().out
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("COLUMNS", "60")
    print_table(table)
    folded = capsys.readouterr().out
    assert "plain promoted" in folded and max(map(len, folded.splitlines())) <= 80
