"""The mixing block of Eq. 3, from any three operators, and its wrapper for feature maps."""

from einops import rearrange
from torch import Tensor, nn

from moebius.blocks.feed_forward import MixFeedForward
from moebius.blocks.interactive_lambda import InteractiveLambda
from moebius.blocks.local_lambda import LocalLambda
from moebius.blocks.recomputed import of_normalised


class MixingBlock(nn.Module):
    """X1 = Self(LN X) + X;  X2 = Cross(LN X1, E) + X1;  X3 = FFN(LN X2) + X2  (Eq. 3).

    Args:
        dim: channels C of the tokens.
        self_mixer, cross_mixer, feed_forward: operators of the three slots.
    """

    def __init__(
        self, dim: int, self_mixer: nn.Module, cross_mixer: nn.Module, feed_forward: nn.Module
    ) -> None:
        super().__init__()
        self.norm1, self.attn1 = nn.LayerNorm(dim), self_mixer
        self.norm2, self.attn2 = nn.LayerNorm(dim), cross_mixer
        self.norm3, self.ff = nn.LayerNorm(dim), feed_forward

    def forward(self, x: Tensor, context: Tensor, size: tuple[int, int]) -> Tensor:
        """x (B, N, C), context (B, M, D), size (H, W) with N = H*W -> (B, N, C)."""
        x = x + of_normalised(self.attn1, self.norm1, x, size)
        x = x + of_normalised(self.attn2, self.norm2, x, context, size)
        return x + of_normalised(self.ff, self.norm3, x, size)


class LambdaMixBlock(MixingBlock):
    """The paper's block: Local-lambda, Interactive-lambda, Mix-FFN (Fig. 3, Eq. 1-3).

    Args:
        dim: channels C, divisible by `heads`.
        context_dim: width D of a context row.
        heads: query heads.
        window: Local-lambda's window r.
        context_length: context rows M.
        size: (H, W) that Interactive-lambda's position table is trained at.
    """

    def __init__(
        self,
        dim: int,
        context_dim: int = 768,
        heads: int = 8,
        window: int = 15,
        context_length: int = 10,
        size: tuple[int, int] = (64, 64),
    ) -> None:
        cross = InteractiveLambda(dim, context_dim, heads, context_length, size)
        super().__init__(dim, LocalLambda(dim, heads, window), cross, MixFeedForward(dim))


class SpatialMixer(nn.Module):
    """GroupNorm, 1x1 conv, mixing block over the map's tokens, 1x1 conv, + input.

    `proj_out` closes the block: its weight is the anchor of the coarse loss (Eq. 5).
    """

    def __init__(self, dim: int, block: nn.Module, groups: int = 32) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(groups, dim, eps=1e-6)
        self.proj_in = nn.Conv2d(dim, dim, 1)
        self.transformer_blocks = nn.ModuleList([block])
        self.proj_out = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, C, H, W), context (B, M, D) -> (B, C, H, W)."""
        size = (x.shape[2], x.shape[3])
        tokens = rearrange(self.proj_in(self.norm(x)), "b c y x -> b (y x) c")
        for block in self.transformer_blocks:
            tokens = block(tokens, context, size)
        return x + self.proj_out(rearrange(tokens, "b (y x) c -> b c y x", y=size[0]))
