"""The blocks' inference forms: the same functions, with what no step changes done once.

BatchNorms are folded into their convolutions, 1x1 convolutions are products over tokens, 3x3 ones
products over tiles; maps stay in channels-last order, large ones are worked on by bands and sums
made in place, and Interactive-lambda keeps what it makes of a context. Operators that have no form
here (GLA, attention, a user's own) stay as they are, but for the products in them.
"""

from collections.abc import Callable
from copy import deepcopy
from typing import Any, TypeVar

import torch
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from moebius.blocks import (
    DenseConv,
    DepthwiseSeparableConv,
    InteractiveLambda,
    LocalLambda,
    MixFeedForward,
    MixingBlock,
    ResidualBlock,
    SpatialMixer,
    products,
)
from moebius.blocks.interactive_lambda import resample
from moebius.models.bands import (
    Assembled,
    Band,
    BandedOperator,
    Put,
    Read,
    around,
    bands,
    read_normalised,
)
from moebius.models.fused_products import PointwiseConv, Product
from moebius.models.unet import PairedStage
from moebius.models.upsampling import UpsampledConv
from moebius.models.winograd import WinogradConv, is_taken

Size = tuple[int, int]
Model = TypeVar("Model", bound=nn.Module)


class FoldedConv(nn.Module):
    """`DepthwiseSeparableConv` with both BatchNorms inside its convolutions."""

    def __init__(self, conv: DepthwiseSeparableConv) -> None:
        super().__init__()
        self.residual = conv.residual
        self.depthwise = nn.utils.fusion.fuse_conv_bn_eval(conv.conv_dw, conv.bn1)
        self.pointwise = _folded(conv.conv_pw, conv.bn2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W)."""
        return self.inner(x.permute(0, 2, 3, 1), slice(0, x.shape[2])).permute(0, 3, 1, 2)

    def inner(self, seen: Tensor, rows: slice) -> Tensor:
        """Some rows' outputs from a map that holds their neighbours: (B, H, W, C) of both."""
        y = F.relu_(self.depthwise(seen.permute(0, 3, 1, 2))).permute(0, 2, 3, 1)[:, rows]
        y = self.pointwise(y)
        return y.add_(seen[:, rows]) if self.residual else y


class FoldedLocalLambda(BandedOperator):
    """`LocalLambda` with its BatchNorms folded into products over tokens."""

    def __init__(self, operator: LocalLambda) -> None:
        super().__init__(operator.to_q.out_channels)
        self.heads, self.pos_conv = operator.heads, operator.pos_conv
        self.to_q = _folded(operator.to_q, operator.norm_q)
        self.to_k = Product(operator.to_k)
        self.to_v = _folded(operator.to_v, operator.norm_v)

    def run(self, read: Read, put: Put, cut: list[Band], size: Size) -> None:  # type: ignore[override]
        keys, values = (Assembled(cut[-1][0].stop, size[0]) for _ in range(2))
        for band in cut:
            seen = read(*band)
            keys.put(*band, self.to_k(seen))
            values.put(*band, self.to_v(seen))
        v = values.map
        assert self.pos_conv.bias is not None
        content = keys.map.flatten(1, 2).softmax(dim=1).mT @ v.flatten(1, 2)
        content += self.pos_conv.bias[:, None]
        for samples, rows in cut:
            q = self.to_q(read(samples, rows)).unflatten(3, (self.heads, -1))
            y = self.pos_conv(q, v[samples], rows.start).flatten(1, 3)
            y.baddbmm_(q.flatten(1, 3), content[samples])
            put(samples, rows, y.view(*q.shape[:3], -1))


