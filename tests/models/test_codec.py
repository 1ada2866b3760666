"""The codec's contract, and the quality of the one that ships. Nothing is trained here."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image

from moebius.data.photographs import builtin_paths
from moebius.models import winograd
from moebius.models.codec import BUILTIN_FOLDER, LatentCodec, load_codec
from moebius.models.upsampling import UpsampledConv
from moebius.models.winograd import WinogradConv


@pytest.fixture(scope="module")
def builtin():
    return load_codec("builtin")


def tiny_vae(**config):
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        norm_num_groups=2,
        **config,
    )


def photograph_crops(name, side=128):
    path = next(path for path in builtin_paths("validation") if path.stem == name)
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)
    rows, columns = (extent // side for extent in pixels.shape[1:])
    crops = [
        pixels[:, side * y : side * (y + 1), side * x : side * (x + 1)]
        for y in range(rows)
        for x in range(columns)
    ]
    return torch.stack(crops).float() / 127.5 - 1


@pytest.fixture
def wide(monkeypatch) -> LatentCodec:
    """Made-up weights, and channels enough for inference forms, on maps of any size."""
    monkeypatch.setattr(winograd, "POSITIONS", {2: 0, 4: 0})
    torch.manual_seed(0)
    kinds = {"down_block_types": ("DownEncoderBlock2D",) * 2}
    kinds["up_block_types"] = ("UpDecoderBlock2D",) * 2
    return LatentCodec(AutoencoderKL(block_out_channels=(32, 192), **kinds), "made-up")


def test_its_inference_form_is_the_network(wide):
    images, latents = torch.rand(2, 3, 36, 20) * 2 - 1, torch.randn(1, 4, 9, 14)
    with_graph = *wide.moments(images), wide.decode(latents)
    with torch.no_grad():
        quick = *wide.moments(images), wide.decode(latents)
        kinds = [type(module) for module in wide._network(latents).modules()]
        assert kinds.count(WinogradConv) > 10 and kinds.count(UpsampledConv) == 1
        for ours, plain in zip(quick, with_graph, strict=True):
            assert plain.shape == ours.shape
            assert ((ours - plain).norm() / plain.norm()).item() < 1e-4
        wide.vae.decoder.conv_out.bias += 1
        assert (wide.decode(latents) - quick[2]).max() > 0.5  # the form follows the weights


def test_the_network_itself_runs_where_a_form_does_not_pay(wide):
    latents = torch.randn(1, 4, 8, 8)
    assert wide._network(latents) is wide.vae  # gradients are recorded
    with torch.no_grad():
        assert wide._network(latents) is not wide.vae
        assert wide.to(torch.bfloat16)._network(latents.bfloat16()) is wide.vae


def test_builtin_is_small_and_documented(builtin):
    weights = BUILTIN_FOLDER / "diffusion_pytorch_model.safetensors"
    assert weights.stat().st_size <= 3_000_000
    training = json.loads((BUILTIN_FOLDER / "training.json").read_text())
    assert training["parameters"] == sum(p.numel() for p in builtin.parameters())
    assert training["bytes"] == weights.stat().st_size


def test_builtin_reconstructs_an_unseen_photograph(builtin):
    crops = photograph_crops("coffee")
    assert crops.shape == (12, 3, 128, 128)
    with torch.no_grad():
        error = (builtin.decode(builtin.encode(crops)) - crops).square().mean((1, 2, 3))
    psnr = (10 * torch.log10(4 / error)).mean().item()
    assert psnr >= 24.0
    training = json.loads((BUILTIN_FOLDER / "training.json").read_text())
    assert psnr == pytest.approx(training["psnr"]["coffee"], abs=0.05)


def test_builtin_latents_have_about_unit_scale(builtin):
    with torch.no_grad():
        mean, std = builtin.moments(photograph_crops("coffee"))
    assert 0.5 < mean.std() < 2
    assert std.mean() < 0.3, "the posterior's noise must stay well below the signal"


@pytest.mark.parametrize("size", [(64, 64), (40, 88), (8, 8)])
def test_shapes_of_any_multiple_of_eight(builtin, size):
    images = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        latents = builtin.encode(images)
        output = builtin.decode(3 * latents)
    assert latents.shape == (2, builtin.channels, size[0] // 8, size[1] // 8)
    assert (builtin.factor, builtin.channels) == (8, 4)
    assert output.shape == images.shape
    assert output.abs().max() <= 1


def test_other_sizes_are_refused(builtin):
    with pytest.raises(ValueError, match=r"30x64.*multiples of 8"):
        builtin.encode(torch.zeros(1, 3, 30, 64))


@pytest.mark.parametrize("shift", [None, 0.5])
def test_scale_and_shift_are_those_of_the_config(shift):
    vae = tiny_vae(scaling_factor=0.13025, shift_factor=shift)
    codec = LatentCodec(vae, "tiny")
    images = torch.rand(1, 3, 16, 24) * 2 - 1
    with torch.no_grad():
        posterior = vae.encode(images).latent_dist
        mean, std = codec.moments(images)
        torch.testing.assert_close(mean, (posterior.mean - (shift or 0)) * 0.13025)
        torch.testing.assert_close(std, posterior.std * 0.13025)
        expected = vae.decode(posterior.mean).sample.clamp(-1, 1)
        torch.testing.assert_close(codec.decode(mean), expected, rtol=1e-4, atol=1e-5)


def test_encode_is_the_mode_or_a_seeded_sample():
    codec = LatentCodec(tiny_vae(), "tiny")
    images = torch.rand(4, 3, 64, 64) * 2 - 1
    with torch.no_grad():
        mean, std = codec.moments(images)
        assert torch.equal(codec.encode(images), mean)
        one, same, other = (
            codec.encode(images, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
        )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    noise = (one - mean) / std
    assert noise.std().item() == pytest.approx(1, abs=5 / math.sqrt(2 * noise.numel()))


def test_stays_frozen_and_in_eval_mode():
    codec = LatentCodec(tiny_vae(), "tiny")
    torch.nn.Sequential(codec).train()
    assert not any(module.training for module in codec.modules())
    assert not any(parameter.requires_grad for parameter in codec.parameters())


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
@pytest.mark.parametrize("inside", ["", "vae"])
def test_loads_local_folders(tmp_path, safe, inside):
    vae = tiny_vae(scaling_factor=0.25)
    vae.save_pretrained(tmp_path / inside, safe_serialization=safe)
    codec = load_codec(str(tmp_path), dtype=torch.float64)
    assert codec.name == str(tmp_path)
    for name, value in vae.state_dict().items():
        torch.testing.assert_close(codec.vae.state_dict()[name], value.double(), rtol=0, atol=0)
    images = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        raw = vae.double().encode(images.double()).latent_dist.mean
        torch.testing.assert_close(codec.encode(images), raw * 0.25)


@pytest.mark.parametrize("source", ["missing", "./missing", "/missing/codec"])
def test_missing_folder_names_the_source_and_the_remedy(source):
    with pytest.raises(ValueError, match=f"codec '{source}'.*'builtin'") as caught:
        load_codec(source)
    assert "\n" not in str(caught.value)


def test_folder_without_weights_is_one_line(tmp_path):
    shutil.copy(BUILTIN_FOLDER / "config.json", tmp_path)
    with pytest.raises(ValueError, match="could not be loaded") as caught:
        load_codec(str(tmp_path))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("source", "place", "subfolder"),
    [("owner/name", "owner/name", None), ("owner/name/a/vae", "owner/name", "a/vae")],
)
def test_hub_names_and_an_offline_hub(monkeypatch, source, place, subfolder):
    asked = []

    def offline(name, **options):
        asked.append((name, options["subfolder"]))
        raise OSError("cannot reach the hub\nsecond line")

    monkeypatch.setattr(AutoencoderKL, "from_pretrained", offline)
    with pytest.raises(ValueError, match=f"'{source}'.*cannot reach.*while online") as caught:
        load_codec(source)
    assert asked == [(place, subfolder)]
    assert "\n" not in str(caught.value)


def test_a_large_batch_is_encoded_in_parts(monkeypatch):
    codec = LatentCodec(tiny_vae(), "tiny")
    images = torch.rand(5, 3, 16, 24) * 2 - 1
    whole = codec.moments(images)
    sizes, encode = [], codec.vae.encode
    monkeypatch.setattr(codec.vae, "encode", lambda x: sizes.append(len(x)) or encode(x))
    monkeypatch.setattr("moebius.models.codec.PIXELS_A_PASS", 2 * 16 * 24)
    for parts, expected in zip(codec.moments(images), whole, strict=True):
        torch.testing.assert_close(parts, expected)
    assert sizes == [2, 2, 1]
