"""Maps in bands: the cut, the map put together again, and GroupNorm read by bands."""

import pytest
import torch
from torch import nn

from moebius.models import bands


@pytest.mark.parametrize(
    ("batch", "height", "room"), [(3, 4, 100), (3, 4, 9), (2, 7, 3), (1, 5, 0), (5, 2, 4)]
)
def test_bands_cover_everything_once_and_fit(
    batch: int, height: int, room: int, monkeypatch
) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", room * 6 * 10 * 4)
    x, covered = torch.zeros(batch, height, 6, 3), torch.zeros(batch, height)
    for band in bands.bands(x, 10):
        covered[band] += 1
        assert covered[band].numel() <= max(room, 1)
    assert (covered == 1).all()


def test_elsewhere_than_on_a_cpu_a_band_is_the_map(monkeypatch) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", 1)
    x = torch.empty(2, 5, 6, 3, device="meta")
    assert bands.bands(x, 3) == [(slice(0, 2), slice(0, 5))]


@pytest.mark.parametrize(("start", "stop"), [(0, 7), (0, 2), (3, 4), (5, 7)])
def test_around_are_the_neighbours_that_exist(start: int, stop: int) -> None:
    height = torch.arange(7)
    seen, inner = bands.around(slice(start, stop), 7)
    assert height[seen][inner].tolist() == list(range(start, stop))
    assert height[seen].tolist() == list(range(max(start - 1, 0), min(stop + 1, 7)))


def test_a_map_is_assembled_and_a_lone_band_is_not_copied() -> None:
    x = torch.randn(2, 5, 3, 4)
    lone, parts = bands.Assembled(2, 5), bands.Assembled(2, 5)
    lone.put(slice(0, 2), slice(0, 5), x)
    assert lone.map is x
    for samples in (slice(0, 1), slice(1, 2)):
        for rows in (slice(0, 2), slice(2, 5)):
            parts.put(samples, rows, x[samples, rows])
    assert parts.map.equal(x)


@pytest.mark.parametrize("room", [1, 2, 3, 6, 7, 100])
@pytest.mark.parametrize("dtype", [torch.double, torch.float32, torch.bfloat16])
def test_a_group_norm_read_by_bands_is_the_group_norm(room: int, dtype, monkeypatch) -> None:
    torch.manual_seed(0)
    norm = nn.GroupNorm(2, 6)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = (torch.randn(3, 7, 5, 6) + 5 * torch.randn(6)).to(dtype)
    expected = norm.double()(x.double().permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    monkeypatch.setattr(bands, "BAND_BYTES", room * 5 * 6 * x.element_size())
    cut, out = bands.bands(x, 6), bands.Assembled(3, 7)
    assert len(cut) == {1: 21, 2: 12, 3: 9, 6: 6, 7: 3, 100: 1}[room]
    read = bands.read_normalised(norm.to(dtype), x, cut)
    for band in cut:
        out.put(*band, read(*band))
    exact = {torch.double: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(out.map.double(), expected.detach(), rtol=exact, atol=exact)
