"""Who works on a folder: a lock that goes with its process, however that ends."""

import fcntl
import json
import logging
import os
import platform
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

from moebius.data.copies import is_copy, publish
from moebius.data.origins import local_files
from moebius.distill.run_folder import write_text

logger = logging.getLogger(__name__)

MARK = ".process.json"
ERROR = "error.txt"
"""Why work in a folder failed; the reason is the last line."""
FRESH_S = 3600.0
"""Where a lock cannot be seen, work may go on for this long after its last trace."""
WAIT_S = 60.0
"""How long who comes later waits for who is there: a killed driver's workers end in a second."""
POLL_S = 0.1
TRACES = (".", MARK, "metrics.jsonl", "checkpoints", "shards", "latents", "trials")
"""What work in a folder changes."""


@contextmanager
def occupied(folder: Path) -> Iterator[None]:
    """Marks a folder as worked on; a failure inside leaves its traceback in `error.txt`.

    Who works there already is waited for, and then no longer: a worker that Ray starts again must
    not be refused by one that hangs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / MARK).open("a") as mark:
        with suppress(OSError):  # this storage has no locks
            if not _alone(mark):
                logger.warning("%s is worked on by another process, too", folder)
            fcntl.flock(mark, fcntl.LOCK_SH)
        mark.truncate(0)
        started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        described = {"host": platform.node(), "pid": os.getpid(), "started": started}
        mark.write(json.dumps(described))
        mark.flush()
        try:
            yield
        except Exception:
            write_text(folder / ERROR, traceback.format_exc().rstrip() + "\n")
            with suppress(OSError):  # that its store does not answer may be why
                publish(folder / ERROR)
            raise


def occupation(folder: Path) -> Literal["held", "perhaps", "free"]:
    """Whether a process works on a folder; perhaps, where its lock cannot be seen from here."""
    path = folder / MARK
    if is_copy(folder):  # those who work on it have others
        fresh = path.is_file() and time.time() - last_trace(folder) <= FRESH_S
        return "perhaps" if fresh else "free"
    try:
        with path.open() as mark:
            seen = _host(mark.read()) == platform.node()
            try:
                fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return "held"
            except OSError:  # this storage has no locks
                seen = False
    except FileNotFoundError:
        return "free"
    return "free" if seen or time.time() - last_trace(folder) > FRESH_S else "perhaps"


def last_trace(folder: Path) -> float:
    """When work in a folder last changed something, seconds since the epoch; 0 for never."""
    paths = [folder / name for name in TRACES]
    if is_copy(folder):  # its folders are as old as the copy
        paths = [folder / name for name in local_files(folder, ())]
    return max((path.stat().st_mtime for path in paths if path.exists()), default=0.0)


def _alone(mark: IO[str]) -> bool:
    """Whether everybody else has left a folder, at once or in time."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
        time.sleep(POLL_S)


def _host(text: str) -> str | None:
    try:
        return json.loads(text)["host"]
    except (ValueError, TypeError, KeyError):  # written a moment later, or cut
        return None
