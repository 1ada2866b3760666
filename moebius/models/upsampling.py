"""Nearest upsampling by two and a 3x3 convolution, computed on the small map.

Two neighbours of the upsampled map are the same cell, so each of the four outputs of a cell sees
2x2 cells only, with sums of the kernel's rows and columns: 16 instead of 36 products a cell.
"""

from itertools import product

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.products import Conv2d
from moebius.models.bands import bands

PARTS = ((0, (1, 2)), ((0, 1), 2))
"""Kernel rows that meet the first and the second of an output's two cells, for even and odd
output rows; columns alike."""


class UpsampledConv(nn.Module):
    """`Upsample2D` with a convolution, in its inference form."""

    def __init__(self, sampler: Upsample2D) -> None:
        super().__init__()
        conv = sampler.conv
        assert isinstance(conv, nn.Conv2d) and conv.kernel_size == (3, 3)
        self.conv = conv
        self.convs = nn.ModuleList(
            _conv(conv, torch.stack([_sum(rows, part, 3) for part in across], 3))
            for down in PARTS
            for rows in [torch.stack([_sum(conv.weight.detach(), part, 2) for part in down], 2)]
            for across in PARTS
        )

    def forward(self, x: Tensor, output_size: tuple[int, int] | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, 2H, 2W), or by `output_size`, channels-last."""
        batch, _, height, width = x.shape
        doubled = 2 * height, 2 * width
        if output_size is not None and tuple(output_size) != doubled:
            return self.conv(F.interpolate(x, size=output_size))  # its last cells count once
        cut = bands(x.permute(0, 2, 3, 1), max(x.shape[1], self.conv.out_channels))
        padded = F.pad(x, (1, 1, 1, 1))
        out = x.new_empty(batch, *doubled, self.conv.out_channels).permute(0, 3, 1, 2)
        for (samples, rows), (index, conv) in product(cut, enumerate(self.convs)):
            down, across = divmod(index, 2)
            top, bottom = rows.start + down, rows.stop + down + 1
            seen = padded[samples, :, top:bottom, across : across + width + 1]
            part = slice(2 * rows.start + down, 2 * rows.stop, 2)
            out[samples, :, part, across::2] = conv(seen)
        return out


def _sum(kernel: Tensor, part: int | tuple[int, ...], dim: int) -> Tensor:
    """Some of a kernel's rows (dim 2) or columns (dim 3), added up."""
    indices = torch.tensor(part, device=kernel.device).reshape(-1)
    return kernel.index_select(dim, indices).sum(dim)


def _conv(conv: nn.Conv2d, weight: Tensor) -> nn.Conv2d:
    """A 2x2 convolution without padding, with the bias of another."""
    part = Conv2d(conv.in_channels, conv.out_channels, 2, device="meta")
    part.weight = nn.Parameter(weight, requires_grad=False)
    assert conv.bias is not None
    part.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return part
