"""The inference form of a denoiser: the same function, with what no step changes done once.

BatchNorms are folded into their convolutions, 1x1 convolutions become products over tokens, maps
stay in channels-last order, and Interactive-lambda keeps what it makes of a context. Operators
that have no inference form here (the teacher's, a user's own) stay as they are.
"""

import logging
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.weak import WeakIdKeyDictionary

from moebius.blocks import DepthwiseSeparableConv, InteractiveLambda, LocalLambda, MixFeedForward
from moebius.blocks.interactive_lambda import resample
from moebius.blocks.local_lambda import as_grid, as_tokens
from moebius.models.denoiser import Denoiser, DenoiserOutput

logger = logging.getLogger(__name__)

CONTEXTS = 8
"""Contexts that are kept: one for each batch of categories that a sampler alternates between."""


class OptimizedDenoiser(nn.Module):
    """A frozen copy of a denoiser in its inference form; `Denoiser.optimized` makes one.

    Args:
        denoiser: stays as it is.
        dtype: of weights and work, `None` for the denoiser's own; inputs and outputs keep theirs.
        compiled: whether to run through `torch.compile`, as long as it works.
    """

    def __init__(
        self, denoiser: Denoiser, dtype: torch.dtype | None = None, compiled: bool = False
    ) -> None:
        super().__init__()
        self.architecture = denoiser.architecture
        model = deepcopy(denoiser).eval().requires_grad_(False)
        _replace(model)
        self.lcg, self.unet = model.lcg, model.unet
        self.project = self.unet.encoder_hid_proj
        self.unet.encoder_hid_proj = nn.Identity()  # contexts are kept as they come out of it
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if dtype is not None:
            self.to(_usable(dtype, denoiser.device))
        self._contexts: dict[tuple[Any, ...], Tensor] = {}
        self._compiled = _Compiled(self.unet) if compiled else None

    @torch.no_grad()
    def forward(
        self, sample: Tensor, timestep: Tensor | int, category_ids: Tensor
    ) -> DenoiserOutput:
        """As `Denoiser.forward`, without gradients."""
        steps = torch.as_tensor(timestep, device=sample.device).expand(sample.shape[0])
        own = sample.to(self.lcg.weight.dtype, memory_format=torch.channels_last)
        run = self._compiled or self.unet
        noise, features, border = run(own, steps, self.context(category_ids))
        return DenoiserOutput(noise.to(sample.dtype), features, border)

    def context(self, category_ids: Tensor) -> Tensor:
        """The projected context of a batch of categories; the same object every time."""
        key = (tuple(category_ids.shape), *category_ids.flatten().tolist())
        if key not in self._contexts:
            if len(self._contexts) == CONTEXTS:
                self._contexts.clear()
            self._contexts[key] = self.project(self.lcg(category_ids))
        return self._contexts[key]


class _Compiled:
    """A module through `torch.compile`; where that fails, itself, after one line of notice."""

    def __init__(self, module: nn.Module) -> None:
        self.plain, self.run = module, torch.compile(module)

    def __call__(self, *inputs: Tensor) -> Any:
        if self.run is not self.plain:
            try:
                return self.run(*inputs)
            except (
                Exception
            ) as error:  # whatever a backend raises; the inputs' own fault comes again
                reason = str(error).strip().partition("\n")[0]
                logger.warning("torch.compile failed, going on without it: %s", reason)
                self.run = self.plain
        return self.plain(*inputs)


class FoldedConv(nn.Module):
    """`DepthwiseSeparableConv` with both BatchNorms inside its convolutions."""

    def __init__(self, conv: DepthwiseSeparableConv) -> None:
        super().__init__()
        self.residual = conv.residual
        self.depthwise = nn.utils.fusion.fuse_conv_bn_eval(conv.conv_dw, conv.bn1)
        self.pointwise = _linear(nn.utils.fusion.fuse_conv_bn_eval(conv.conv_pw, conv.bn2))

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
        self.to_k = _linear(operator.to_k)
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

    def _of_context(self, context: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """What Q and then the scores are multiplied by: (B N, M, k) and (B, M, v)."""
        kept = self.kept.setdefault(context, {})
        if size not in kept:
            keys = self.to_k(context).softmax(dim=1)
            values = self.norm_v(self.to_v(context).mT).mT.contiguous()
            # Q lambda_c + Q lambda_p = (Q (K + E)^T) V: the rows of both can be added up front.
            rows = resample(self.rel_pos_emb.squeeze(-1), self.size, size) + keys[:, None]
            kept[size] = rows.flatten(0, 1), values
        return kept[size]


class FusedMixFeedForward(nn.Module):
    """`MixFeedForward` over tokens, its activations in place."""

    def __init__(self, operator: MixFeedForward) -> None:
        super().__init__()
        self.expand, self.contract = (
            _linear(part.conv) for part in (operator.inverted_conv, operator.point_conv)
        )
        self.depthwise = operator.depth_conv.conv

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """(B, N, C) -> (B, N, C)."""
        hidden = as_grid(F.silu(self.expand(x), inplace=True), size)
        value, gate = as_tokens(self.depthwise(hidden)).chunk(2, dim=2)
        return self.contract(F.silu(gate).mul_(value))


FORMS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    DepthwiseSeparableConv: FoldedConv,
    LocalLambda: FoldedLocalLambda,
    InteractiveLambda: FoldedInteractiveLambda,
    MixFeedForward: FusedMixFeedForward,
}


def _replace(model: nn.Module) -> None:
    """Puts every operator's inference form in its place."""
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if type(child) in FORMS:
                setattr(parent, name, FORMS[type(child)](child))


def _folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> nn.Linear:
    return _linear(nn.utils.fusion.fuse_conv_bn_eval(conv, norm))


def _linear(conv: nn.Conv2d) -> nn.Linear:
    """A 1x1 convolution as a product over tokens."""
    linear = nn.Linear(conv.in_channels, conv.out_channels, conv.bias is not None, device="meta")
    linear.weight = nn.Parameter(conv.weight.detach().flatten(1), requires_grad=False)
    if conv.bias is not None:
        linear.bias = nn.Parameter(conv.bias.detach(), requires_grad=False)
    return linear


def _usable(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    if dtype == torch.bfloat16 and device.type == "cpu" and not _has_bfloat16():
        logger.warning("this CPU has no bfloat16: the denoiser runs in float32")
        return torch.float32
    return dtype


def _has_bfloat16() -> bool:
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
