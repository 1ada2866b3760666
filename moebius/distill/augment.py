"""Shared, differentiable augmentations of latents: one random transform a sample.

The transforms and their ranges are the `bg` set (pixel blitting and geometry) of StyleGAN2-ADA
(Karras et al. 2020, Appendix B), resampled bilinearly with reflection at the borders.

Shapes: B batch, C channels, H x W latent. An affine matrix `theta` (2, 3) maps a pixel of the
output, (x, y, 1) counted from the centre, to the place in the input that it is read from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

SHIFT = 0.125  # range of integer and deviation of fractional shifts, as a part of the side
LOG2_SCALE = 0.2  # deviation of the scales' binary logarithm

Matrix = list[list[float]]


def _affine(
    a: float = 1, b: float = 0, c: float = 0, d: float = 1, x: float = 0, y: float = 0
) -> Matrix:
    return [[a, b, x], [c, d, y]]


def _rotation(cos: float, sin: float) -> Matrix:
    return _affine(cos, -sin, sin, cos)


def _isotropic(scale: float) -> Matrix:
    return _affine(1 / scale, d=1 / scale)


def _anisotropic(scale: float) -> Matrix:
    return _affine(1 / scale, d=scale)


# Each takes two uniforms in [0, 1), two standard normals, the height and the width.
TRANSFORMS: dict[str, Callable[[list[float], list[float], int, int], Matrix]] = {
    "flip": lambda u, n, h, w: _affine(-1 if u[0] < 0.5 else 1),
    # Whole numbers rather than cosines keep a quarter turn exact.
    "quarter_turn": lambda u, n, h, w: _rotation(
        *[(1, 0), (0, 1), (-1, 0), (0, -1)][int(4 * u[0])]
    ),
    "integer_shift": lambda u, n, h, w: _affine(
        x=round((2 * u[0] - 1) * SHIFT * w), y=round((2 * u[1] - 1) * SHIFT * h)
    ),
    "fractional_shift": lambda u, n, h, w: _affine(x=n[0] * SHIFT * w, y=n[1] * SHIFT * h),
    "isotropic_scale": lambda u, n, h, w: _isotropic(2 ** (LOG2_SCALE * n[0])),
    "anisotropic_scale": lambda u, n, h, w: _anisotropic(2 ** (LOG2_SCALE * n[0])),
    "rotation": lambda u, n, h, w: _rotation(
        math.cos((2 * u[0] - 1) * math.pi), math.sin((2 * u[0] - 1) * math.pi)
    ),
}


def draw_augmentations(generators: Sequence[torch.Generator], height: int, width: int) -> Tensor:
    """Draws one transform a sample, uniformly over the seven of `TRANSFORMS`.

    Args:
        generators: one CPU generator a sample; naming the same one B times draws in sequence.
            A generator of its own for each sample makes the draw independent of how a batch is
            split over workers. Each sample takes the same amount of randomness, whatever it draws.
        height: latent height in pixels.
        width: latent width in pixels.

    Returns:
        (B, 2, 3) float32 matrices for `apply_affine`, on the CPU.
    """
    return torch.tensor([_draw(generator, height, width) for generator in generators])


def _draw(generator: torch.Generator, height: int, width: int) -> Matrix:
    kind, *uniform = torch.rand(3, generator=generator).tolist()
    normal = torch.randn(2, generator=generator).tolist()
    transform = list(TRANSFORMS.values())[int(kind * len(TRANSFORMS))]
    return transform(uniform, normal, height, width)


def apply_affine(x: Tensor, theta: Tensor) -> Tensor:
    """Resamples each sample by its affine matrix, bilinearly, with reflection at the borders.

    Own code rather than `grid_sample`, whose normalised coordinates lose the exactness that flips,
    quarter turns and integer shifts have in pixels.

    Args:
        x: (B, C, H, W).
        theta: (B, 2, 3) in pixels from the centre.

    Returns:
        (B, C, H, W), differentiable with respect to `x`.
    """
    height, width = x.shape[-2:]
    theta = theta.to(x.device)
    ys = torch.arange(height, device=x.device)[:, None] - (height - 1) / 2
    xs = torch.arange(width, device=x.device) - (width - 1) / 2
    from_x, from_y = (
        row[:, 0, None, None] * xs + row[:, 1, None, None] * ys + row[:, 2, None, None]
        for row in theta.unbind(1)
    )
    left, right, part_x = _neighbours(from_x + (width - 1) / 2, width)
    top, bottom, part_y = _neighbours(from_y + (height - 1) / 2, height)

    flat = x.flatten(2)
    out = torch.zeros_like(flat)
    for column, weight_x in ((left, 1 - part_x), (right, part_x)):
        for row, weight_y in ((top, 1 - part_y), (bottom, part_y)):
            index = (row * width + column).flatten(1)[:, None].expand_as(flat)
            weight = (weight_x * weight_y).flatten(1)[:, None].to(x.dtype)
            out = out + weight * flat.gather(2, index)
    return out.view_as(x)


def _neighbours(position: Tensor, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """The pixels before and after a position, reflected into [0, size), and the way between."""
    before = position.floor()
    index = before.long()
    return _reflect(index, size), _reflect(index + 1, size), position - before


def _reflect(index: Tensor, size: int) -> Tensor:
    period = max(2 * (size - 1), 1)
    index = index % period
    return torch.minimum(index, period - index)