class FoldedInteractiveLambda(BandedOperator):
    """`InteractiveLambda` with its BatchNorms folded, and all that a context fixes kept."""

    def __init__(self, operator: InteractiveLambda) -> None:
        super().__init__(operator.to_q.out_channels)
        self.heads, self.size, self.rel_pos_emb = (
            operator.heads,
            operator.size,
            operator.rel_pos_emb,
        )
        self.to_k, self.to_v, self.norm_v = operator.to_k, operator.to_v, operator.norm_v
        self.to_q = _folded(operator.to_q, operator.norm_q)
        self.kept = WeakIdKeyDictionary()

    def run(  # type: ignore[override]
        self, read: Read, put: Put, cut: list[Band], context: Tensor, size: Size
    ) -> None:
        table, values = self._of_context(context, size)
        for samples, rows in cut:
            q = self.to_q(read(samples, rows)).unflatten(3, (self.heads, -1))
            scores = q.flatten(0, 2) @ table[samples, rows].flatten(0, 2).mT
            y = scores.view(q.shape[0], -1, scores.shape[2]) @ values[samples]
            put(samples, rows, y.view(*q.shape[:3], -1))

    @torch.compiler.disable  # it works once a context, and a weak dictionary cannot be traced
    def _of_context(self, context: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """What Q and then the scores are multiplied by: (B, H, W, M, k) and (B, M, v)."""
        kept = self.kept.setdefault(context, {})
        if size not in kept:
            keys = self.to_k(context).softmax(dim=1)
            values = self.norm_v(self.to_v(context).mT).mT.contiguous()
            # Q lambda_c + Q lambda_p = (Q (K + E)^T) V: the rows of both can be added up front.
            rows = resample(self.rel_pos_emb.squeeze(-1), self.size, size) + keys[:, None]
            # A resampled table's order would have every position multiplied by itself.
            kept[size] = rows.unflatten(1, size).contiguous(), values
        return kept[size]


class FusedMixFeedForward(BandedOperator):
    """`MixFeedForward` over tokens, gates and values apart: half of its hidden map at a time."""

    def __init__(self, operator: MixFeedForward) -> None:
        expand, depthwise = operator.inverted_conv.conv, operator.depth_conv.conv
        hidden = operator.point_conv.conv.in_channels
        super().__init__(hidden)
        halves = slice(0, hidden), slice(hidden, None)
        self.expand = nn.ModuleList(Product(_outputs(expand, half), "swish") for half in halves)
        self.depthwise = nn.ModuleList(_outputs(depthwise, half) for half in halves)
        self.contract = Product(operator.point_conv.conv)

    def run(self, read: Read, put: Put, cut: list[Band], size: Size) -> None:  # type: ignore[override]
        ahead = None
        for index, (samples, rows) in enumerate(cut):
            seen, inner = around(rows, size[0])
            x = read(samples, seen) if ahead is None else ahead
            if index + 1 < len(cut):
                # Read one ahead: what a band puts may change the rows that the next one sees.
                after = cut[index + 1]
                ahead = read(after[0], around(after[1], size[0])[0])
            value, gate = self._hidden(x, 0)[:, inner], self._hidden(x, 1)[:, inner]
            put(samples, rows, self.contract(value.mul_(F.silu(gate, inplace=True))))

    def _hidden(self, x: Tensor, half: int) -> Tensor:
        """Values or gates, (b, h, W, C) -> (b, h, W, F)."""
        y = self.expand[half](x).permute(0, 3, 1, 2)
        return self.depthwise[half](y).permute(0, 2, 3, 1)


class FusedMixingBlock(nn.Module):
    """`MixingBlock` whose tokens become its output in place."""

    def __init__(self, block: MixingBlock) -> None:
        super().__init__()
        self.norm1, self.attn1 = block.norm1, block.attn1
        self.norm2, self.attn2 = block.norm2, block.attn2
        self.norm3, self.ff = block.norm3, block.ff

    def forward(self, x: Tensor, context: Tensor, size: Size) -> Tensor:
        """x (B, N, C), context (B, M, D) -> x, overwritten."""
        _add(x, self.norm1, self.attn1, size)
        _add(x, self.norm2, self.attn2, context, size)
        _add(x, self.norm3, self.ff, size)
        return x


def _add(x: Tensor, norm: nn.Module, operator: nn.Module, *inputs: Any) -> None:
    if isinstance(operator, BandedOperator):
        operator.add_to(x, norm, *inputs)
    else:
        x.add_(operator(norm(x), *inputs))


class FusedSpatialMixer(nn.Module):
    """`SpatialMixer` whose map becomes its output in place."""

    def __init__(self, mixer: SpatialMixer) -> None:
        super().__init__()
        self.norm, self.transformer_blocks = mixer.norm, mixer.transformer_blocks
        self.proj_in, self.proj_out = Product(mixer.proj_in), Product(mixer.proj_out)

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x (B, C, H, W), context (B, M, D) -> x, overwritten."""
        grid = x.permute(0, 2, 3, 1)
        batch, *size, channels = grid.shape
        cut = bands(grid, channels)
        read, tokens = read_normalised(self.norm, grid, cut), Assembled(batch, size[0])
        for band in cut:
            tokens.put(*band, self.proj_in(read(*band)))
        y = tokens.map.flatten(1, 2)
        for block in self.transformer_blocks:
            y = block(y, context, tuple(size))
        for band in cut:
            grid[band].add_(self.proj_out(y.unflatten(1, size)[band]))
        return x


class FusedResidualBlock(nn.Module):
    """`ResidualBlock` with folded convolutions."""

    def __init__(self, block: ResidualBlock) -> None:
        super().__init__()
        assert isinstance(block.conv1, DepthwiseSeparableConv)
        assert isinstance(block.conv2, DepthwiseSeparableConv)
        self.norm1, self.conv1 = block.norm1, FoldedConv(block.conv1)
        self.norm2, self.conv2 = block.norm2, FoldedConv(block.conv2)
        self.time_emb_proj = block.time_emb_proj
        shortcut = block.conv_shortcut
        self.shortcut = None if shortcut is None else Product(shortcut)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """x (B, C_in, H, W), time (B, T) -> (B, C_out, H, W)."""
        grid = x.permute(0, 2, 3, 1)
        shift = self.time_emb_proj(F.silu(time))[:, None, None]
        y = _convolved(grid, self.norm1, self.conv1, lambda samples, _: shift[samples])
        y = _convolved(
            y, self.norm2, self.conv2,
            lambda *band: grid[band] if self.shortcut is None else self.shortcut(grid[band]),
        )  # fmt: skip
        return y.permute(0, 3, 1, 2)


def _convolved(x: Tensor, norm: nn.GroupNorm, conv: FoldedConv, plus: Read) -> Tensor:
    """conv(silu(norm(x))) + plus, (B, H, W, C_in) -> (B, H, W, C_out)."""
    cut, out = bands(x, x.shape[3]), Assembled(*x.shape[:2])
    read = read_normalised(norm, x, cut)
    for samples, rows in cut:
        seen, inner = around(rows, x.shape[1])
        y = conv.inner(F.silu(read(samples, seen), inplace=True), inner)
        out.put(samples, rows, y.add_(plus(samples, rows)))
    return out.map


def _outputs(conv: nn.Conv2d, part: slice) -> nn.Conv2d:
    """Some output channels of a pointwise or depthwise convolution, on its own weights."""
    weight = conv.weight.detach()[part]
    channels, side = len(weight), weight.shape[2]
    inputs, groups = (conv.in_channels, 1) if conv.groups == 1 else (channels, channels)
    some = nn.Conv2d(
        inputs, channels, side, padding=side // 2, groups=groups, bias=conv.bias is not None,
        device="meta",
    )  # fmt: skip
    some.weight = nn.Parameter(weight, requires_grad=False)
    if conv.bias is not None:
        some.bias = nn.Parameter(conv.bias.detach()[part], requires_grad=False)
    return some


def _is_pointwise(conv: nn.Conv2d) -> bool:
    plain = (conv.kernel_size, conv.stride, conv.groups) == ((1, 1), (1, 1), 1)
    return plain and conv.padding == (0, 0)


def _product_form(conv: products.Conv2d) -> nn.Module:
    if _is_pointwise(conv):
        return PointwiseConv(conv)
    # Small tiles: a denoiser's kernels are many, and its steps add their errors up.
    return WinogradConv(conv, tile=2) if is_taken(conv) else conv


def _is_separable(block: ResidualBlock) -> bool:
    return {type(block.conv1), type(block.conv2)} == {DepthwiseSeparableConv}


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Product:
    return Product(nn.utils.fusion.fuse_conv_bn_eval(conv, norm))


FORMS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    DenseConv: _product_form,
    DepthwiseSeparableConv: FoldedConv,
    InteractiveLambda: FoldedInteractiveLambda,
    LocalLambda: FoldedLocalLambda,
    MixFeedForward: FusedMixFeedForward,
    MixingBlock: FusedMixingBlock,
    ResidualBlock: lambda block: FusedResidualBlock(block) if _is_separable(block) else block,
    SpatialMixer: FusedSpatialMixer,
    Upsample2D: UpsampledConv,
    # A codec's, whose maps are large beside its kernels; a denoiser's are `products.Conv2d`.
    nn.Conv2d: lambda conv: WinogradConv(conv, tile=4) if is_taken(conv) else conv,
    products.Conv2d: _product_form,
    products.Linear: Product,
}


def inference_form(model: Model) -> Model:
    """A copy of a model in eval mode that is made of inference forms, without gradients.

    Weights that no form changes are shared with it: once it was trained on, make another.
    """
    shared = {id(p): nn.Parameter(p.detach(), False) for p in model.parameters()}
    form = deepcopy(model, shared).eval()  # type: ignore[arg-type]
    use_inference_forms(form)
    return form


def use_inference_forms(model: nn.Module) -> None:
    """Puts the inference form of everything inside a model that has one in its place."""
    for name, child in model.named_children():
        if type(child) in FORMS:
            child = FORMS[type(child)](child)
            setattr(model, name, child)
        use_inference_forms(child)
    if isinstance(model, PairedStage):
        model.pair()
