"""Local-lambda: self mixing by a content lambda and a windowed position lambda (Eq. 1).

Shapes: B batch, N = H*W tokens, C channels, h heads, k = v = C/h, r window.
"""

from torch import Tensor, nn

from moebius.blocks.registry import register
from moebius.blocks.window_product import window_product


@register("self", "local_lambda")
class LocalLambda(nn.Module):
    """Local-lambda operator (Moebius Eq. 1; lambda layers: Bello 2021, arXiv 2102.08602).

    Args:
        dim: channels C, divisible by `heads`.
        heads: query heads h; keys and values are shared by all of them.
        window: odd side r of the position lambda's window.
    """

    def __init__(self, dim: int, heads: int = 8, window: int = 15) -> None:
        super().__init__()
        if window % 2 == 0:
            raise ValueError(f"local_lambda window must be odd, got {window}")
        self.heads, width = heads, head_width(dim, heads)
        self.to_q = nn.Conv2d(dim, dim, 1, bias=False)
        self.to_k = nn.Conv2d(dim, width, 1, bias=False)
        self.to_v = nn.Conv2d(dim, width, 1, bias=False)
        self.norm_q = nn.BatchNorm2d(dim)
        self.norm_v = nn.BatchNorm2d(width)
        self.pos_conv = PositionLambda(width, window)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens of an H x W map -> (B, N, C)."""
        grid = as_grid(x, size)
        q = as_tokens(self.norm_q(self.to_q(grid))).unflatten(2, (self.heads, -1))
        k = as_tokens(self.to_k(grid)).softmax(dim=1)
        v = as_tokens(self.norm_v(self.to_v(grid)))
        content = k.mT @ v
        q, v = q.to(content.dtype), v.to(content.dtype)  # under autocast, a product's type
        y = self.pos_conv(q.unflatten(1, size), v.unflatten(1, size)).flatten(1, 2)
        # The position lambda's bias is the same everywhere: it joins the content's.
        bias = self.pos_conv.bias
        assert bias is not None
        return (y + (q.flatten(1, 2) @ (content + bias[:, None])).view_as(y)).flatten(2)

    def einsum_macs(self, x: Tensor, size: tuple[int, int]) -> int:
        """MACs of Eq. 1 that no layer shows: softmax(K) V^T, Q lambda_c, Q lambda_p."""
        batch, tokens, dim = x.shape
        width = dim // self.heads
        return batch * tokens * width * width * (1 + 2 * self.heads)


class PositionLambda(nn.Conv3d):
    """The position lambda's convolution, 1 x r x r over (v, H, W), k outputs, applied to Q."""

    def __init__(self, width: int, window: int) -> None:
        half = window // 2
        super().__init__(1, width, (1, window, window), padding=(0, half, half))

    def forward(self, q: Tensor, v: Tensor, top: int = 0) -> Tensor:  # type: ignore[override]
        """Q (B, H, W, h, k), V (B, H, W, v) -> Q lambda_p without bias, (B, H, W, h, v).

        Q may be some of the map's rows, from row `top` on.
        """
        return window_product(q, v, self.weight[:, 0, 0].to(q.dtype), top)

    def conv_macs(self, q: Tensor, v: Tensor) -> int:
        """MACs of the convolution by its definition, whatever runs in its place."""
        return v.numel() * self.weight.numel()


def as_grid(x: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, N, C) tokens -> (B, C, H, W), the same memory in channels-last order."""
    return x.unflatten(1, size).permute(0, 3, 1, 2)


def as_tokens(x: Tensor) -> Tensor:
    """(B, C, H, W) -> (B, N, C), without a copy where the map is channels-last."""
    return x.permute(0, 2, 3, 1).flatten(1, 2)


def head_width(dim: int, heads: int) -> int:
    """Channels per head; a ValueError where `dim` does not divide."""
    if dim % heads:
        raise ValueError(f"width {dim} is not divisible by {heads} heads")
    return dim // heads
