"""Ends a trial that makes no progress, from inside its process: nothing else reaches what hangs."""

import faulthandler
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from moebius.data.copies import glance, publish
from moebius.distill.occupation import ERROR
from moebius.distill.run_folder import RunFolder

TELL_S = 30.0
"""Seconds that an object store has to take why a trial was ended."""


@contextmanager
def ends_when_stalled(folder: Path, limit: float | None, elsewhere: bool = False) -> Iterator[None]:
    """Kills this process once its run has logged nothing for so long, and leaves why.

    A process that hangs is not asked to stop: it may wait in a system call, and would write into
    the run's folder beside its successor.

    Args:
        folder: the run's; its `metrics.jsonl` is what is watched.
        limit: seconds; `None` is for ever.
        elsewhere: other processes log, and this one has a copy of its own, if it is one.
    """
    if limit is None:
        yield
        return
    done = threading.Event()
    watch = threading.Thread(target=_watch, args=(folder, limit, done, elsewhere), daemon=True)
    watch.start()
    try:
        yield
    finally:
        done.set()


def _watch(folder: Path, limit: float, done: threading.Event, elsewhere: bool) -> None:
    run, stopped = RunFolder(folder), folder / "stopped.json"
    seen, since = _signature(run.metrics), time.monotonic()
    while not done.wait(min(limit / 10, 5.0)):
        if stopped.is_file():  # a scheduler's answer keeps it waiting
            return
        glance(run.metrics if elsewhere else stopped)
        now = _signature(run.metrics)
        if now != seen:
            seen, since = now, time.monotonic()
        elif time.monotonic() - since > limit:
            lines = run.read_metrics()
            last = f"step {lines[-1]['step']}" if lines else "none"
            _leave(folder, f"no progress in {limit:g} s (stall_s); last step logged: {last}")


def _leave(folder: Path, reason: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ERROR).open("w") as file:
        faulthandler.dump_traceback(file)  # where every thread hangs
        file.write(f"{reason}\n")
    # Aside: its store may be what hangs.
    told = threading.Thread(target=publish, args=(folder / ERROR,), daemon=True)
    told.start()
    told.join(TELL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _signature(path: Path) -> tuple[int, int] | None:
    """Changes whenever a line is added, whatever the clocks of storage and machine say."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size
