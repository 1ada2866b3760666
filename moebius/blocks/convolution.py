"""The conv slot: 3x3 convolutions, dense or depthwise-separable, and the block around them."""

from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.products import Conv2d
from moebius.blocks.recomputed import depthwise_of_silu, pointwise_of_normalised, trains
from moebius.blocks.registry import OperatorSpec, create, register


@register("conv", "conv")
class DenseConv(Conv2d):
    """3x3 convolution with bias."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)


@register("conv", "dw_conv")
class DepthwiseSeparableConv(nn.Module):
    """Depthwise 3x3, BN, ReLU, 1x1, BN; plus its input where the widths are equal."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_dw = nn.Conv2d(
            in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
        )
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv_pw = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.residual = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        return self._rest(self.conv_dw(x), x)

    def of_silu(self, x: Tensor) -> Tensor:
        """self(silu(x)), for which training keeps x alone."""
        return self._rest(depthwise_of_silu(x, self.conv_dw), F.silu(x))

    def _rest(self, mixed: Tensor, x: Tensor) -> Tensor:
        if type(self.bn1) is nn.BatchNorm2d and trains(mixed):
            y = pointwise_of_normalised(mixed, self.bn1, self.conv_pw)
        else:
            y = self.conv_pw(F.relu(self.bn1(mixed)))
        y = self.bn2(y)
        return x + y if self.residual else y


class ResidualBlock(nn.Module):
    """GroupNorm, SiLU, conv, + time, GroupNorm, SiLU, conv, + shortcut (DDPM's block).

    Args:
        in_channels, out_channels: widths; a 1x1 shortcut joins them where they differ.
        time_dim: width of the time embedding.
        conv: operator of the conv slot.
        groups: groups of both GroupNorms, eps 1e-5.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        time_dim: int,
        conv: OperatorSpec = "conv",
        groups: int = 32,
    ) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, in_channels, eps=1e-5)
        self.conv1 = create("conv", conv, in_channels=in_channels, out_channels=out_channels)
        self.time_emb_proj = nn.Linear(time_dim, out_channels)
        self.norm2 = nn.GroupNorm(groups, out_channels, eps=1e-5)
        self.conv2 = create("conv", conv, in_channels=out_channels, out_channels=out_channels)
        same = in_channels == out_channels
        self.conv_shortcut = None if same else nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, C_in, H, W), time (B, T) -> (B, C_out, H, W)."""
        y = _of_silu(self.conv1, self.norm1(x))
        y = y + self.time_emb_proj(F.silu(time))[:, :, None, None]
        y = _of_silu(self.conv2, self.norm2(y))
        return y + (x if self.conv_shortcut is None else self.conv_shortcut(x))


def _of_silu(conv: nn.Module, x: Tensor) -> Tensor:
    if isinstance(conv, DepthwiseSeparableConv) and trains(x):
        return conv.of_silu(x)
    return conv(F.silu(x))
