"""The codec's training command: its parts, and one step of the whole."""

import copy
import json

import numpy as np
import pytest
import torch
from PIL import Image

from moebius.codec import (
    CROPS,
    CodecTraining,
    build,
    grid_crops,
    read_photograph,
    standardize,
    train,
    training_batches,
)
from moebius.models.codec import LatentCodec, load_codec


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_grid_crops_tile_the_picture_in_order():
    image = torch.arange(3 * 9 * 14).view(3, 9, 14)
    crops = grid_crops(image, 4)
    assert crops.shape == (6, 3, 4, 4)
    assert torch.equal(crops[1], image[:, :4, 4:8])
    assert torch.equal(crops[5], image[:, 4:8, 8:12])


def test_batches_are_seeded_crops_of_the_listed_sizes():
    pyramids = [[torch.rand(3, 160, 200) * 2 - 1, torch.rand(3, 128, 130) * 2 - 1]]
    first, second = (training_batches(pyramids, np.random.default_rng(3)) for _ in range(2))
    for _ in range(8):
        batch = next(first)
        assert (batch.shape[-1], len(batch)) in CROPS
        assert batch.shape[1:] == (3, batch.shape[-1], batch.shape[-1])
        assert batch.abs().max() <= 1
        assert torch.equal(batch, next(second))


def test_standardize_changes_the_latents_but_no_picture():
    torch.manual_seed(0)
    vae = build()
    crops = torch.rand(4, 3, 64, 64) * 2 - 1
    plain, standard = LatentCodec(vae, "plain"), copy.deepcopy(vae)
    standardize(standard, crops)
    codec = LatentCodec(standard, "standard")
    with torch.no_grad():
        latents = codec.encode(crops)
        torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), rtol=0, atol=1e-4)
        torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), rtol=1e-4, atol=0)
        torch.testing.assert_close(
            codec.vae.decode(latents).sample,
            vae.decode(vae.encode(crops).latent_dist.mode()).sample,
            rtol=1e-3,
            atol=1e-4,
        )
        # The posterior keeps its noise relative to the signal.
        raw = vae.encode(crops).latent_dist
        ratio = raw.std.mean((0, 2, 3)) / raw.mean.std((0, 2, 3))
        torch.testing.assert_close(codec.moments(crops)[1].mean((0, 2, 3)), ratio)
    assert plain.channels == 4


def test_one_step_writes_a_folder_that_loads(tmp_path, monkeypatch, one_thread):
    rng = np.random.default_rng(0)
    photographs = {"train": ["one", "two"], "validation": ["three"]}
    for name in ("one", "two", "three"):
        pixels = rng.integers(256, size=(270, 260, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    monkeypatch.setattr(
        "moebius.codec.builtin_paths",
        lambda split: [tmp_path / f"{name}.png" for name in photographs[split]],
    )
    out = tmp_path / "assets" / "codec"
    train(CodecTraining(out=out, minutes=1e-4))
    report = json.loads((out / "training.json").read_text())
    assert report["steps"] == 1
    assert set(report["psnr"]) == {"three", "train"}
    assert list(out.parent.iterdir()) == [out], "a temporary folder stayed behind"
    codec = load_codec(str(out))
    assert report["parameters"] == sum(p.numel() for p in codec.parameters())
    crops = torch.cat(
        [grid_crops(read_photograph(tmp_path / f"{n}.png"))[::6] for n in ("one", "two")]
    )
    with torch.no_grad():
        latents = codec.encode(crops)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), rtol=0.02, atol=0)
