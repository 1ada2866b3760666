"""3x3 convolutions with fewer products, for float32 on a CPU: Winograd's minimal filtering.

A tile of m x m outputs is A^T [(G g G^T) * (B^T d B)] A of its (m+2) x (m+2) inputs d and the
kernel g (Lavin and Gray, arXiv 1509.09308, Sec. 4): (m+2)^2 products in place of 9 m^2. In
channels-last order every step but the products is a sum of rows of channels. Errors stay below
those of the direct form for m = 2, and near 2e-6 for m = 4.

Shapes: B batch, C_in and C_out channels, H x W map, h x w its tiles.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.products import Conv2d, by_onednn, takes
from moebius.models.bands import Assembled, bands

CHANNELS = 192
"""From this many on, of both sides, products outweigh what the transforms move."""
POSITIONS = {2: 256, 4: 128 * 128}
"""From a map of this many on for each m; below, the kernel's tiles cost more than they bring: of
m = 2, reading them takes the time, and of m = 4, they are larger than the map."""
FULL_WIDTH = not torch.backends.cpu.get_cpu_capability().startswith("AVX512")
"""Whether batched products, which are MKL's, reach a processor's width: not AMD's AVX-512."""

Matrix = tuple[tuple[float, ...], ...]

INPUTS: dict[int, Matrix] = {
    2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
    4: (
        (4, 0, -5, 0, 1, 0),
        (0, -4, -4, 1, 1, 0),
        (0, 4, -4, -1, 1, 0),
        (0, -2, -1, 2, 1, 0),
        (0, 2, -1, -2, 1, 0),
        (0, 4, 0, -5, 0, 1),
    ),
}
"""B^T for each m."""
OUTPUTS: dict[int, Matrix] = {
    2: ((1, 1, 1, 0), (0, 1, -1, -1)),
    4: ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1)),
}
"""A^T for each m."""
KERNELS: dict[int, Matrix] = {
    2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
    4: (
        (1 / 4, 0, 0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0, 0, 1),
    ),
}
"""G for each m."""


class WinogradConv(Conv2d):
    """A 3x3 convolution without gradients, by tiles where they pay and as it was elsewhere.

    Args:
        conv: 3x3, one step, one cell of zeros around the map; its weights are shared.
        tile: m, 2 or 4. The kernel's tiles, made when a map first needs them, take 16/9 of its
            memory, or 4 times as much.
    """

    def __init__(self, conv: nn.Conv2d, tile: int = 2) -> None:
        assert is_taken(conv)
        inputs, outputs, biased = conv.in_channels, conv.out_channels, conv.bias is not None
        super().__init__(inputs, outputs, 3, padding=1, bias=biased, device="meta")
        self.weight, self.bias = conv.weight, conv.bias
        self.tile = tile
        self._kernel: Tensor | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        if not self._pays(input):
            return super().forward(input)
        if self._kernel is None:
            self._kernel = tiled_kernel(self.weight, self.tile)
        m, bias, grid = self.tile, self.bias, input.permute(0, 2, 3, 1)
        height, width = grid.shape[1:3]
        channels = max(self.weight.shape[:2])
        out = Assembled(*grid.shape[:2])
        for samples, rows in bands(grid[:, ::m, ::m], (m + 2) ** 2 * channels):
            first, last = m * rows.start, min(m * rows.stop, height)
            top, bottom = max(first - 1, 0), min(last + 1, height)
            # Zeros around the map, and up to whole tiles below and beside it.
            below = m * (rows.stop - rows.start) + 2 - (bottom - top) - (top == first)
            beside = 1 + -width % m
            seen = F.pad(grid[samples, top:bottom], (0, 0, 1, beside, int(top == first), below))
            y = _filtered(seen, self._kernel, bias, m)[:, : last - first, :width]
            out.put(samples, slice(first, last), y)
        return out.map.permute(0, 3, 1, 2)

    def _pays(self, x: Tensor) -> bool:
        large = x.shape[2] * x.shape[3] >= POSITIONS[self.tile]
        return large and not torch.is_grad_enabled() and takes(x, self.weight)


def is_taken(conv: nn.Conv2d) -> bool:
    """Whether a convolution has a form here that pays on maps that are not small."""
    return (
        (conv.kernel_size, conv.stride, conv.dilation) == ((3, 3), (1, 1), (1, 1))
        and conv.padding == (1, 1)
        and conv.padding_mode == "zeros"
        and conv.groups == 1
        and min(conv.in_channels, conv.out_channels) >= CHANNELS
    )


def tiled_kernel(weight: Tensor, tile: int) -> Tensor:
    """G g G^T of every pair of channels, (C_out, C_in, 3, 3) -> ((m+2)^2, C_out, C_in)."""
    g = torch.tensor(KERNELS[tile], dtype=torch.float64)
    pairs = weight.detach().flatten(2).double()
    # In float64, then rounded once: a kernel's tiles are as exact as the kernel.
    u = pairs @ torch.kron(g, g).mT
    return u.to(weight.dtype).permute(2, 0, 1).contiguous()


def _filtered(seen: Tensor, kernel: Tensor, bias: Tensor | None, m: int) -> Tensor:
    """Convolution of a band with its border: (b, mh + 2, mw + 2, C_in) -> (b, mh, mw, C_out)."""
    batch, height, width, channels = seen.shape
    h, w, side = (height - 2) // m, (width - 2) // m, m + 2
    down = seen.new_empty(side, batch, h, width, channels)
    _transform(down.unbind(0), INPUTS[m], [seen[:, i : i + m * h : m] for i in range(side)])
    both = seen.new_empty(side, side, batch, h, w, channels)
    rows = [down[:, :, :, i : i + m * w : m] for i in range(side)]
    _transform(both.unbind(1), INPUTS[m], rows)
    tiles = _products(both.flatten(0, 1).flatten(1, 3), kernel)
    tiles = [t.view(batch, h, w, -1) for t in tiles]
    # Across first: the products of a tile's row lie side by side.
    out = seen.new_empty(batch, h, m, w, m, kernel.shape[1])
    across = tiles[0].new_empty(m, side, *tiles[0].shape)
    for row in range(side):
        _transform(across[:, row].unbind(0), OUTPUTS[m], tiles[side * row : side * (row + 1)])
    for column in range(m):
        parts = out[:, :, :, :, column].unbind(2)
        _transform(parts, OUTPUTS[m], list(across[column].unbind(0)))
    out = out.view(batch, m * h, m * w, -1)
    return out if bias is None else out.add_(bias)


def _transform(outs: tuple[Tensor, ...], matrix: Matrix, terms: list[Tensor]) -> None:
    """Writes a matrix's sums of terms."""
    for out, row in zip(outs, matrix, strict=True):
        used = [(factor, term) for factor, term in zip(row, terms, strict=True) if factor]
        used.sort(key=lambda pair: pair[0] != 1)  # a term as it is, and a multiple of another
        (_, first), (factor, second), *others = used
        torch.add(first, second, alpha=factor, out=out)
        for factor, term in others:
            out.add_(term, alpha=factor)


def _products(tiles: Tensor, kernel: Tensor) -> list[Tensor]:
    """(T, N, C_in), (T, C_out, C_in) -> T of (N, C_out)."""
    if FULL_WIDTH:
        return list(torch.bmm(tiles, kernel.mT).unbind(0))
    return [by_onednn(*pair) for pair in zip(tiles, kernel, strict=True)]
