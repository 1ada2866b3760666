"""The teacher's mixer in chunks: against its recurrence, and against linear attention.

The second is a whole step of the teacher, 512 px, and of the same network in which self mixing has
the same projections, output gate and norm around q (k^T v).
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from _ratio import DEVICE, ratio, show
from torch import Tensor
from torch.nn import functional as F

import moebius
from moebius.blocks import gated_linear_attention as module
from moebius.blocks.gated_linear_attention import GatedLinearAttention, gated_linear_attention
from moebius.models.denoiser import DenoiserOutput, category_ids

TOKENS, HEADS, KEY, VALUE = 64 * 64, 8, 20, 40
SHARE = 1.3


def recurrence(q: Tensor, k: Tensor, v: Tensor, log_gate: Tensor) -> Tensor:
    """The definition: decay the state, add an outer product, read it, token after token."""
    state = q.new_zeros(q.shape[0], HEADS, KEY, VALUE)
    out = []
    for t in range(q.shape[1]):
        state = log_gate[:, t, :, :, None].exp() * state
        state = state + k[:, t, :, :, None] * v[:, t, :, None]
        out.append((q[:, t, :, None] @ state).squeeze(2) * KEY**-0.5)
    return torch.stack(out, dim=1)


def ungated(m: GatedLinearAttention, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Linear attention over all tokens, (B, N, C) -> (B, N, C)."""
    q, k, v = (
        project(x).unflatten(-1, (m.heads, -1)).transpose(1, 2)
        for project in (m.q_proj, m.k_proj, m.v_proj)
    )
    y = q @ (k.mT @ v * (q.shape[-1] ** -0.5 / q.shape[2]))
    y = m.g_norm_swish_gate(y.transpose(1, 2)).flatten(2)
    return m.o_proj(y * F.silu(m.g_proj(x)))


@contextmanager
def without_gates() -> Iterator[None]:
    """Linear attention in the place of gated linear attention, inside a `with` block."""
    kept = GatedLinearAttention.forward
    GatedLinearAttention.forward = ungated  # type: ignore[method-assign]
    try:
        yield
    finally:
        GatedLinearAttention.forward = kept  # type: ignore[method-assign]


def compare_operators() -> None:
    """Shows the ratio to the recurrence."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, g = (
        torch.randn(1, TOKENS, HEADS, width, generator=generator).to(DEVICE)
        for width in (KEY, KEY, VALUE, KEY)
    )
    inputs = (q, k, v, F.logsigmoid(g) / module.GATE_NORMALIZER)
    a, b = gated_linear_attention(*inputs), recurrence(*inputs)
    torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)
    timed = ratio(lambda: recurrence(*inputs), lambda: gated_linear_attention(*inputs), rounds=3)
    show(f"GLA, {TOKENS} tokens, chunked against recurrence", timed)


def compare_networks() -> None:
    """Shows what a step of the teacher takes, by that of the same network without gates."""
    teacher = moebius.build("pixelhacker").eval().to(DEVICE)
    ids = category_ids(torch.tensor([0], device=DEVICE))
    sample = torch.randn(1, 9, 64, 64, device=DEVICE)

    def plain() -> DenoiserOutput:
        with without_gates():
            return teacher(sample, 500, ids)

    ungated_seconds, gated_seconds, _ = ratio(plain, lambda: teacher(sample, 500, ids), rounds=3)
    timed = gated_seconds, ungated_seconds, gated_seconds / ungated_seconds
    show("teacher step 512 px, GLA to linear attention", timed, at_most=SHARE)


@torch.inference_mode()
def main() -> None:
    """Shows both."""
    compare_operators()
    compare_networks()


if __name__ == "__main__":
    main()
