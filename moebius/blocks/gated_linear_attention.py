"""Gated linear attention, the teacher's self mixer (Yang et al. 2024, arXiv 2312.06635).

Shapes: B batch, N tokens, C channels, h heads, k = C/2h key width, v = C/h value width.
"""

from importlib.util import find_spec

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.local_lambda import head_width
from moebius.blocks.registry import register

GATE_NORMALIZER = 16
GATE_RANK = 16
CHUNK = 32
"""Tokens a chunk: exact in float32 while gate logits stay above about -170."""


@register("self", "gla")
class GatedLinearAttention(nn.Module):
    """Causal gated linear attention over the raster order of the tokens.

    Args:
        dim: channels C, divisible by twice `heads`.
        heads: heads h.
    """

    def __init__(self, dim: int, heads: int = 8) -> None:
        super().__init__()
        self.heads, half = heads, heads * head_width(dim // 2, heads)
        self.q_proj = nn.Linear(dim, half, bias=False)
        self.k_proj = nn.Linear(dim, half, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.g_proj = nn.Linear(dim, dim, bias=False)
        self.gk_proj = nn.Sequential(
            nn.Linear(dim, GATE_RANK, bias=False), nn.Linear(GATE_RANK, half)
        )
        self.g_norm_swish_gate = nn.RMSNorm(dim // heads, eps=1e-6)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C); `size` is not used, the order of the tokens is."""
        projections = (self.q_proj, self.k_proj, self.v_proj)
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in projections)
        gate = F.logsigmoid(self.gk_proj(x)).unflatten(-1, (self.heads, -1)) / GATE_NORMALIZER
        y = self.g_norm_swish_gate(gated_linear_attention(q, k, v, gate)).flatten(2)
        return self.o_proj(y * F.silu(self.g_proj(x)))

    def einsum_macs(self, x: Tensor, size: tuple[int, int]) -> int:
        """MACs of the recurrence: decay the state, add the outer product, read it."""
        batch, tokens, dim = x.shape
        return batch * tokens * 3 * (dim // 2) * (dim // self.heads)


def gated_linear_attention(q: Tensor, k: Tensor, v: Tensor, log_gate: Tensor) -> Tensor:
    """S_t = diag(exp g_t) S_{t-1} + k_t^T v_t;  o_t = k^-1/2 q_t S_t, with S_0 = 0.

    Args:
        q, k, log_gate: (B, N, h, k), log gates at most 0.
        v: (B, N, h, v).

    Returns:
        (B, N, h, v). flash-linear-attention's kernel on CUDA where it is installed, else chunks.
    """
    if q.is_cuda and find_spec("fla") is not None:
        from fla.ops.gla import chunk_gla  # type: ignore[import-not-found]

        return chunk_gla(q, k, v, log_gate, scale=q.shape[-1] ** -0.5)[0]
    return chunked_gla(q, k, v, log_gate)


def chunked_gla(q: Tensor, k: Tensor, v: Tensor, log_gate: Tensor, chunk: int = CHUNK) -> Tensor:
    """The recurrence of `gated_linear_attention`, by matrix products inside chunks of tokens."""
    tokens, dtype = q.shape[1], v.dtype
    padding = -tokens % chunk
    q, k, v, g = (
        rearrange(F.pad(t.float(), (0, 0, 0, 0, 0, padding)), "b (n c) h d -> b h n c d", c=chunk)
        for t in (q * q.shape[-1] ** -0.5, k, v, log_gate)
    )
    decay = g.cumsum(dim=3)
    last = decay[..., -1:, :]
    # Decays relative to the chunk's middle halve the exponents' range on either side.
    middle = decay[..., chunk // 2 : chunk // 2 + 1, :]
    scores = (q * (decay - middle).exp()) @ (k * (middle - decay).exp()).transpose(-1, -2)
    inside = scores.tril() @ v
    added = (k * (last - decay).exp()).transpose(-1, -2) @ v
    kept = last.exp().transpose(-1, -2)
    state, before = torch.zeros_like(added[:, :, 0]), []
    for n in range(added.shape[2]):
        before.append(state)
        state = kept[:, :, n] * state + added[:, :, n]
    y = inside + (q * decay.exp()) @ torch.stack(before, dim=2)
    return rearrange(y, "b h n c d -> b (n c) h d")[:, :tokens].to(dtype)
