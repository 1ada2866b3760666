"""Inference forms of single operators, where the whole denoiser's test does not reach."""

import pytest
import torch
from torch import nn

import moebius
from moebius.blocks import (
    DepthwiseSeparableConv,
    LocalLambda,
    MixFeedForward,
    MixingBlock,
    ResidualBlock,
    SpatialMixer,
    products,
)
from moebius.models import bands
from moebius.models.inference_forms import (
    FORMS,
    FusedMixFeedForward,
    FusedResidualBlock,
    FusedSpatialMixer,
    use_inference_forms,
)
from moebius.models.unet import PairedStage


def test_every_operator_of_the_student_has_a_form() -> None:
    model = moebius.build("lmi_dw_mixffn", widths=(32, 32, 32), lcg_dim=8, latent_size=16).eval()
    use_inference_forms(model)
    layers = {type(module) for module in model.modules()}
    assert not layers & {DepthwiseSeparableConv, LocalLambda, MixFeedForward, nn.BatchNorm2d}
    assert not layers & {nn.Linear, products.Linear, MixingBlock, ResidualBlock, SpatialMixer}
    stages = [module for module in model.modules() if isinstance(module, PairedStage)]
    called = {type(part) for stage in stages for layer in stage.layers for part in layer.children()}
    assert called == {FusedResidualBlock, FusedSpatialMixer}
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert convs and all(conv.kernel_size != (1, 1) for conv in convs)


@pytest.mark.parametrize("rows", [1, 2, 5, 7, 20])
def test_mix_ffn_in_bands_is_mix_ffn(rows: int, monkeypatch) -> None:
    torch.manual_seed(0)
    operator, size = MixFeedForward(8).double().eval(), (7, 5)
    monkeypatch.setattr(bands, "BAND_BYTES", rows * 5 * 20 * 8)
    x = torch.randn(3, 35, 8, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(FusedMixFeedForward(operator)(x, size), operator(x, size))


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_mix_ffn_adds_to_the_tokens_that_it_reads(rows: int, monkeypatch) -> None:
    torch.manual_seed(0)
    operator, size, norm = MixFeedForward(8).double().eval(), (7, 5), nn.LayerNorm(8).double()
    monkeypatch.setattr(bands, "BAND_BYTES", rows * 5 * 20 * 8)
    x = torch.randn(2, 35, 8, dtype=torch.double)
    with torch.no_grad():
        expected = x + operator(norm(x), size)
        FusedMixFeedForward(operator).add_to(x, norm, size)
    torch.testing.assert_close(x, expected)


def test_convolutions_that_are_no_products_stay() -> None:
    for options in ({"stride": 2}, {"groups": 2}, {"padding": 1}):
        conv = products.Conv2d(4, 4, 1, **options)
        assert FORMS[products.Conv2d](conv) is conv
