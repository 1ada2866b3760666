"""What a run measures between two lines of its log."""

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from moebius.distill.world import World

Metrics = dict[str, float]


class Meter:
    """Means of what a step measures, and the rate, since the last reading."""

    def __init__(self) -> None:
        self._start_anew()

    def add(self, measured: Mapping[str, Any], samples: int) -> None:
        """Adds one step's values, still on their device."""
        for key, value in measured.items():
            self.values.setdefault(key, []).append(value)
        self.samples += samples

    def read(self, world: World) -> Metrics:
        """Means over steps and workers; starts anew."""
        means = torch.stack([torch.stack(v).float().mean() for v in self.values.values()])
        elapsed = time.perf_counter() - self.start
        read = dict(zip(self.values, world.mean(means).tolist(), strict=True))
        read["samples_per_second"] = self.samples / elapsed
        self._start_anew()
        return read

    def _start_anew(self) -> None:
        self.values: dict[str, list[Tensor]] = {}
        self.samples, self.start = 0, time.perf_counter()
