"""Operators in the form that a graph of any size can hold.

The forms that run in Python choose their pieces by shape and loop over them; a tracer would freeze
both. These are the same sums, written without a loop.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from einops import rearrange
from torch import Tensor
from torch.nn import functional as F

from moebius.blocks import InteractiveLambda, gated_linear_attention, local_lambda
from moebius.blocks.gated_linear_attention import CHUNK


@contextmanager
def graph_forms() -> Iterator[None]:
    """While it lasts, the operators run in the forms of this file."""
    swaps: tuple[tuple[Any, str, Callable[..., Tensor]], ...] = (
        (local_lambda, "window_product", window_lambda),
        (gated_linear_attention, "gated_linear_attention", gla_over_chunks),
        (InteractiveLambda, "position_table", resampled_table),
    )
    kept = [getattr(owner, name) for owner, name, _ in swaps]
    try:
        for owner, name, form in swaps:
            setattr(owner, name, form)
        yield
    finally:
        for (owner, name, _), form in zip(swaps, kept, strict=True):
            setattr(owner, name, form)


def window_lambda(q: Tensor, v: Tensor, kernel: Tensor, top: int = 0) -> Tensor:
    """The position lambdas of Eq. 1 by one convolution, applied to Q.

    Args:
        q: (B, H, W, h, k).
        v: (B, H, W, v).
        kernel: (k, R, S), odd sides.
        top: always 0: a graph works on whole maps.

    Returns:
        (B, H, W, h, v), what `moebius.blocks.window_product` returns.
    """
    assert top == 0
    width, channels = kernel.shape[0], v.shape[-1]
    padding = (kernel.shape[1] // 2, kernel.shape[2] // 2)
    # The channels of V join the batch: the window is the same for all, and 2-D runs everywhere.
    planes = v.permute(0, 3, 1, 2).flatten(0, 1).unsqueeze(1)
    lambdas = F.conv2d(planes, kernel.unsqueeze(1), padding=padding)
    lambdas = lambdas.unflatten(0, (-1, channels)).permute(0, 3, 4, 2, 1)
    assert lambdas.shape[-2:] == (width, channels)
    return q @ lambdas


def resampled_table(operator: InteractiveLambda, size: tuple[int, int]) -> Tensor:
    """E_pos for an H x W map, (N, M, k), resampled at the trained size too, where it is exact."""
    table = operator.rel_pos_emb.squeeze(-1)
    grid = rearrange(table, "(y x) m k -> 1 (m k) y x", y=operator.size[0])
    grid = F.interpolate(grid, size=size, mode="bicubic", align_corners=False)
    return rearrange(grid, "1 (m k) y x -> (y x) m k", k=table.shape[-1])


def gla_over_chunks(q: Tensor, k: Tensor, v: Tensor, log_gate: Tensor) -> Tensor:
    """Gated linear attention, the state before every chunk as one sum over the chunks before it.

    Quadratic in the number of chunks, where the recurrence is linear.

    Args:
        q, k, log_gate: (B, N, h, k), log gates at most 0.
        v: (B, N, h, v).

    Returns:
        (B, N, h, v), what `moebius.blocks.gated_linear_attention` returns.
    """
    tokens = q.shape[1]
    padding = -tokens % CHUNK
    q, k, v, g = (
        F.pad(t, (0, 0, 0, 0, 0, padding)).unflatten(1, (-1, CHUNK)).permute(0, 3, 1, 2, 4)
        for t in (q * q.shape[-1] ** -0.5, k, v, log_gate)
    )
    decay = g.cumsum(dim=3)
    last, middle = decay[..., -1:, :], decay[..., CHUNK // 2 : CHUNK // 2 + 1, :]
    scores = (q * (decay - middle).exp()) @ (k * (middle - decay).exp()).transpose(-1, -2)
    inside = scores.tril() @ v
    added = (k * (last - decay).exp()).transpose(-1, -2) @ v
    # The state before chunk n holds what chunk m < n added, faded by all chunks between.
    total = last.squeeze(3).cumsum(dim=2)
    before = total - last.squeeze(3)
    fading = (before.unsqueeze(3) - total.unsqueeze(2)).clamp(max=0).exp()
    fading = fading.permute(0, 1, 4, 2, 3).tril(-1)
    state = (fading @ added.transpose(2, 3)).transpose(2, 3)
    y = inside + (q * decay.exp()) @ state
    return y.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :tokens]
