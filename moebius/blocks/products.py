"""Linears and convolutions as float32 products by oneDNN, where a CPU runs them.

PyTorch gives float32 products to MKL, which drives processors that are not Intel's at half their
width: 45 to 50 against oneDNN's 100 to 120 GMAC/s on a core of an AMD EPYC (Zen 5). And it gives
convolutions of few positions to kernels that reorder all weights first: 22 against 90 GMAC/s for
1280 channels at 8 x 8. Here all of them are the same product, and so are their gradients.

Shapes: B batch, M rows, C_in and C_out channels, H x W map.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

FEW_POSITIONS = 256
"""Up to this many, gathering windows costs less than reordering a convolution's weights."""


class Linear(nn.Linear):
    """`nn.Linear`, its products by `product`."""

    def forward(self, input: Tensor) -> Tensor:
        """(..., C_in) -> (..., C_out)."""
        return product(input, self.weight, self.bias)


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, as a `product` where it is pointwise or its map is small."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H', W')."""
        plain = self.groups == 1 and self.padding_mode == "zeros" and self.padding != "same"
        if input.ndim == 4 and plain and takes(input, self.weight):
            padding = (0, 0) if isinstance(self.padding, str) else self.padding
            if self.kernel_size == self.stride == (1, 1) and padding == (0, 0):
                rows = input.permute(0, 2, 3, 1)
                return product(rows, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
            size = self._output_size(input, padding)
            if input.shape[0] * size[0] * size[1] <= FEW_POSITIONS:
                options = self.kernel_size, self.dilation, padding, self.stride
                y = _SmallMap.apply(input, self.weight.flatten(1), self.bias, options)
                return y.unflatten(1, size).permute(0, 3, 1, 2)
        return super().forward(input)

    def _output_size(self, x: Tensor, padding: tuple[int, ...]) -> tuple[int, int]:
        height, width = (
            (side + 2 * pad - dilation * (kernel - 1) - 1) // stride + 1
            for side, pad, dilation, kernel, stride in zip(
                x.shape[2:], padding, self.dilation, self.kernel_size, self.stride, strict=True
            )
        )
        return height, width


def adopt(model: nn.Module) -> None:
    """Makes every plain `nn.Linear` and `nn.Conv2d` of a model one of these, weights and all."""
    ours = {nn.Linear: Linear, nn.Conv2d: Conv2d}
    for module in model.modules():
        if type(module) in ours:
            module.__class__ = ours[type(module)]


def takes(x: Tensor, weight: Tensor) -> bool:
    """Whether `product` runs by oneDNN: float32 on a CPU, and nobody records operators."""
    return (
        x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled("cpu")
        and torch.backends.mkldnn.is_available()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weight^T + bias: (..., C_in), (C_out, C_in), (C_out,) -> (..., C_out)."""
    if not takes(x, weight):
        return F.linear(x, weight, bias)
    rows = x.reshape(-1, x.shape[-1])
    y: Tensor
    if torch.is_grad_enabled() and (rows.requires_grad or weight.requires_grad):
        y = _Product.apply(rows, weight, bias)
    else:
        y = by_onednn(rows, weight, bias)
    return y.view(*x.shape[:-1], -1)


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(rows, weight)
        return by_onednn(rows, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, weight = ctx.saved_tensors
        of_rows, of_weight, of_bias = ctx.needs_input_grad
        return (
            by_onednn(grad, weight.mT) if of_rows else None,
            by_onednn(grad.mT, rows.mT) if of_weight else None,
            grad.sum(0) if of_bias else None,
        )


class _SmallMap(torch.autograd.Function):
    """A convolution's rows, (B, H' W', C_out); its windows are nine maps, so they are not kept."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, options: tuple[Any, ...]
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.options = options
        return product(F.unfold(x, *options).mT, weight, bias)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        of_x = of_weight = None
        rows = grad.flatten(0, 1)
        if ctx.needs_input_grad[0]:
            of_windows = product(grad, weight.mT).mT
            of_x = F.fold(of_windows, x.shape[2:], *ctx.options)  # type: ignore[arg-type]
        if ctx.needs_input_grad[1]:
            windows = F.unfold(x, *ctx.options).mT.flatten(0, 1)
            of_weight = product(rows.mT, windows.mT)
        return of_x, of_weight, rows.sum(0) if ctx.needs_input_grad[2] else None, None


def by_onednn(
    rows: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none"
) -> Tensor:
    """(..., C_in), (C_out, C_in) -> (..., C_out), in any strides, then oneDNN's activation."""
    return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, activation, [], "")
