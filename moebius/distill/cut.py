"""One pass through the decoder: the student's graph, cut between its encoder and its head.

Eq. 4 and 5 need norms of gradients before the sum that is differentiated is known. Gradients are
linear, so none has to be taken twice: each loss is followed down to the prediction once, their
sum through the head to the border once, its norm at an anchor costs that anchor's layer alone,
and the backward pass of the total starts from what has arrived at the border.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Cut:
    """A student's prediction, and where what lies behind it is cut in two."""

    prediction: Tensor
    """What the output losses are taken of, in float32 at least."""
    border: Sequence[Tensor]
    """All that passes from the encoder to the head; theta_c lies below it."""
    head: Sequence[nn.Parameter]
    """Trained parameters above the border, theta_f among them."""

    def arriving(self, root: Tensor, gradient: Tensor | None = None, keep: bool = False) -> Arrived:
        """The gradient of `root`, weighed by `gradient`, at the border and in the head.

        Args:
            root: the prediction, or a scalar.
            gradient: of the total with respect to `root`; `None` for a scalar.
            keep: whether the head is to be passed again.
        """
        inputs = [t for t in (*self.border, *self.head) if t.requires_grad]
        grads = torch.autograd.grad(root, inputs, gradient, retain_graph=keep, allow_unused=True)
        pairs = zip(inputs, grads, strict=True)
        return Arrived({tensor: grad for tensor, grad in pairs if grad is not None})


class Arrived(dict[Tensor, Tensor]):
    """Gradients by the tensor that they belong to (tensors hash by identity)."""

    def at(self, anchor: nn.Parameter) -> Tensor | None:
        """The gradient of an anchor on either side of the border."""
        if anchor in self:
            return self[anchor]
        return gradient_at(anchor, list(self), list(self.values()))


def gradient_at(
    anchor: nn.Parameter, roots: Sequence[Tensor], gradients: Sequence[Tensor]
) -> Tensor | None:
    """What gradients of `roots` give at an anchor, `None` where it is not behind them."""
    following = [(r, g) for r, g in zip(roots, gradients, strict=True) if r.grad_fn is not None]
    if not following:
        return None
    roots, gradients = zip(*following, strict=True)
    (gradient,) = torch.autograd.grad(
        roots, anchor, gradients, retain_graph=True, allow_unused=True
    )
    return gradient


def with_gradient(value: Tensor, parts: Sequence[tuple[Tensor, Arrived]]) -> Tensor:
    """A scalar of this value whose gradient is the weighted sum of what has arrived.

    Its `backward()` is an ordinary one: gradients accumulate, and DDP's hooks see every parameter.
    """
    tensors = list(dict.fromkeys(tensor for _, arrived in parts for tensor in arrived))
    weighted = [
        [(weight, arrived[tensor]) for weight, arrived in parts if tensor in arrived]
        for tensor in tensors
    ]
    return _WithGradient.apply(value.detach(), weighted, *tensors)


class _WithGradient(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, value: Tensor, weighted: list[list[tuple[Tensor, Tensor]]], *tensors: Tensor
    ) -> Tensor:
        ctx.weighted = weighted
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor | None, ...]:
        weighted, ctx.weighted = ctx.weighted[::-1], None
        shares = Counter(_memory(g) for of_one in weighted for _, g in of_one)
        summed = []
        while weighted:  # each is freed as its sum is made
            (weight, first), *others = weighted.pop()
            # Scaled where it lies: to map fresh memory for a weight's gradient costs more.
            own = shares[_memory(first)] == 1 and first.is_contiguous()
            gradient = torch.mul(first, scale * weight, out=first if own else None)
            for weight, other in others:
                gradient = gradient + other * (scale * weight)
            summed.append(gradient)
        return None, None, *summed


def _memory(tensor: Tensor) -> int:
    """Which memory a tensor lies in: views of one have the same."""
    return tensor.untyped_storage().data_ptr()
