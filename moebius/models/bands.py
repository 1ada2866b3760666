"""Large maps on a CPU, worked on by bands of rows, so that what the work holds stays small.

From 32 MiB on, glibc asks the kernel for new pages at every allocation, and filling them costs
more than most of what is done to them; smaller memory is used again.

Shapes: B batch, H x W map, C channels; maps are in the order of tokens, (B, H, W, C).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

BAND_BYTES = 2**24
"""What the widest map of a band may hold on a CPU; elsewhere a band is the whole map. Half of 32
MiB, since glibc also gives back what is free beyond twice the largest block it has seen."""

Band = tuple[slice, slice]
"""Samples and rows that are worked on at once: whole samples, or rows of one."""
Read = Callable[[slice, slice], Tensor]
"""Gives samples and rows of a map, (b, h, W, C)."""
Put = Callable[[slice, slice, Tensor], object]
"""Takes what samples and rows of a map have become."""


def bands(x: Tensor, width: int) -> list[Band]:
    """The cut of a map (B, H, W, C) whose work makes maps of `width` channels."""
    batch, height, columns = x.shape[:3]
    if x.device.type != "cpu":
        return [(slice(0, batch), slice(0, height))]
    return list(_cut(batch, height, BAND_BYTES // (columns * width * x.element_size())))


def around(rows: slice, height: int) -> tuple[slice, slice]:
    """A row more on either side, where the map has one, for 3x3 windows; and `rows` in these."""
    top, bottom = max(rows.start - 1, 0), min(rows.stop + 1, height)
    return slice(top, bottom), slice(rows.start - top, rows.stop - top)


class Assembled:
    """A map made of its bands; a band that is all of it becomes the map without a copy."""

    def __init__(self, batch: int, height: int) -> None:
        self._sides = batch, height
        self._map: Tensor | None = None

    def put(self, samples: slice, rows: slice, piece: Tensor) -> None:
        """Takes (b, h, W, C)."""
        if piece.shape[:2] == self._sides:
            self._map = piece
            return
        if self._map is None:
            self._map = piece.new_empty(*self._sides, *piece.shape[2:])
        self._map[samples, rows] = piece

    @property
    def map(self) -> Tensor:
        """(B, H, W, C), once every band was put."""
        assert self._map is not None
        return self._map


class BandedOperator(nn.Module):
    """An operator over tokens, (B, N, C) -> (B, N, C), that can work by bands.

    Args:
        width: channels of the widest map that it makes.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width

    def run(self, read: Read, put: Put, cut: list[Band], *inputs: Any) -> None:
        """Puts every band of the cut, in its order, from what it reads.

        Args:
            inputs: the slot's, behind the tokens; the map's (H, W) is the last.
        """
        raise NotImplementedError

    def forward(self, x: Tensor, *inputs: Any) -> Tensor:
        """(B, N, C) and the slot's other inputs -> (B, N, C)."""
        grid = x.unflatten(1, inputs[-1])
        out = Assembled(*grid.shape[:2])
        self.run(lambda *band: grid[band], out.put, bands(grid, self.width), *inputs)
        return out.map.flatten(1, 2)

    def add_to(self, x: Tensor, norm: nn.Module, *inputs: Any) -> None:
        """x (B, N, C) becomes x + self(norm(x), *inputs)."""
        grid = x.unflatten(1, inputs[-1])
        cut = bands(grid, self.width)
        whole = norm(grid) if len(cut) == 1 else None
        self.run(
            lambda *band: norm(grid[band]) if whole is None else whole[band],
            lambda samples, rows, piece: grid[samples, rows].add_(piece),
            cut,
            *inputs,
        )


def read_normalised(norm: nn.GroupNorm, x: Tensor, cut: list[Band]) -> Read:
    """Reads norm(x) of a map (B, H, W, C); what is read belongs to who reads it."""
    if cut[0][1].stop == x.shape[1]:
        return lambda samples, _: norm(x[samples].permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    # Half precision has no digits for a product and what is added to it.
    exact = torch.promote_types(x.dtype, torch.float32)
    scale, shift = _as_affine(norm, x, cut, exact)
    return lambda samples, rows: torch.addcmul(
        shift[samples], x[samples, rows].to(exact), scale[samples]
    ).to(x.dtype)


def _as_affine(
    norm: nn.GroupNorm, x: Tensor, cut: list[Band], exact: torch.dtype
) -> tuple[Tensor, Tensor]:
    """What a GroupNorm multiplies a map by and adds to it, each (B, 1, 1, C), by bands' moments."""
    batch, height, _, channels = x.shape
    moments = [
        torch.batch_norm_update_stats(x[band].flatten(0, 2).to(exact), None, None, 0.0)
        for band in cut
    ]
    means, variances = (
        torch.stack(kind).view(batch, -1, norm.num_groups, channels // norm.num_groups)
        for kind in zip(*moments, strict=True)
    )
    heights = [rows.stop - rows.start for _, rows in cut[: means.shape[1]]]
    share = means.new_tensor(heights)[:, None, None] / (height * means.shape[3])
    mean = (share * means).sum((1, 3), keepdim=True)
    variance = (share * (variances + (means - mean).square())).sum((1, 3), keepdim=True)
    weight, bias = (p.to(exact).view(norm.num_groups, -1) for p in (norm.weight, norm.bias))
    scale = weight * (variance + norm.eps).rsqrt()
    return scale.view(batch, 1, 1, channels), (bias - mean * scale).view(batch, 1, 1, channels)


def _cut(batch: int, height: int, room: int) -> Iterator[Band]:
    """Bands of `room` rows at most (and one at least), one sample's after the other's."""
    together = max(1, room // height)
    parts = -(-height // max(1, room))
    for first in range(0, batch, together):
        for part in range(parts):
            rows = slice(height * part // parts, height * (part + 1) // parts)
            yield slice(first, min(first + together, batch)), rows
