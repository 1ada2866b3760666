"""The inference form of a denoiser against the denoiser itself."""

import logging
from itertools import product

import pytest
import torch
from torch import nn

import moebius
from moebius.blocks.products import Conv2d
from moebius.models import bands, optimized
from moebius.models.architectures import NAMES
from moebius.models.denoiser import Denoiser, category_ids
from moebius.models.inference_forms import FoldedInteractiveLambda

SMALL = {"lcg_dim": 48, "context_dim": 24, "latent_size": 16}


def trained(arch: str) -> Denoiser:
    """A tiny denoiser whose BatchNorms have seen data and whose every weight matters."""
    torch.manual_seed(0)
    widths = (32,) * (4 if arch == "pixelhacker" else 3)
    model = moebius.build(arch, widths=widths, **SMALL)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.normal_()
    return model.eval()


def run(
    model: nn.Module,
    size: tuple[int, int] = (16, 16),
    categories: tuple[int, ...] = (0, 1),
    dtype: torch.dtype = torch.float32,
):
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(len(categories), 9, *size, generator=generator).to(dtype)
    with torch.no_grad():
        return model(inputs, 7, category_ids(torch.tensor(categories)))


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("arch", [*NAMES, "pixelhacker"])
def test_outputs_and_features_are_the_denoisers(arch: str) -> None:
    # In float64: what roundings become in an untrained network says nothing about the form.
    model = trained(arch).double()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    fast = model.optimized()
    actual, expected = (run(m, dtype=torch.double) for m in (fast, model))
    exact = 1e-5 if "gla" in arch or arch == "pixelhacker" else 1e-10  # GLA works in float32
    assert relative(actual.sample, expected.sample) < exact
    for name, feature in expected.features.items():
        assert relative(actual.features[name], feature) < exact, name
    after = model.state_dict()
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert not any(p.requires_grad for p in fast.parameters())


@pytest.mark.parametrize("arch", ["lmi_dw_mixffn", "gla_ca_dw_ffn", "lmi_conv_mixffn"])
@pytest.mark.parametrize("room", [1, 2**14, 2**17])
def test_maps_in_bands_are_the_denoisers(arch: str, room: int, monkeypatch) -> None:
    monkeypatch.setattr(bands, "BAND_BYTES", room)
    model = trained(arch).double()
    actual, expected = (run(m, (18, 22), dtype=torch.double) for m in (model.optimized(), model))
    exact = 1e-5 if "gla" in arch else 1e-10  # GLA works in float32
    assert relative(actual.sample, expected.sample) < exact
    for name, feature in expected.features.items():
        assert relative(actual.features[name], feature) < exact, name


def test_contexts_and_sizes_are_kept_apart() -> None:
    model = trained("lmi_dw_mixffn")
    fast = model.optimized()
    cases = [*product(((16, 16), (12, 20)), ((0, 1), (1, 0), (1,), (0, 0, 1)))]
    expected = [run(model, *case).sample for case in cases]
    for _ in range(2):
        for case, sample in zip(cases, expected, strict=True):
            assert relative(run(fast, *case).sample, sample) < 1e-4


def test_a_context_is_computed_once() -> None:
    fast = trained("lmi_dw_mixffn").optimized()
    calls: list[str] = []
    fast.project.register_forward_hook(lambda *_: calls.append("context"))
    blocks = [m for m in fast.unet.modules() if type(m) is FoldedInteractiveLambda]
    for block in blocks:
        block.to_v.register_forward_hook(lambda *_: calls.append("values"))
    for _ in range(3):
        run(fast)
    assert calls == ["context", *["values"] * len(blocks)]


def test_contexts_do_not_pile_up() -> None:
    fast = trained("lmi_dw_mixffn").optimized()
    for n in range(optimized.CONTEXTS + 3):
        fast.context(torch.arange(n, n + 2)[None])
    assert len(fast._contexts) <= optimized.CONTEXTS


