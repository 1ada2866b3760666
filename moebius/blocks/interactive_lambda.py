"""Interactive-lambda: cross mixing with the LCG context (Eq. 2).

Shapes: B batch, N = H*W tokens, C channels, h heads, k = v = C/h, M context length.
"""

from functools import lru_cache

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.local_lambda import as_grid, as_tokens, head_width
from moebius.blocks.recomputed import trains
from moebius.blocks.registry import register


@register("cross", "interactive_lambda")
class InteractiveLambda(nn.Module):
    """Interactive-lambda operator (Moebius Eq. 2).

    Args:
        dim: channels C, divisible by `heads`.
        heads: query heads h.
        context_dim: width D of a context row.
        context_length: number of context rows M.
        size: (H, W) of the map that the position table is trained at.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int,
        heads: int = 8,
        context_length: int = 10,
        size: tuple[int, int] = (64, 64),
    ) -> None:
        super().__init__()
        self.heads, self.size, width = heads, tuple(size), head_width(dim, heads)
        self.to_q = nn.Conv2d(dim, dim, 1, bias=False)
        self.to_k = nn.Linear(context_dim, width, bias=False)
        self.to_v = nn.Linear(context_dim, width, bias=False)
        self.norm_q = nn.BatchNorm2d(dim)
        self.norm_v = nn.BatchNorm1d(width)
        table = torch.randn(size[0] * size[1], context_length, width, 1)
        self.rel_pos_emb = nn.Parameter(table)

    def forward(self, x: Tensor, context: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens and (B, M, D) context -> (B, N, C)."""
        q = as_tokens(self.norm_q(self.to_q(as_grid(x, size)))).unflatten(2, (self.heads, -1))
        k = self.to_k(context).softmax(dim=1)
        v = self.norm_v(self.to_v(context).mT).mT
        # Both lambdas are sums over the context's rows, so the rows' scores can be added first:
        # Q lambda_c + Q lambda_p = (Q K^T + Q E^T) V, and no lambda is ever held.
        scores = torch.einsum("bnhk,nmk->bnhm", q, self.position_table(size)).flatten(1, 2)
        scores = scores + q.flatten(1, 2) @ k.mT
        return (scores @ v).view(x.shape)

    def position_table(self, size: tuple[int, int]) -> Tensor:
        """E_pos for an H x W map, (N, M, k): the trained one, or resampled to another size."""
        return resample(self.rel_pos_emb.squeeze(-1), self.size, size)

    def einsum_macs(self, x: Tensor, context: Tensor, size: tuple[int, int]) -> int:
        """MACs of Eq. 2 that no layer shows, in the order it is written: E_pos V before Q."""
        batch, tokens, dim = x.shape
        rows, width = context.shape[1], dim // self.heads
        lambdas = width * width * rows * (1 + tokens)
        return batch * (lambdas + 2 * self.heads * tokens * width * width)


def resample(table: Tensor, trained: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """A position table (N, M, k) of one map for another; itself where they are the same."""
    if tuple(size) == trained:
        return table
    if trains(table):
        return _resample_by_products(table, trained, size)
    grid = rearrange(table, "(y x) m k -> 1 (m k) y x", y=trained[0])
    grid = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    return rearrange(grid, "1 (m k) y x -> (y x) m k", k=table.shape[-1])


def _resample_by_products(table: Tensor, trained: tuple[int, ...], size: tuple[int, int]) -> Tensor:
    """The same by a product along each side, whose gradients are products, too.

    Its positions lie one behind the other, as batched products want them: those of the
    interpolated map, channels first, would be copied and multiplied one by one.
    """
    exact = torch.promote_types(table.dtype, torch.float32)
    down, across = (
        _bicubic(old, new, exact, table.device) for old, new in zip(trained, size, strict=True)
    )
    with torch.autocast(table.device.type, enabled=False):
        rows = down @ table.to(exact).reshape(trained[0], -1)
        grid = across @ rows.view(size[0], trained[1], -1)
    return grid.view(size[0] * size[1], *table.shape[1:]).to(table.dtype)


@lru_cache(maxsize=32)
def _bicubic(old: int, new: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Weights of `old` samples in `new` ones, (new, old): the interpolated unit vectors."""
    with torch.no_grad():
        units = torch.eye(old, dtype=dtype, device=device)[None, :, :, None]
        made = F.interpolate(units, size=(new, 1), mode="bicubic", align_corners=False)
    return made[0, :, :, 0].mT.contiguous()
