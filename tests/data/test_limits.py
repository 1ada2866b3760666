"""A call with a time limit: what it returns, raises, and leaves behind."""

import threading

import pytest

from moebius.data.limits import within


def test_in_time_it_returns_and_raises_what_the_call_does() -> None:
    assert within(30.0, "work", lambda: 3) == within(None, "work", lambda: 3) == 3
    assert within(30.0, "work", lambda: None) is None
    with pytest.raises(ZeroDivisionError):
        within(30.0, "work", lambda: 1 / 0)


def test_what_hangs_is_named_and_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError, match="reading a.png takes longer than 0.05 s"):
        within(0.05, "reading a.png", never.wait)
    (left,) = [thread for thread in threading.enumerate() if thread.name == "reading a.png"]
    assert left.daemon
    never.set()
    left.join(10)
