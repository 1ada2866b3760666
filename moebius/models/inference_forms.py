"""The blocks' inference forms: the same functions, with what no step changes done once.

BatchNorms are folded into their convolutions, 1x1 convolutions are products over tokens, maps stay
in channels-last order, and Interactive-lambda keeps what it makes of a context. Operators that
have no form here (GLA, attention, a user's own) stay as they are, but for the products in them.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from moebius.blocks import (
    DepthwiseSeparableConv,
    InteractiveLambda,
    LocalLambda,
    MixFeedForward,
    products,
)
from moebius.blocks.interactive_lambda import resample
from moebius.blocks.local_lambda import as_grid, as_tokens
from moebius.models.fused_products import PointwiseConv, Product
from moebius.models.upsampling import UpsampledConv

HIDDEN_BYTES = 2**25
"""What Mix-FFN's hidden map may hold on a CPU; from 32 MiB on, glibc asks the kernel for new pages
at every allocation, and filling them costs as much as the depthwise convolution."""


class FoldedConv(nn.Module):
    """`DepthwiseSeparableConv` with both BatchNorms inside its convolutions."""

    def __init__(self, conv: DepthwiseSeparableConv) -> None:
        super().__init__()
        self.residual = conv.residual
        self.depthwise = nn.utils.fusion.fuse_conv_bn_eval(conv.conv_dw, conv.bn1)
        self.pointwise = _folded(conv.conv_pw, conv.bn2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        y = as_tokens(F.relu_(self.depthwise(x)))
        y = as_grid(self.pointwise(y), (x.shape[2], x.shape[3]))
        return y.add_(x) if self.residual else y


class FoldedLocalLambda(nn.Module):
    """`LocalLambda` with its BatchNorms folded into products over tokens."""

    def __init__(self, operator: LocalLambda) -> None:
        super().__init__()
        self.heads, self.pos_conv = operator.heads, operator.pos_conv
        self.to_q = _folded(operator.to_q, operator.norm_q)
        self.to_k = Product(operator.to_k)
        self.to_v = _folded(operator.to_v, operator.norm_v)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        q, v = self.to_q(x).unflatten(2, (self.heads, -1)), self.to_v(x)
        assert self.pos_conv.bias is not None
        content = self.to_k(x).softmax(dim=1).mT @ v + self.pos_conv.bias[:, None]
        y = self.pos_conv(q.unflatten(1, size), v.unflatten(1, size)).flatten(1, 3)
        return y.baddbmm_(q.flatten(1, 2), content).view(x.shape)


class FoldedInteractiveLambda(nn.Module):
    """`InteractiveLambda` with its BatchNorms folded, and all that a context fixes kept."""

    def __init__(self, operator: InteractiveLambda) -> None:
        super().__init__()
        self.heads, self.size, self.rel_pos_emb = (
            operator.heads,
            operator.size,
            operator.rel_pos_emb,
        )
        self.to_k, self.to_v, self.norm_v = operator.to_k, operator.to_v, operator.norm_v
        self.to_q = _folded(operator.to_q, operator.norm_q)
        self.kept = WeakIdKeyDictionary()

    def forward(self, x: Tensor, context: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) tokens and (B, M, D) context -> (B, N, C)."""
        rows, values = self._of_context(context, size)
        q = self.to_q(x).unflatten(2, (self.heads, -1))
        scores = q.flatten(0, 1) @ rows.mT
        return (scores.unflatten(0, x.shape[:2]).flatten(1, 2) @ values).view(x.shape)

    @torch.compiler.disable  # it works once a context, and a weak dictionary cannot be traced
    def _of_context(self, context: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What Q and then the scores are multiplied by: (B N, M, k) and (B, M, v)."""
        kept = self.kept.setdefault(context, {})
        if size not in kept:
            keys = self.to_k(context).softmax(dim=1)
            values = self.norm_v(self.to_v(context).mT).mT.contiguous()
            # Q lambda_c + Q lambda_p = (Q (K + E)^T) V: the rows of both can be added up front.
            rows = resample(self.rel_pos_emb.squeeze(-1), self.size, size) + keys[:, None]
            # A resampled table's order would have every position multiplied by itself.
            kept[size] = rows.flatten(0, 1).contiguous(), values
        return kept[size]


class FusedMixFeedForward(nn.Module):
    """`MixFeedForward` over tokens, by bands of rows where its hidden map is large."""

    def __init__(self, operator: MixFeedForward) -> None:
        super().__init__()
        self.expand = Product(operator.inverted_conv.conv, "swish")
        self.depthwise = operator.depth_conv.conv
        self.contract = Product(operator.point_conv.conv)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        height, width = size
        grid, out = x.unflatten(1, size), torch.empty_like(x)
        row_bytes = width * self.expand.out_features * x.element_size()
        room = HIDDEN_BYTES // row_bytes if x.device.type == "cpu" else x.shape[0] * height
        for samples, rows in _bands(x.shape[0], height, room):
            # A row more on either side, where the map has one, for the 3x3 windows.
            top, bottom = max(rows.start - 1, 0), min(rows.stop + 1, height)
            seen = self.expand(grid[samples, top:bottom])
            mixed = self.depthwise(seen.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            value, gate = mixed[:, rows.start - top : rows.stop - top].chunk(2, dim=3)
            out.unflatten(1, size)[samples, rows] = self.contract(F.silu(gate).mul_(value))
        return out


def _bands(batch: int, height: int, room: int) -> Iterator[tuple[slice, slice]]:
    """Samples and rows that are worked on at once, `room` rows at most (and one at least)."""
    together = max(1, room // height)
    bands = -(-height // max(1, room))
    for first in range(0, batch, together):
        for band in range(bands):
            rows = slice(height * band // bands, height * (band + 1) // bands)
            yield slice(first, first + together), rows


def _is_pointwise(conv: nn.Conv2d) -> bool:
    plain = (conv.kernel_size, conv.stride, conv.groups) == ((1, 1), (1, 1), 1)
    return plain and conv.padding == (0, 0)


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Product:
    return Product(nn.utils.fusion.fuse_conv_bn_eval(conv, norm))


FORMS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    DepthwiseSeparableConv: FoldedConv,
    InteractiveLambda: FoldedInteractiveLambda,
    LocalLambda: FoldedLocalLambda,
    MixFeedForward: FusedMixFeedForward,
    Upsample2D: UpsampledConv,
    products.Conv2d: lambda conv: PointwiseConv(conv) if _is_pointwise(conv) else conv,
    products.Linear: Product,
}


def use_inference_forms(model: nn.Module) -> None:
    """Puts the inference form of everything inside a model that has one in its place."""
    for name, child in model.named_children():
        if type(child) in FORMS:
            child = FORMS[type(child)](child)
            setattr(model, name, child)
        use_inference_forms(child)