def test_bfloat16_stays_near_and_hands_out_what_came_in() -> None:
    model = trained("lmi_dw_mixffn")
    fast = model.optimized(torch.bfloat16)
    actual, expected = run(fast).sample, run(model).sample
    assert actual.dtype == torch.float32
    assert 0 < relative(actual, expected) < 0.1


def test_convolutions_of_small_maps_copy_no_weights() -> None:
    convs = [
        module
        for module in trained("gla_ca_conv_ffn").optimized().modules()
        if isinstance(module, Conv2d) and module.kernel_size == (3, 3)
    ]
    assert len(convs) > 10
    for conv in convs:
        assert conv.weight.flatten(1).data_ptr() == conv.weight.data_ptr()


def test_a_cpu_without_bfloat16_is_told(monkeypatch, caplog) -> None:
    monkeypatch.setattr(optimized, "BFLOAT16", False)
    with caplog.at_level(logging.WARNING):
        fast = trained("lmi_dw_mixffn").optimized(torch.bfloat16)
    assert "no bfloat16" in caplog.text and fast.lcg.weight.dtype == torch.float32


def test_a_compiler_that_fails_leaves_a_line_and_the_result(monkeypatch, caplog) -> None:
    def broken(module: nn.Module):
        def run(*inputs):
            raise RuntimeError("no compiler here\nand a long story")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    model = trained("lmi_dw_mixffn")
    fast = model.optimized(compile=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert relative(run(fast).sample, run(model).sample) < 1e-4
    assert [record.getMessage() for record in caplog.records] == [
        "torch.compile failed, going on without: no compiler here"
    ]


def test_a_compiler_takes_every_shape_of_the_blocks(monkeypatch) -> None:
    """Its own limit is 8, beyond which it runs the rest uncompiled."""
    seen = []

    def noted(module: nn.Module):
        def run(*inputs):
            seen.append(torch._dynamo.config.recompile_limit)
            return module(*inputs)

        return run

    monkeypatch.setattr(torch, "compile", noted)
    limit = torch._dynamo.config.recompile_limit
    run(trained("lmi_dw_mixffn").optimized(compile=True))
    assert seen == [optimized.RECOMPILES] and torch._dynamo.config.recompile_limit == limit


def test_without_a_gpu_graphs_leave_a_line_and_the_result(caplog) -> None:
    model = trained("lmi_dw_mixffn")
    fast = model.optimized(graph=True)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert relative(run(fast).sample, run(model).sample) < 1e-4
    assert [record.getMessage() for record in caplog.records] == [
        "CUDA graphs failed, going on without: they need a CUDA device"
    ]


def test_weights_that_no_form_changes_are_not_held_twice() -> None:
    model = trained("lmi_dw_mixffn")
    own = {p.data_ptr() for p in model.parameters()}
    fast = model.optimized()
    extra = sum(p.numel() for p in fast.parameters() if p.data_ptr() not in own)
    assert extra < sum(p.numel() for p in model.parameters()) / 2


def test_a_kept_form_is_made_again_when_weights_change() -> None:
    model, kept = trained("lmi_dw_mixffn"), optimized.KeptForm(Denoiser.optimized)
    first = kept.of(model)
    assert isinstance(first, optimized.OptimizedDenoiser) and kept.of(model) is first
    with torch.no_grad():
        model.unet.conv_norm_out.weight.mul_(2)
    second = kept.of(model)
    assert second is not first and kept.of(model) is second
    assert relative(run(second).sample, run(model).sample) < 1e-4
    assert kept.of(model.double()).dtype == torch.float64


def test_a_denoiser_that_trains_or_is_followed_has_no_kept_form() -> None:
    model, kept = trained("lmi_dw_mixffn"), optimized.KeptForm(Denoiser.optimized)
    handle = model.register_forward_hook(lambda *_: None)
    assert kept.of(model) is model
    handle.remove()
    assert kept.of(model) is not model
    assert kept.of(model.train()) is model
