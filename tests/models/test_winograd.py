"""Winograd's form against the convolution that it is, in float64."""

from itertools import product

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks.products import Conv2d
from moebius.models import bands, winograd
from moebius.models.inference_forms import use_inference_forms
from moebius.models.winograd import KERNELS, WinogradConv, is_taken, tiled_kernel

CLOSE = {2: 1e-6, 4: 5e-6}
"""Relative, in float32: the direct form is at 5e-7."""
MAPS = [(1, 16, 16), (2, 17, 23), (3, 30, 19), (1, 1, 300)]
CHANNELS = 192, 200


@pytest.fixture(autouse=True)
def anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """By tiles on maps of any size."""
    monkeypatch.setattr(winograd, "POSITIONS", {2: 0, 4: 0})


def make(biased: bool = True) -> Conv2d:
    torch.manual_seed(0)
    return Conv2d(*CHANNELS, 3, padding=1, bias=biased)


def exact(conv: Conv2d, x: Tensor) -> Tensor:
    bias = None if conv.bias is None else conv.bias.double()
    return F.conv2d(x.double(), conv.weight.double(), bias, padding=1)


def relative(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("by_onednn", [False, True])
@pytest.mark.parametrize(("tile", "size"), [*product(KERNELS, MAPS)])
@torch.no_grad()
def test_it_is_the_convolution(
    tile: int, size: tuple[int, ...], by_onednn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(winograd, "FULL_WIDTH", not by_onednn)
    conv = make()
    x = torch.randn(size[0], CHANNELS[0], *size[1:])
    for ordered in (x, x.contiguous(memory_format=torch.channels_last)):
        form = WinogradConv(conv, tile)
        y = form(ordered)
        assert form._kernel is not None and y.shape == (size[0], CHANNELS[1], *size[1:])
        assert relative(y, exact(conv, x)) < CLOSE[tile]


@pytest.mark.parametrize("tile", KERNELS)
@pytest.mark.parametrize("room", [1, 2**19])
@torch.no_grad()
def test_bands_change_nothing(tile: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    conv = make(biased=False)
    x = torch.randn(2, CHANNELS[0], 22, 13)
    monkeypatch.setattr(bands, "BAND_BYTES", room)
    assert relative(WinogradConv(conv, tile)(x), exact(conv, x)) < CLOSE[tile]


@pytest.mark.parametrize("tile", KERNELS)
def test_a_kernel_of_one_cell_is_spread_by_its_matrix(tile: int) -> None:
    weight = torch.zeros(1, 1, 3, 3)
    weight[0, 0, 1, 2] = 1
    column = torch.tensor(KERNELS[tile])
    expected = torch.outer(column[:, 1], column[:, 2]).flatten()
    torch.testing.assert_close(tiled_kernel(weight, tile)[:, 0, 0], expected)


def test_it_shares_its_weights_and_is_plain_where_it_does_not_pay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    conv = make()
    form, x = WinogradConv(conv), torch.randn(1, CHANNELS[0], 16, 16)
    assert form.weight is conv.weight and form.state_dict().keys() == conv.state_dict().keys()
    torch.testing.assert_close(form(x), conv(x))  # gradients are recorded
    assert form(x).requires_grad
    with torch.no_grad():
        torch.testing.assert_close(form.double()(x.double()), exact(conv, x))
        form.float()
        monkeypatch.setattr(winograd, "POSITIONS", {2: 257, 4: 257})
        torch.testing.assert_close(form(x), conv(x))
        with torch.autocast("cpu", torch.bfloat16):
            assert form(x).dtype == torch.bfloat16
    assert form._kernel is None


@pytest.mark.parametrize(
    "options",
    [
        {"stride": 2},
        {"padding": 0},
        {"dilation": 2},
        {"groups": 2},
        {"padding_mode": "reflect"},
        {"kernel_size": 5},
        {"out_channels": 8},
    ],
    ids=str,
)
def test_other_convolutions_are_not_taken(options: dict[str, int]) -> None:
    whole = {"in_channels": 192, "out_channels": 192, "kernel_size": 3, "padding": 1}
    assert is_taken(nn.Conv2d(**whole))
    other = nn.Sequential(nn.Conv2d(**(whole | options)))
    use_inference_forms(other)
    assert not is_taken(other[0]) and type(other[0]) is nn.Conv2d
