"""Rectangles of pixels, in Pillow's order."""

from __future__ import annotations

from typing import NamedTuple


class Box(NamedTuple):
    """Columns `left` to `right` and rows `top` to `bottom`, the last ones not included."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    @property
    def side(self) -> int:
        """The longer side."""
        return max(self.width, self.height)

    @property
    def slices(self) -> tuple[slice, slice]:
        """What indexes an (H, W, ...) array."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grown(self, by: int) -> Box:
        """Larger by so many pixels on every side; it may leave the picture."""
        return Box(self.left - by, self.top - by, self.right + by, self.bottom + by)

    def union(self, other: Box) -> Box:
        """The smallest box around both."""
        return Box(*map(min, self[:2], other[:2]), *map(max, self[2:], other[2:]))

    def within(self, other: Box) -> Box:
        """The part inside another box."""
        return Box(*map(max, self[:2], other[:2]), *map(min, self[2:], other[2:]))

    def relative_to(self, other: Box) -> Box:
        """The same pixels, counted from another box's corner."""
        x, y = other[:2]
        return Box(self.left - x, self.top - y, self.right - x, self.bottom - y)

    def overlaps(self, other: Box) -> bool:
        """Whether the two share a pixel."""
        common = self.within(other)
        return common.width > 0 and common.height > 0
