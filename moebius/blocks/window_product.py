"""Local-lambda's position term without its lambdas: Q first, then the window (Eq. 1).

    Y[n] = Q[n] lambda_p[n],  lambda_p[n] = sum_r W[r] V[n + r]   (k x v for every position n)

Summed over k first, a window kernel a head and position is left, a = Q W, and Y[n] is the sum of
a[n, r] V[n + r]: fewer multiplications wherever there are fewer heads than v, and no (k, v, N)
tensor. To make both sums matrix products, W is spread into a band over the columns of the map (or
of a tile of it), one matrix for each position in a row. What lies between the two products is
made in pieces that stay in the cache, and made again in the backward pass instead of being kept.

Shapes: B batch, H x W map, h heads, k and v key and value width, R x S window.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

TILE = 4
"""Columns a tile, where the band would otherwise be mostly zeros."""
PIECE_BYTES = {"cpu": 2**20}
"""What a piece may hold: a core's cache on a CPU, elsewhere `LARGE_PIECE`, to launch little."""
LARGE_PIECE = 2**30


class Plan(NamedTuple):
    """How one shape is cut."""

    tile: int
    """Output columns a tile."""
    columns: int
    """Input columns that a tile's windows cover."""
    padding: tuple[int, int, int, int]
    """Zeros left, right, above and below V, so that every window lies inside."""
    batch: int
    """Samples a piece."""
    rows: int
    """Output rows a piece."""


def window_product(q: Tensor, v: Tensor, kernel: Tensor, top: int = 0) -> Tensor:
    """Sum over the window of (q[n] . kernel[:, r]) v[n + r], zeros outside the map.

    Args:
        q: (B, H, W, h, k), or some of the map's rows.
        v: (B, H, W, v), all of them.
        kernel: (k, R, S), odd sides.
        top: the row of the map that q's first is.

    Returns:
        (B, H, W, h, v), q's rows.
    """
    _, height, width, heads, _ = q.shape
    kernel = _crop(kernel, v.shape[1], width)
    plan = make_plan(
        height, width, heads, kernel.shape[1], kernel.shape[2], q.element_size(), q.device.type
    )
    plan, v = _within_reach(plan, v, kernel.shape[1] // 2, top, height)
    band = _band(kernel, plan)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (q, v, band)):
        return _WindowProduct.apply(q, v, band, plan)
    return _forward(q, v, band, plan)


