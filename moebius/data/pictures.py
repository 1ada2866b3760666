"""Decoded and resized pictures, so that a small set is not decoded anew for every sample."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from moebius.data.transforms import load_image, resize_short_side

BUDGET = 128 << 20
"""Bytes that one process keeps."""


class Pictures:
    """RGB pictures by path and short side; the least recently used are dropped first."""

    def __init__(self, budget: int = BUDGET) -> None:
        self._budget = budget
        self._kept: OrderedDict[tuple[Path, int | None], Image.Image] = OrderedDict()
        self._used = 0

    def resized(self, path: Path, short_side: int) -> Image.Image:
        """Read a picture at a short side; see `load_image` and `resize_short_side`.

        Raises:
            UnreadableImage: as they do.
        """

        def resize() -> Image.Image:
            decoded = self._keep((path, None), lambda: load_image(path))
            return resize_short_side(decoded, short_side)

        return self._keep((path, short_side), resize)

    def _keep(self, key: tuple[Path, int | None], make: Callable[[], Image.Image]) -> Image.Image:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        image = make()
        if _bytes(image) <= self._budget:
            self._kept[key] = image
            self._used += _bytes(image)
        while self._used > self._budget:
            self._used -= _bytes(self._kept.popitem(last=False)[1])
        return image


def _bytes(image: Image.Image) -> int:
    return 3 * image.width * image.height
