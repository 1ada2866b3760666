"""What the doors share on a terminal: one-line errors, quiet logs, a progress bar over a run."""

import logging
import os
import select
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub.utils.logging import set_verbosity_error
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from moebius.config.secrets import hide_secrets
from moebius.data.copies import glance
from moebius.distill.run_folder import RunFolder

INTERVAL_S = 0.5
LINE_EVERY_S = 15.0
WIDEST_COLUMNS = 10_000

Begin = Callable[[str, int], Callable[[int], None]]
"""Told what begins and how many things it has; what it returns is told how many are done."""


def guard(main: Callable[[], None]) -> None:
    """Runs a door: bad input is one line and exit code 2, a failed run one line and 1."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Discreet("%(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    set_verbosity_error()  # it tells every retry, and the error at the end says why
    try:
        main()
    except ValueError as error:
        sys.exit(_say(f"error: {error}", 2))
    except BrokenPipeError as error:
        if not _unread():
            sys.exit(_say(f"failed: {error}", 1))
        os._exit(141)  # as of a program that SIGPIPE ends; nobody reads the rest
    except (RuntimeError, FloatingPointError, OSError) as error:
        sys.exit(_say(f"failed: {error}", 1))
    except KeyboardInterrupt:
        sys.exit(_say("stopped; the same command goes on from the last checkpoint", 130))


def print_table(table: Table) -> None:
    """Prints a table: folded into a terminal, and in a pipe as wide as its widest cells need."""
    terminal = Console()
    if terminal.is_terminal:
        terminal.print(table)
        return
    wide = Console(width=WIDEST_COLUMNS)  # what reads a pipe finds a cell's whole text on one line
    Console(width=wide.measure(table).maximum).print(table)


def _unread() -> bool:
    """Whether who read this process's output has left: `... | head`."""
    pipe = select.poll()
    pipe.register(1, 0)
    return any(event & select.POLLERR for _, event in pipe.poll(0))


def _say(text: str, code: int) -> int:
    print(" ".join(hide_secrets(text).split()), file=sys.stderr)  # names may hold line ends
    return code


class _Discreet(logging.Formatter):
    """Leaves secrets out, whichever library says them."""

    def format(self, record: logging.LogRecord) -> str:
        return hide_secrets(super().format(record))


@dataclass(frozen=True)
class Tracked:
    """A run to follow."""

    title: str
    folder: Path
    steps: int

    @property
    def finished(self) -> bool:
        """Whether it has a stored result."""
        return RunFolder(self.folder).read_result(self.steps) is not None

    def latest(self) -> tuple[int, str, str] | None:
        """Step, rate and loss of its newest metrics; `None` before the first."""
        run = RunFolder(self.folder)
        glance(run.metrics)
        lines = run.read_metrics()
        if not lines:
            return None
        newest = lines[-1]
        loss = newest.get("loss/task", newest["loss/total"])
        rate = f"{newest['samples_per_second']:.1f} samples/s"
        return int(newest["step"]), rate, f"loss {loss:.4f}"


@contextmanager
def show_progress(runs: Sequence[Tracked]) -> Iterator[None]:
    """Follows the `metrics.jsonl` of runs: a bar each on a terminal, else a line now and then."""
    stop, console = threading.Event(), Console(stderr=True)
    follow = _bars if console.is_terminal else _lines
    thread = threading.Thread(target=follow, args=(runs, console, stop), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=5)


def _bars(runs: Sequence[Tracked], console: Console, stop: threading.Event) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
    )
    # From this thread, rich must not swap sys.stdout: whoever else swaps it would lose it.
    # Refreshed below: rich's own refreshing thread would outlive the bars for a moment.
    with Progress(
        *columns,
        console=console,
        auto_refresh=False,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as progress:
        tasks = [
            progress.add_task(run.title, total=run.steps, start=False, rate="waiting", loss="")
            for run in runs
        ]
        while True:
            last = stop.wait(INTERVAL_S)
            for task, run in zip(tasks, runs, strict=True):
                latest = run.latest()
                if latest is not None:
                    progress.start_task(task)
                    progress.update(task, completed=latest[0], rate=latest[1], loss=latest[2])
            progress.refresh()
            if last:
                return


def _lines(runs: Sequence[Tracked], console: Console, stop: threading.Event) -> None:
    shown: dict[str, int] = {}
    due = time.monotonic() + LINE_EVERY_S
    while True:
        last = stop.wait(INTERVAL_S)
        if not last and time.monotonic() < due:
            continue
        due = time.monotonic() + LINE_EVERY_S
        for run in runs:
            latest = run.latest()
            if latest is not None and shown.get(run.title) != latest[0]:
                shown[run.title] = latest[0]
                line = f"{run.title}: {latest[0]}/{run.steps} {latest[1]} {latest[2]}"
                console.print(line, highlight=False)
        if last:
            return


def silent(title: str, total: int) -> Callable[[int], None]:
    """Shows nothing."""
    return lambda count: None


@contextmanager
def bars(console: Console) -> Iterator[Begin]:
    """A bar for each thing that begins on a terminal, else a line."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def begin(title: str, total: int) -> Callable[[int], None]:
            if not console.is_terminal and total:
                console.print(f"{title}: {total:,} to do", highlight=False)
            task = progress.add_task(title, total=total)
            return lambda count: progress.advance(task, count)

        yield begin