@cache
def make_plan(
    height: int, width: int, heads: int, window_y: int, window_x: int, itemsize: int, device: str
) -> Plan:
    """The cut of a shape: tiles where they save work, pieces that fit the cache."""
    side_y, side_x = window_y // 2, window_x // 2
    if TILE + 2 * side_x < width:
        tile, columns = TILE, TILE + 2 * side_x
        left, right = side_x, side_x + -width % TILE
    else:
        tile, columns, left, right = width, width, 0, 0
    a_row = tile * heads * window_y * columns * itemsize
    room = max(1, PIECE_BYTES.get(device, LARGE_PIECE) // a_row)
    rows = min(height, room)
    return Plan(tile, columns, (left, right, side_y, side_y), max(1, room // height), rows)


def _within_reach(plan: Plan, v: Tensor, side: int, top: int, height: int) -> tuple[Plan, Tensor]:
    """The rows of V that windows around `height` rows reach, and zeros for those it lacks."""
    above, below = top - side, top + height + side - v.shape[1]
    left, right, _, _ = plan.padding
    plan = plan._replace(padding=(left, right, max(0, -above), max(0, below)))
    return plan, v[:, max(0, above) : top + height + side]


def _crop(kernel: Tensor, height: int, width: int) -> Tensor:
    """The part of a window that some position of the map can reach."""
    for dim, side in ((1, height), (2, width)):
        excess = (kernel.shape[dim] - (2 * side - 1)) // 2
        if excess > 0:
            kernel = kernel.narrow(dim, excess, 2 * side - 1)
    return kernel


def _band(kernel: Tensor, plan: Plan) -> Tensor:
    """The kernel as seen from each output column: (tile, k, R * columns)."""
    k, window_y, window_x = kernel.shape
    # Output column t reaches input column c by the offset c - t + first.
    first = window_x // 2 - plan.padding[0]
    length = plan.tile + plan.columns - 1
    left = plan.tile - 1 - first
    line = F.pad(kernel, (left, length - left - window_x))
    band = line.unfold(2, plan.columns, 1).flip(2)
    return band.permute(2, 0, 1, 3).reshape(plan.tile, k, window_y * plan.columns)


class _Piece(NamedTuple):
    """A tile's columns, rows and samples, as slices of the padded map."""

    samples: slice
    tile: int
    rows: slice


def _pieces(q: Tensor, plan: Plan) -> Iterator[_Piece]:
    batch, height, width = q.shape[:3]
    for sample in range(0, batch, plan.batch):
        samples = slice(sample, min(sample + plan.batch, batch))
        for tile in range(-(-width // plan.tile)):
            for row in range(0, height, plan.rows):
                yield _Piece(samples, tile, slice(row, min(row + plan.rows, height)))


def _tiles(v: Tensor, plan: Plan) -> Tensor:
    """(B, H, W, v) -> (tiles, B, H + R - 1, columns, v): every tile's input columns, padded."""
    padded = F.pad(v, (0, 0, *plan.padding))
    return padded.unfold(2, plan.columns, plan.tile).permute(2, 0, 1, 4, 3).contiguous()


def _windows(tiles: Tensor, piece: _Piece, window_y: int) -> Tensor:
    """What each row of a piece sees: (b, y, R * columns, v), a view."""
    reach = slice(piece.rows.start, piece.rows.stop + window_y - 1)
    rows = tiles[piece.tile, piece.samples, reach]
    return rows.unfold(1, window_y, 1).permute(0, 1, 4, 2, 3).flatten(2, 3)


def _columns(x: Tensor, piece: _Piece, plan: Plan) -> Tensor:
    """A piece of (B, H, W, h, d): (b, y, t, h, d), a view."""
    left = piece.tile * plan.tile
    return x[piece.samples, piece.rows, left : left + plan.tile]


def _by_column(x: Tensor) -> Tensor:
    """(b, y, t, h, d) -> (t, b * h * y, d)."""
    return x.permute(2, 0, 3, 1, 4).flatten(1, 3)


def _by_row(a: Tensor, shape: torch.Size) -> Tensor:
    """(t, b * h * y, d) -> (b, y, t * h, d), a view where the piece is one sample."""
    samples, rows, _, heads, _ = shape
    a = a.unflatten(1, (samples, heads, rows))
    return a.permute(1, 3, 0, 2, 4).flatten(2, 3)


def _forward(q: Tensor, v: Tensor, band: Tensor, plan: Plan) -> Tensor:
    tiles, window_y = _tiles(v, plan), band.shape[2] // plan.columns
    out = q.new_empty(*q.shape[:-1], v.shape[-1])
    for piece in _pieces(q, plan):
        part = _columns(q, piece, plan)
        a = _by_column(part) @ band[: part.shape[2]]
        y = _by_row(a, part.shape) @ _windows(tiles, piece, window_y)
        _columns(out, piece, plan).copy_(y.unflatten(2, part.shape[2:4]))
    return out


class _WindowProduct(torch.autograd.Function):
    """`_forward`, with a backward pass that keeps q, v and the band only."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, v: Tensor, band: Tensor, plan: Plan) -> Tensor:
        ctx.save_for_backward(q, v, band)
        ctx.plan = plan
        return _forward(q, v, band, plan)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, v, band = ctx.saved_tensors
        plan: Plan = ctx.plan
        tiles, window_y = _tiles(v, plan), band.shape[2] // plan.columns
        # Sums over pieces keep float32's digits in half precision.
        exact = torch.promote_types(q.dtype, torch.float32)
        grad_q, grad_tiles = torch.empty_like(q), torch.zeros_like(tiles, dtype=exact)
        grad_band = torch.zeros_like(band, dtype=exact)
        for piece in _pieces(q, plan):
            part, grad_y = _columns(q, piece, plan), _columns(grad, piece, plan).flatten(2, 3)
            used = part.shape[2]
            by_column = _by_column(part)
            a = _by_row(by_column @ band[:used], part.shape)
            windows = _windows(tiles, piece, window_y)
            seen = (a.mT @ grad_y).unflatten(2, (window_y, plan.columns))
            into = grad_tiles[piece.tile, piece.samples]
            for row in range(seen.shape[1]):
                top = piece.rows.start + row
                into[:, top : top + window_y] += seen[:, row]
            grad_a = _by_column((grad_y @ windows.mT).unflatten(2, part.shape[2:4]))
            grad_band[:used] += by_column.mT @ grad_a
            grad_q_part = (grad_a @ band[:used].mT).unflatten(
                1, (part.shape[0], part.shape[3], part.shape[1])
            )
            _columns(grad_q, piece, plan).copy_(grad_q_part.permute(1, 3, 0, 2, 4))
        grad_v = _untile(grad_tiles, v.shape, plan)
        return grad_q, grad_v.to(v.dtype), grad_band.to(band.dtype), None


def _untile(tiles: Tensor, shape: torch.Size, plan: Plan) -> Tensor:
    """The transpose of `_tiles`: what the tiles share is added up."""
    left, right, above, _ = plan.padding
    padded = tiles.new_zeros(shape[0], tiles.shape[2], shape[2] + left + right, shape[3])
    for index, tile in enumerate(tiles):
        start = index * plan.tile
        padded[:, :, start : start + plan.columns] += tile
    return padded[:, above : above + shape[1], left : left + shape[2]]
