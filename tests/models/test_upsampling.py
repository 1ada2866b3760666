"""The convolution of an upsampled map, computed on the small one."""

import pytest
import torch
from diffusers.models.upsampling import Upsample2D

from moebius.models import bands
from moebius.models.upsampling import UpsampledConv


@pytest.mark.parametrize("size", [(4, 6), (1, 1), (5, 3)])
@pytest.mark.parametrize("shorter", [None, (0, 0), (1, 0), (1, 1)])
def test_it_is_the_upsampler(size, shorter) -> None:
    torch.manual_seed(0)
    sampler = Upsample2D(6, use_conv=True).double()
    x = torch.randn(2, 6, *size, dtype=torch.double)
    wanted = shorter and tuple(2 * side - less for side, less in zip(size, shorter, strict=True))
    with torch.no_grad():
        actual, expected = UpsampledConv(sampler)(x, wanted), sampler(x, wanted)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_it_is_the_upsampler_in_bands(rows: int, monkeypatch) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", rows * 6 * 6 * 8)
    sampler = Upsample2D(6, use_conv=True).double()
    x = torch.randn(2, 6, 4, 6, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(UpsampledConv(sampler)(x), sampler(x))


def test_the_map_is_channels_last() -> None:
    with torch.no_grad():
        out = UpsampledConv(Upsample2D(6, use_conv=True))(torch.randn(2, 6, 4, 4))
    assert out.is_contiguous(memory_format=torch.channels_last)
