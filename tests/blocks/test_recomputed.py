"""Activations made again: outputs and gradients of the plain layers, with less kept for them."""

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from moebius.blocks.convolution import DepthwiseSeparableConv
from moebius.blocks.recomputed import (
    depthwise_of_silu,
    gated_of_silu,
    of_normalised,
    pointwise_of_normalised,
)


def gated(layers: nn.Sequential, x: Tensor) -> Tensor:
    value, gate = layers[0](F.silu(x)).chunk(2, dim=1)
    return layers[1](value * F.silu(gate))


def normalised(channels: int, training: bool) -> nn.Sequential:
    """A BatchNorm whose every weight and statistic matters, and a 1x1 convolution."""
    norm = nn.BatchNorm2d(channels)
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    return nn.Sequential(norm, nn.Conv2d(channels, 5, 1, bias=False)).train(training)


CASES = {
    "depthwise": (
        lambda: nn.Sequential(nn.Conv2d(12, 12, 3, padding=1, groups=12)),
        lambda layers, x: layers(F.silu(x)),
        lambda layers, x: depthwise_of_silu(x, layers[0]),
    ),
    "depthwise, no bias": (
        lambda: nn.Sequential(nn.Conv2d(12, 12, 3, stride=2, groups=12, bias=False)),
        lambda layers, x: layers(F.silu(x)),
        lambda layers, x: depthwise_of_silu(x, layers[0]),
    ),
    "gated": (
        lambda: nn.Sequential(
            nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Conv2d(6, 5, 1, bias=False)
        ),
        gated,
        lambda layers, x: gated_of_silu(x, *layers),
    ),
    "normalised": (
        lambda: normalised(12, True),
        lambda layers, x: layers[1](F.relu(layers[0](x))),
        lambda layers, x: pointwise_of_normalised(x, *layers),
    ),
    "normalised, frozen": (
        lambda: normalised(12, False),
        lambda layers, x: layers[1](F.relu(layers[0](x))),
        lambda layers, x: pointwise_of_normalised(x, *layers),
    ),
}


def run(form, layers: nn.Module, x: Tensor) -> list[Tensor]:
    y = form(layers, x)
    weight = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    wanted = [t for t in (x, *layers.parameters()) if t.requires_grad]
    return [y, *torch.autograd.grad(y, wanted, weight)]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.double, torch.float32])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("trained", ["all", "input", "weights"])
def test_it_is_the_plain_form(case: str, dtype: torch.dtype, order, trained: str) -> None:
    make, plain, recomputed = CASES[case]
    torch.manual_seed(0)
    layers = make().to(dtype).requires_grad_(trained != "input")
    others = deepcopy(layers)
    x = torch.randn(2, 12, 6, 7, dtype=dtype).contiguous(memory_format=order)
    x.requires_grad_(trained != "weights")
    for a, b in zip(run(recomputed, layers, x), run(plain, others, x), strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(layers.buffers(), others.buffers(), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("case", CASES)
def test_autocast_runs_it_in_bfloat16(case: str) -> None:
    make, plain, recomputed = CASES[case]
    torch.manual_seed(0)
    layers, x = make(), torch.randn(2, 12, 6, 7).requires_grad_()
    exact = run(plain, deepcopy(layers), x)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(recomputed, layers, x)
    assert mixed[0].dtype == torch.bfloat16
    for a, b in zip(mixed, exact, strict=True):
        assert a.dtype == torch.bfloat16 if a is mixed[0] else a.dtype == torch.float32
        assert 0 < (a.float() - b).norm() < 0.03 * b.norm()


@pytest.mark.parametrize("case", CASES)
def test_only_what_the_activation_is_made_of_is_kept(case: str) -> None:
    make, _, recomputed = CASES[case]
    layers, x = make(), torch.randn(2, 12, 6, 7).requires_grad_()
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        recomputed(layers, x)
    assert [t.untyped_storage().data_ptr() for t in kept if t.ndim == 4 and t.shape[0] == 2] == [
        x.untyped_storage().data_ptr()
    ]


def test_a_separable_convolution_knows_its_activation() -> None:
    conv = DepthwiseSeparableConv(12, 12).double()
    x = torch.randn(2, 12, 6, 7, dtype=torch.double, requires_grad=True)
    ours, plain = deepcopy(conv), deepcopy(conv)
    plain.bn1.__class__ = type("Other", (nn.BatchNorm2d,), {})  # as SyncBatchNorm is another
    own, others = (
        run(form, model, x)
        for form, model in (
            (lambda m, t: m.of_silu(t), ours),
            (lambda m, t: m(F.silu(t)), plain),
        )
    )
    for a, b in zip(own, others, strict=True):
        torch.testing.assert_close(a, b)


class Operator(nn.Module):
    """Two products of its input, as of an operator that reads keys and values; notes its input."""

    def __init__(self) -> None:
        super().__init__()
        self.key, self.value = nn.Linear(8, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor, factor: float) -> Tensor:
        return factor * self.key(x).tanh() * self.value(x.flip(1).flip(1))


def block(layers: nn.Sequential, x: Tensor) -> Tensor:
    return of_normalised(layers[1], layers[0], x, 2.0)


def plain_block(layers: nn.Sequential, x: Tensor) -> Tensor:
    return layers[1](layers[0](x), 2.0)


def make_block() -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.LayerNorm(8), Operator()).double()
    return layers, torch.randn(2, 5, 8, dtype=torch.double, requires_grad=True)


def test_an_operator_of_a_normalised_map_is_the_plain_one() -> None:
    layers, x = make_block()
    for a, b in zip(run(block, layers, x), run(plain_block, layers, x), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize(("form", "left"), [(block, False), (plain_block, True)])
def test_the_normalised_map_is_not_kept(form, left: bool) -> None:
    layers, x = make_block()
    seen: list[int] = []
    layers[1].register_forward_pre_hook(lambda _, inputs: seen.append(weak(inputs[0])))
    y = form(layers, x)
    assert (seen[0]() is not None) == left
    y.sum().backward()


def weak(tensor: Tensor):
    """Whether a tensor's memory is still held, asked later."""
    storage = tensor.untyped_storage()._weak_ref()
    return lambda: None if torch.UntypedStorage._expired(storage) else storage


def test_others_who_look_after_what_is_kept_are_left_to_it() -> None:
    """Under checkpointing nothing is kept, and what is kept outside is what they say."""
    layers, x = make_block()
    direct = run(block, layers, x)
    through = run(lambda m, t: checkpoint(block, m, t, use_reentrant=False), layers, x)
    for a, b in zip(through, direct, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    kept: list[Tensor] = []
    with saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        plain_block(layers, x)
        count = len(kept)
        block(layers, x)
    assert len(kept) == 2 * count
