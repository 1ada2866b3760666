"""Activations and depthwise maps, made again in the backward pass instead of being kept for it.

Autograd would keep what an activation makes beside what it is made of: of Mix-FFN, five maps of
the hidden width in all, where one is enough. Depthwise convolutions cost little beside the products
around them. The functions follow autocast through the weights they are given.

Shapes: B batch, C and F channels, H x W map.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from moebius.blocks.products import product


def trains(x: Tensor) -> bool:
    """Whether something would be kept for a backward pass, and nobody records operators."""
    return (
        torch.is_grad_enabled()
        and x.requires_grad
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def depthwise_of_silu(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """conv(silu(x)) of a depthwise convolution, (B, C, H, W) -> (B, C, H', W')."""
    weight, bias = _as_autocast(x.device.type, conv.weight, conv.bias)
    x = x.to(weight.dtype)
    assert isinstance(conv.padding, tuple)
    options = conv.stride, conv.padding, conv.dilation, conv.groups
    return _DepthwiseOfSilu.apply(x, weight, bias, options)


def pointwise_of_normalised(x: Tensor, norm: nn.BatchNorm2d, conv: nn.Conv2d) -> Tensor:
    """conv(relu(norm(x))) of a 1x1 convolution without bias, (B, C, H, W) -> (B, C', H, W).

    As `norm` does, it keeps running statistics where it trains, and takes them where it does not.
    """
    assert norm.momentum is not None and norm.num_batches_tracked is not None
    if norm.training:
        norm.num_batches_tracked.add_(1)
    (weight,) = _as_autocast(x.device.type, conv.weight)
    running = norm.running_mean, norm.running_var, norm.training, norm.momentum, norm.eps
    return _PointwiseOfNormalised.apply(
        x.to(weight.dtype), norm.weight, norm.bias, weight.flatten(1), running
    )


def gated_of_silu(x: Tensor, depthwise: nn.Conv2d, pointwise: nn.Conv2d) -> Tensor:
    """pointwise(value * silu(gate)), value and gate the halves of depthwise(silu(x)).

    (B, 2F, H, W) -> (B, C, H, W); the 1x1 convolution has no bias.
    """
    weight, bias, closing = _as_autocast(
        x.device.type, depthwise.weight, depthwise.bias, pointwise.weight
    )
    assert isinstance(depthwise.padding, tuple)
    options = depthwise.stride, depthwise.padding, depthwise.dilation, depthwise.groups
    return _GatedOfSilu.apply(x.to(weight.dtype), weight, bias, closing.flatten(1), options)


def of_normalised(operator: nn.Module, norm: nn.LayerNorm, x: Tensor, *inputs: Any) -> Tensor:
    """operator(norm(x), *inputs), (B, N, C); norm(x) is made again from x, which norm keeps.

    Where others look after what is kept (checkpointing, offloading), it is left to them.
    """
    y, source = norm(x), x.detach()
    others = torch._C._autograd._top_saved_tensors_default_hooks(True)
    if not trains(y) or others is not None:
        return operator(y, *inputs)
    # Not y itself: whoever keeps something keeps the hook, too.
    own, dtype = y.untyped_storage().data_ptr(), y.dtype

    def pack(kept: Tensor) -> Any:
        if kept.dtype != dtype or kept.untyped_storage().data_ptr() != own:
            return kept
        return kept.size(), kept.stride(), kept.storage_offset()

    def unpack(kept: Any) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        with torch.no_grad():
            return norm.forward(source).as_strided(*kept)

    with saved_tensors_hooks(pack, unpack):
        return operator(y, *inputs)


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


class _PointwiseOfNormalised(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, closing: Tensor, running: tuple[Any, ...]
    ) -> Tensor:
        means, variances, training, momentum, eps = running
        y, mean, deviation = torch.native_batch_norm(
            x, weight, bias, means, variances, training, momentum, eps
        )
        if not training:  # a CPU gives none
            mean, deviation = means.clone(), (variances + eps).rsqrt()
        ctx.save_for_backward(x, weight, bias, closing, mean, deviation)
        ctx.running = means, variances, training, eps
        return product(y.relu_().permute(0, 2, 3, 1), closing).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, closing, mean, deviation = ctx.saved_tensors
        means, variances, training, eps = ctx.running
        scale = weight * deviation
        shift = (bias - mean * scale)[:, None, None]
        active = torch.addcmul(shift, x, scale[:, None, None]).relu_().to(x.dtype)
        rows, of_closing = grad.permute(0, 2, 3, 1), None
        if ctx.needs_input_grad[3]:
            of_closing = product(rows.flatten(0, 2).mT, active.permute(0, 2, 3, 1).flatten(0, 2).mT)
        of_y = product(rows, closing.mT).permute(0, 3, 1, 2)
        of_y = torch.ops.aten.threshold_backward(of_y, active, 0)
        of_x, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            of_y, x, weight, means, variances, mean, deviation, training, eps,
            ctx.needs_input_grad[:3],
        )  # fmt: skip
        return of_x, of_weight, of_bias, of_closing, None


class _GatedOfSilu(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        closing: Tensor,
        options: tuple[Any, ...],
    ) -> Tensor:
        ctx.save_for_backward(x, weight, bias, closing)
        ctx.options = options
        value, gate = F.conv2d(F.silu(x), weight, bias, *options).chunk(2, dim=1)
        return product((value * F.silu(gate)).permute(0, 2, 3, 1), closing).permute(0, 3, 1, 2)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, closing = ctx.saved_tensors
        *options, groups = ctx.options
        activated, rows = F.silu(x), grad.permute(0, 2, 3, 1)
        mixed = F.conv2d(activated, weight, bias, *ctx.options)
        value, gate = mixed.chunk(2, dim=1)
        active, of_closing = F.silu(gate), None
        if ctx.needs_input_grad[3]:
            gated = (value * active).permute(0, 2, 3, 1).flatten(0, 2)
            of_closing = product(rows.flatten(0, 2).mT, gated.mT)
            del gated
        of_gated = product(rows, closing.mT).permute(0, 3, 1, 2)
        of_mixed = torch.empty_like(mixed)
        of_value, of_gate = of_mixed.chunk(2, dim=1)
        torch.mul(of_gated, active, out=of_value)
        of_gate.copy_(torch.ops.aten.silu_backward(of_gated.mul_(value), gate))
        del mixed, value, gate, active, of_gated
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            of_mixed, activated, weight, None if bias is None else list(bias.shape),
            *options, False, [0, 0], groups, ctx.needs_input_grad[:3],
        )  # fmt: skip
        if of_x is not None:
            of_x = torch.ops.aten.silu_backward(of_x, x)
        return of_x, of_weight, of_bias, of_closing, None
