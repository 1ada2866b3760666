"""Inference forms of single operators, where the whole denoiser's test does not reach."""

import pytest
import torch
from torch import nn

import moebius
from moebius.blocks import DepthwiseSeparableConv, LocalLambda, MixFeedForward, products
from moebius.models import inference_forms
from moebius.models.inference_forms import FORMS, FusedMixFeedForward, use_inference_forms


def test_every_operator_of_the_student_has_a_form() -> None:
    model = moebius.build("lmi_dw_mixffn", widths=(32, 32, 32), lcg_dim=8, latent_size=16).eval()
    use_inference_forms(model)
    layers = {type(module) for module in model.modules()}
    assert not layers & {DepthwiseSeparableConv, LocalLambda, MixFeedForward, nn.BatchNorm2d}
    assert not layers & {nn.Linear, products.Linear}
    convs = [module for module in model.modules() if isinstance(module, nn.Conv2d)]
    assert convs and all(conv.kernel_size != (1, 1) for conv in convs)


@pytest.mark.parametrize("rows", [1, 2, 5, 7, 20])
def test_mix_ffn_in_bands_is_mix_ffn(rows: int, monkeypatch) -> None:
    torch.manual_seed(0)
    operator, size = MixFeedForward(8).double().eval(), (7, 5)
    monkeypatch.setattr(inference_forms, "HIDDEN_BYTES", rows * 5 * 40 * 8)
    x = torch.randn(3, 35, 8, dtype=torch.double)
    with torch.no_grad():
        torch.testing.assert_close(FusedMixFeedForward(operator)(x, size), operator(x, size))


@pytest.mark.parametrize(
    ("batch", "height", "room"), [(3, 4, 100), (3, 4, 9), (2, 7, 3), (1, 5, 0), (5, 2, 4)]
)
def test_bands_cover_everything_once_and_fit(batch: int, height: int, room: int) -> None:
    covered = torch.zeros(batch, height)
    for samples, rows in inference_forms._bands(batch, height, room):
        covered[samples, rows] += 1
        assert covered[samples, rows].numel() <= max(room, 1)
    assert (covered == 1).all()


def test_convolutions_that_are_no_products_stay() -> None:
    for options in ({"stride": 2}, {"groups": 2}, {"padding": 1}):
        conv = products.Conv2d(4, 4, 1, **options)
        assert FORMS[products.Conv2d](conv) is conv
