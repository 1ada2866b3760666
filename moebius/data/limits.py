"""A time limit for what may hang for ever: a file on storage that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def within(seconds: float | None, what: str, call: Callable[[], T]) -> T:
    """Calls, and waits no longer than so many seconds.

    The call has a thread of its own, because nothing else gets out of an `open` that blocks; one
    that hangs is left behind, and does not keep the process alive.

    Args:
        seconds: the limit; `None` is none.
        what: names the call in the error.
        call: its errors are raised here.

    Raises:
        TimeoutError: it took longer.
    """
    if seconds is None:
        return call()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"{what} takes longer than {seconds:g} s")
    return results[0]
