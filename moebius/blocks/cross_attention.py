"""Multi-head cross-attention to the LCG context, the teacher's cross mixer."""

from diffusers.models.attention_processor import Attention
from torch import Tensor

from moebius.blocks.local_lambda import head_width
from moebius.blocks.registry import register


@register("cross", "cross_attention")
class CrossAttention(Attention):
    """diffusers' attention in the slot's form: queries, keys, values without bias, output with.

    Args:
        dim: channels C, divisible by `heads`.
        context_dim: width D of a context row.
        heads: attention heads.
    """

    def __init__(self, dim: int, context_dim: int, heads: int = 8) -> None:
        width = head_width(dim, heads)
        super().__init__(dim, cross_attention_dim=context_dim, heads=heads, dim_head=width)

    def forward(self, x: Tensor, context: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """(B, N, C) tokens and (B, M, D) context -> (B, N, C)."""
        return super().forward(x, encoder_hidden_states=context)

    def einsum_macs(self, x: Tensor, context: Tensor, size: tuple[int, int]) -> int:
        """MACs of the scores and of the weighted sum."""
        batch, tokens, dim = x.shape
        return 2 * batch * tokens * context.shape[1] * dim
