"""Two forms of one computation, timed in turns, so that other load hurts both alike.

A script prints each of its claims through `show`; run by `benchmarks/_all.py`, it also leaves
them in the file that `MOEBIUS_BENCH_RECORDS` names.
"""

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

RECORDS = "MOEBIUS_BENCH_RECORDS"
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = (
    ((torch.bfloat16, 1), (torch.bfloat16, 48)) if DEVICE.type == "cuda" else ((torch.float32, 1),)
)
"""Types and batches that an operator is measured in."""


@dataclass(frozen=True)
class Claim:
    """One line of the table."""

    name: str
    plain: float
    """In `unit`; for growth, of the larger size."""
    fast: float
    """In `unit`; for growth, of the smaller size."""
    unit: str
    ratio: float
    at_least: float | None
    at_most: float | None
    threads: int
    clock: str
    """What times were taken by: `cpu`, one thread's own, or `wall`."""
    device: str

    @property
    def target(self) -> str:
        """What the ratio shall be."""
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def reached(self) -> bool | None:
        """Whether it is that; `None` without a target."""
        if self.at_least is not None:
            return self.ratio >= self.at_least
        return None if self.at_most is None else self.ratio <= self.at_most


def seconds(run: Callable[[], Any]) -> float:
    """Seconds of one call, by `clock`."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    now = time.process_time if clock() == "cpu" else time.perf_counter
    start = now()
    run()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return now() - start


def clock() -> str:
    """One thread's processor time is its own, whatever else runs; several need a quiet machine."""
    return "cpu" if DEVICE.type == "cpu" and torch.get_num_threads() == 1 else "wall"


def ratio(plain: Callable[[], Any], fast: Callable[[], Any], rounds: int = 5) -> tuple[float, ...]:
    """Best seconds of both over a few rounds, the first not counted, and plain over fast."""
    times: dict[int, list[float]] = {0: [], 1: []}
    for _ in range(rounds + 1):
        for i, run in enumerate((plain, fast)):
            times[i].append(seconds(run))
    slow, quick = (min(taken[1:]) for taken in times.values())
    return slow, quick, slow / quick


def show(
    name: str,
    timed: Sequence[float],
    at_least: float | None = None,
    at_most: float | None = None,
    unit: str = "s",
) -> None:
    """One line: both figures, their ratio and what it shall be.

    Args:
        name: what was measured.
        timed: plain, fast and their ratio, as `ratio` returns them.
        at_least, at_most: the target, one of them at most.
        unit: of the first two.
    """
    plain, fast, factor = timed
    threads, device = torch.get_num_threads(), DEVICE.type
    claim = Claim(name, plain, fast, unit, factor, at_least, at_most, threads, clock(), device)
    scale, shown = (1000.0, "ms") if unit == "s" else (1.0, unit)
    verdict = {None: "", True: ", reached", False: ", MISSED"}[claim.reached]
    target = f" (target {claim.target}{verdict})" if claim.target else ""
    print(
        f"{name}, {threads} threads: plain {scale * plain:.1f} {shown}, "
        f"fast {scale * fast:.1f} {shown}, ratio {factor:.2f}{target}",
        flush=True,
    )
    if RECORDS in os.environ:
        with open(os.environ[RECORDS], "a") as file:
            file.write(json.dumps(asdict(claim)) + "\n")
