"""Methods to score: simple fills, foreign results paired by stem, and what a model came from."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from moebius.config import Sampling
from moebius.evaluation.benchmark import Item
from moebius.evaluation.methods import (
    FILLS,
    DenoiserMethod,
    MeanMethod,
    ResultsMethod,
    TeleaMethod,
    tensors_checksum,
)
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.codec import load_codec
from moebius.models.denoiser import build
from moebius.models.schedule import NOISE_OFFSET, build_scheduler

CPU = torch.device("cpu")
SIDE = 16


@pytest.fixture
def item() -> Item:
    """A ramp with a box missing, whose truth is red."""
    image = np.tile(np.arange(0, 16 * SIDE, SIDE, dtype=np.uint8)[None, :, None], (SIDE, 1, 3))
    hole = np.zeros((SIDE, SIDE), bool)
    hole[4:12, 4:12] = True
    return Item("a", np.where(hole[..., None], np.uint8([255, 0, 0]), image), hole)


@pytest.mark.parametrize("name", FILLS)
def test_a_fill_does_not_see_the_truth(name, item):
    fill = FILLS[name](name).load(Sampling(), CPU)
    other = Item("b", np.where(item.hole[..., None], np.uint8(7), item.image), item.hole)
    [made], [again] = fill([item]), fill([other])
    assert made.shape == item.image.shape and made.dtype == np.uint8
    assert np.array_equal(made, again)


def test_the_mean_is_that_of_all_known_pixels(item):
    [made] = MeanMethod("mean").load(Sampling(), CPU)([item])
    assert (made[item.hole] == round(float(item.image[~item.hole][:, 0].mean()))).all()


def test_telea_continues_a_ramp(item):
    [made] = TeleaMethod("telea").load(Sampling(), CPU)([item])
    ramp = np.arange(0, 16 * SIDE, SIDE)[None, :, None]
    assert np.abs(made.astype(int) - ramp)[item.hole].mean() < 16


def save_results(folder, names, side=SIDE):
    folder.mkdir(exist_ok=True)
    for n, name in enumerate(names):
        Image.new("RGB", (side, side), (n, n, n)).save(folder / f"{name}.png")
    return str(folder)


def test_results_are_paired_by_stem(item, tmp_path):
    method = ResultsMethod("x", save_results(tmp_path / "r", ["b", "a"]))
    [made] = method.load(Sampling(), CPU)([item])
    assert (made == 1).all()
    assert method.provenance(["a", "b"])["kind"] == "results"


def test_missing_and_extra_results_are_listed(tmp_path):
    method = ResultsMethod("x", save_results(tmp_path / "r", ["a", "b", "c"]))
    with pytest.raises(ValueError, match=r"r lacks 2 of 3 pictures: d, e"):
        method.provenance(["a", "d", "e"])
    with pytest.raises(ValueError, match=r"beside the benchmark's 1 of 3 pictures: c"):
        method.provenance(["a", "b"])


def test_results_of_another_size_and_broken_ones_are_refused(item, tmp_path):
    method = ResultsMethod("x", save_results(tmp_path / "r", ["a"], side=8))
    with pytest.raises(ValueError, match=r"a.png is 8x8 pixels, the benchmark's pictures 16x16"):
        method.load(Sampling(), CPU)([item])
    path = tmp_path / "r" / "a.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"cannot read .*a.png"):
        method.load(Sampling(), CPU)([item])


def test_changed_results_are_known_by_their_checksum(tmp_path):
    method = ResultsMethod("x", save_results(tmp_path / "r", ["a", "b"]))
    before = method.provenance(["a", "b"])
    assert before == method.provenance(["a", "b"])
    Image.new("RGB", (SIDE, SIDE), "red").save(tmp_path / "r" / "b.png")
    assert before != method.provenance(["a", "b"])


@pytest.fixture(scope="module")
def denoiser():
    torch.manual_seed(0)
    sizes = {"widths": [8, 8, 16], "norm_groups": 8, "heads": 4, "lcg_dim": 16, "context_dim": 8}
    return build("lmi_dw_mixffn", latent_size=8, **sizes).eval()


def test_a_bare_denoiser_needs_a_codec(denoiser, tmp_path):
    denoiser.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="denoiser without codec: name one with --codec"):
        DenoiserMethod("x", str(tmp_path)).provenance([])
    found = DenoiserMethod("x", str(tmp_path), codec="builtin").provenance([])
    assert found["denoiser_sha256"] == tensors_checksum(denoiser)
    assert found["codec"] == "builtin" and found["noise_offset"] == NOISE_OFFSET
    with pytest.raises(ValueError, match="no model at"):
        DenoiserMethod("x", str(tmp_path / "typo")).provenance([])


def test_a_saved_pipeline_brings_codec_noise_offset_and_what_is_made_up(denoiser, tmp_path):
    vae = load_codec("builtin").vae
    pipeline = InpaintPipeline(denoiser, vae, build_scheduler(), noise_offset=0.5)
    pipeline.save_pretrained(tmp_path / "model")
    (tmp_path / "result.json").write_text(json.dumps({"made_up": ["E-LatentLPIPS weights"]}))
    found = DenoiserMethod("x", str(tmp_path / "model")).provenance([])
    assert found["noise_offset"] == 0.5
    assert found["made_up"] == ["trained with E-LatentLPIPS weights"]
    assert found["denoiser_sha256"] == tensors_checksum(denoiser)
    with torch.no_grad():
        next(denoiser.parameters()).add_(1)
    assert found["denoiser_sha256"] != tensors_checksum(denoiser)


def test_the_steps_that_run_stand_beside_those_asked_for(tmp_path):
    method = DenoiserMethod("x", str(tmp_path))
    assert method.uses(Sampling())["executed_steps"] == 20
    released = method.uses(Sampling(start="release"))
    assert (released["steps"], released["executed_steps"], released["strength"]) == (20, 19, 0.99)
    assert MeanMethod("mean").uses(Sampling()) == {}
