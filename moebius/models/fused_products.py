"""Products over tokens for inference: those of `moebius.blocks.products`, with what follows fused.

Without gradients a compiler can follow them, bfloat16 takes the same way, and oneDNN applies the
activation itself; where it is not built in, `torch.nn.functional.linear` takes them.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.local_lambda import as_grid, as_tokens
from moebius.blocks.products import by_onednn

# Asked once: a compiler cannot follow the questions.
ONEDNN = torch.backends.mkldnn.is_available()
BFLOAT16 = ONEDNN and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
"""Whether this CPU computes in bfloat16."""

Activation = Literal["none", "relu", "swish"]

_AFTERWARDS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "relu": F.relu_,
    "swish": lambda x: F.silu(x, inplace=True),
}


class Product(nn.Linear):
    """A linear layer and what follows it, without gradients.

    Args:
        layer: a linear layer or a 1x1 convolution, whose weights it shares.
        activation: by oneDNN's name; `swish` is SiLU.
    """

    def __init__(self, layer: nn.Linear | nn.Conv2d, activation: Activation = "none") -> None:
        outputs, inputs = layer.weight.shape[:2]
        super().__init__(inputs, outputs, layer.bias is not None, device="meta")
        self.activation: Activation = activation
        self.weight = nn.Parameter(layer.weight.detach().flatten(1), requires_grad=False)
        if layer.bias is not None:
            self.bias = nn.Parameter(layer.bias.detach(), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) -> (..., outputs)."""
        if _onednn_takes(x):
            run = _traced if torch.compiler.is_compiling() else by_onednn
            return run(x, self.weight, self.bias, self.activation)
        return _AFTERWARDS[self.activation](super().forward(x))


class PointwiseConv(nn.Module):
    """A 1x1 convolution as a product over the tokens of a channels-last map."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.product = Product(conv)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C_in, H, W) -> (B, C_out, H, W), channels-last."""
        return as_grid(self.product(as_tokens(x)), (x.shape[2], x.shape[3]))


# A compiler takes oneDNN's own operator with weights in its packed form only.
@torch.library.custom_op("moebius::onednn_product", mutates_args=())
def _traced(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return by_onednn(x, weight, bias, activation)


@_traced.register_fake
def _shape(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


def _onednn_takes(x: Tensor) -> bool:
    if x.device.type != "cpu" or not ONEDNN:
        return False
    return x.dtype == torch.float32 or (x.dtype == torch.bfloat16 and BFLOAT16)
