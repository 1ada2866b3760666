"""Activations made again: outputs and gradients of the plain layers, with less kept for them."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from moebius.blocks.recomputed import depthwise_of_silu, pointwise_of_gated


def gated(x: Tensor) -> Tensor:
    value, gate = x.chunk(2, dim=1)
    return value * F.silu(gate)


CASES = {
    "depthwise": (
        lambda: nn.Conv2d(12, 12, 3, padding=1, groups=12),
        lambda x, conv: conv(F.silu(x)),
        depthwise_of_silu,
    ),
    "depthwise, no bias": (
        lambda: nn.Conv2d(12, 12, 3, stride=2, groups=12, bias=False),
        lambda x, conv: conv(F.silu(x)),
        depthwise_of_silu,
    ),
    "gated": (
        lambda: nn.Conv2d(6, 5, 1, bias=False),
        lambda x, conv: conv(gated(x)),
        pointwise_of_gated,
    ),
}


def run(form, x: Tensor, conv: nn.Conv2d) -> list[Tensor]:
    y = form(x, conv)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    wanted = [t for t in (x, *conv.parameters()) if t.requires_grad]
    return [y, *torch.autograd.grad(y, wanted, weight)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.double, torch.float32])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("trained", ["all", "input", "weights"])
def test_it_is_the_plain_form(case: str, dtype: torch.dtype, order, trained: str) -> None:
    make, plain, recomputed = CASES[case]
    torch.manual_seed(0)
    conv = make().to(dtype).requires_grad_(trained != "input")
    x = torch.randn(2, 12, 6, 7, dtype=dtype).contiguous(memory_format=order)
    x.requires_grad_(trained != "weights")
    for a, b in zip(run(recomputed, x, conv), run(plain, x, conv), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", CASES)
def test_autocast_runs_it_in_bfloat16(case: str) -> None:
    make, plain, recomputed = CASES[case]
    torch.manual_seed(0)
    conv, x = make(), torch.randn(2, 12, 6, 7).requires_grad_()
    exact = run(plain, x, conv)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(recomputed, x, conv)
    assert mixed[0].dtype == torch.bfloat16
    for a, b in zip(mixed, exact, strict=True):
        assert a.dtype == torch.bfloat16 if a is mixed[0] else a.dtype == torch.float32
        assert 0 < (a.float() - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("case", CASES)
def test_only_what_the_activation_is_made_of_is_kept(case: str) -> None:
    make, _, recomputed = CASES[case]
    conv, x = make(), torch.randn(2, 12, 6, 7).requires_grad_()
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        recomputed(x, conv)
    assert [t.untyped_storage().data_ptr() for t in kept if t.ndim == 4 and t.shape[0] == 2] == [
        x.untyped_storage().data_ptr()
    ]
