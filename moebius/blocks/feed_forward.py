"""The two feed-forward operators: GEGLU and Mix-FFN."""

from diffusers.models.attention import FeedForward
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.recomputed import gated_of_silu, trains
from moebius.blocks.registry import register


@register("ffn", "ffn")
class GegluFeedForward(FeedForward):
    """diffusers' GEGLU feed-forward, expansion 4, in the slot's form."""

    def __init__(self, dim: int, expansion: int = 4) -> None:
        super().__init__(dim, mult=expansion, activation_fn="geglu")

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:  # type: ignore[override]
        """(B, N, C) -> (B, N, C)."""
        return super().forward(x)


@register("ffn", "mix_ffn")
class MixFeedForward(nn.Module):
    """Mix-FFN: 1x1 conv, SiLU, depthwise 3x3, gated linear unit, 1x1 conv (Sec. 3).

    Args:
        dim: channels C.
        ratio: hidden width over `dim`, before the gate's doubling.
    """

    def __init__(self, dim: int, ratio: float = 2.5) -> None:
        super().__init__()
        hidden = int(dim * ratio)
        self.inverted_conv = _Conv(dim, 2 * hidden, 1)
        self.depth_conv = _Conv(2 * hidden, 2 * hidden, 3, padding=1, groups=2 * hidden)
        self.point_conv = _Conv(hidden, dim, 1, bias=False)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens of an H x W map -> (B, N, C)."""
        grid = rearrange(x, "b (y x) c -> b c y x", y=size[0])
        hidden = self.inverted_conv(grid)
        if trains(hidden):
            y = gated_of_silu(hidden, self.depth_conv.conv, self.point_conv.conv)
        else:
            value, gate = self.depth_conv(F.silu(hidden)).chunk(2, dim=1)
            y = self.point_conv(value * F.silu(gate))
        return rearrange(y, "b c y x -> b (y x) c")


class _Conv(nn.Module):
    """A convolution one level down, where released checkpoints keep it (`*.conv.weight`)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, **options: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, **options)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)
