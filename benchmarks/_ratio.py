"""Two forms of one computation, timed in turns, so that other load hurts both alike."""

import time
from collections.abc import Callable
from typing import Any

import torch


def ratio(plain: Callable[[], Any], fast: Callable[[], Any], rounds: int = 5) -> tuple[float, ...]:
    """Best seconds of both over a few rounds, the first not counted, and plain over fast."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(rounds + 1):
        for i, run in enumerate((plain, fast)):
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[i].append(time.perf_counter() - start)
    slow, quick = (min(taken[1:]) for taken in times.values())
    return slow, quick, slow / quick


def show(name: str, timed: tuple[float, ...]) -> None:
    """One line: both times and their ratio."""
    slow, quick, factor = timed
    threads = torch.get_num_threads()
    print(
        f"{name}, {threads} threads: plain {1000 * slow:.1f} ms, "
        f"fast {1000 * quick:.1f} ms, ratio {factor:.2f}",
        flush=True,
    )
