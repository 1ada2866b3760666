"""Mix-FFN's activations, made again in the backward pass instead of being kept for it.

Autograd would keep what an activation makes beside what it is made of, five maps of the hidden
width in all; two are enough. Both functions follow autocast through the weights they are given.

Shapes: B batch, C and F channels, H x W map.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.products import product


def depthwise_of_silu(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """conv(silu(x)) of a depthwise convolution, (B, C, H, W) -> (B, C, H', W')."""
    weight, bias = _as_autocast(x.device.type, conv.weight, conv.bias)
    x = x.to(weight.dtype)
    assert isinstance(conv.padding, tuple)
    options = conv.stride, conv.padding, conv.dilation, conv.groups
    return _DepthwiseOfSilu.apply(x, weight, bias, options)


def pointwise_of_gated(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """conv(value * silu(gate)) of a 1x1 convolution without bias, value and gate the halves of x.

    (B, 2F, H, W) -> (B, C, H, W).
    """
    (weight,) = _as_autocast(x.device.type, conv.weight)
    return _PointwiseOfGated.apply(x.to(weight.dtype), weight.flatten(1))


def _as_autocast(device: str, *parameters: Any) -> list[Any]:
    """Parameters in the type that autocast would run their product in."""
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return list(parameters)
    dtype = torch.get_autocast_dtype(device)
    return [None if p is None else p.to(dtype) for p in parameters]


class _DepthwiseOfSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options, ctx.outputs = options, None if bias is None else list(bias.shape)
        return F.conv2d(F.silu(x), weight, bias, *options)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        *options, groups = ctx.options
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grad, F.silu(x), weight, ctx.outputs, *options, False, [0, 0], groups,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        if of_x is not None:
            of_x = torch.ops.aten.silu_backward(of_x, x)
        return of_x, of_weight, of_bias, None


class _PointwiseOfGated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        value, gate = x.chunk(2, dim=1)
        return product((value * F.silu(gate)).permute(0, 2, 3, 1), weight).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        value, gate = x.chunk(2, dim=1)
        active, rows = F.silu(gate), grad.permute(0, 2, 3, 1)
        of_x = of_weight = None
        if ctx.needs_input_grad[1]:
            gated = (value * active).permute(0, 2, 3, 1).flatten(0, 2)
            of_weight = product(rows.flatten(0, 2).mT, gated.mT)
            del gated
        if ctx.needs_input_grad[0]:
            of_gated = product(rows, weight.mT).permute(0, 3, 1, 2)
            of_x = torch.empty_like(x)
            of_value, of_gate = of_x.chunk(2, dim=1)
            torch.mul(of_gated, active, out=of_value)
            of_gate.copy_(torch.ops.aten.silu_backward(of_gated.mul_(value), gate))
        return of_x, of_weight
