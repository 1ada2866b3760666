"""What every family of mask generators shares: the interface and the random draws."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator | np.random.RandomState
"""Either kind of numpy's; a legacy `RandomState` replays the published masks of a seed."""

Mask = NDArray[np.uint8]
"""(H, W), 1 = hole, 0 = known."""


class MaskGenerator(Protocol):
    """Draws random holes; all lengths of its settings are pixels of a `native` square."""

    @property
    def native(self) -> int:
        """Side in pixels of the square that the settings were made for."""

    def draw(self, height: int, width: int, rng: Rng) -> Mask:
        """Draw one mask of (height, width), its lengths scaled by min(height, width) / native."""


def integer(rng: Rng, low: int, high: int) -> int:
    """Draw from low..high-1."""
    if isinstance(rng, np.random.RandomState):
        return int(rng.randint(low, high))
    return int(rng.integers(low, high))


def scaled(length: int, scale: float) -> int:
    """Scale a length in pixels; the result is at least one pixel."""
    return max(1, round(length * scale))
