"""Chunked gated linear attention against its token-by-token recurrence, 64x64 latent, CPU."""

import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from moebius.blocks.gated_linear_attention import chunked_gla

TOKENS, HEADS, KEY, VALUE = 64 * 64, 8, 20, 40
REPEATS = 3


def recurrence(q: Tensor, k: Tensor, v: Tensor, log_gate: Tensor) -> Tensor:
    """The definition: decay the state, add an outer product, read it, token after token."""
    state = q.new_zeros(q.shape[0], HEADS, KEY, VALUE)
    out = []
    for t in range(q.shape[1]):
        state = log_gate[:, t, :, :, None].exp() * state
        state = state + k[:, t, :, :, None] * v[:, t, :, None]
        out.append((q[:, t, :, None] @ state).squeeze(2) * KEY**-0.5)
    return torch.stack(out, dim=1)


def seconds(run: Callable[[], Tensor]) -> float:
    """Best of a few runs, the first one not counted."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.inference_mode()
def main() -> None:
    """Prints both times and their ratio."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, g = (
        torch.randn(1, TOKENS, HEADS, width, generator=generator)
        for width in (KEY, KEY, VALUE, KEY)
    )
    inputs = (q, k, v, F.logsigmoid(g) / 16)
    torch.testing.assert_close(chunked_gla(*inputs), recurrence(*inputs), rtol=1e-3, atol=1e-3)
    plain, chunked = seconds(lambda: recurrence(*inputs)), seconds(lambda: chunked_gla(*inputs))
    print(
        f"GLA, {TOKENS} tokens, {torch.get_num_threads()} threads: "
        f"recurrence {1000 * plain:.0f} ms, chunked {1000 * chunked:.0f} ms, "
        f"ratio {plain / chunked:.1f}"
    )


if __name__ == "__main__":
    main()
