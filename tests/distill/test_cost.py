"""FLOPs and bytes by hand, against torch's own counter, and against real files."""

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from moebius.config import Recipe, parse
from moebius.data.latents import CachedLatents
from moebius.distill.cost import (
    Cost,
    checkpoint_bytes,
    codec_macs,
    encoding_cost,
    inpainting_cost,
    latents_bytes,
    perceptual_macs,
    sample_cost,
    update_cost,
)
from moebius.distill.perceptual import ELatentLPIPS
from moebius.distill.run_folder import RunFolder
from moebius.distill.trainer import Trainer
from moebius.distill.world import World
from moebius.models.codec import LatentCodec, load_codec
from moebius.models.complexity import measure_complexity
from moebius.models.denoiser import Denoiser, build

SIZES = {"latent_size": 8, "lcg_dim": 16, "context_dim": 8, "norm_groups": 8, "heads": 4}
STUDENT = {**SIZES, "widths": [16, 16, 32], "depths": [1, 1, 1]}
TEACHER = {**SIZES, "widths": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}


def recipe(**changes) -> Recipe:
    data = {
        "model": STUDENT,
        "data": {"size": 64},
        "distill": {"losses": ["fine", "task"]},
        "training": {"steps": 2, "global_batch": 2},
    }
    return parse(Recipe, {**data, **changes}, "test")


def student() -> Denoiser:
    return build("lmi_dw_mixffn", **STUDENT)


@pytest.fixture(scope="module")
def codec() -> LatentCodec:
    return load_codec("builtin")


def test_a_sample_is_three_students_a_teacher_and_two_encoders(codec):
    teacher = build("pixelhacker", **TEACHER)
    cost = sample_cost(recipe(), student(), teacher, codec)
    macs = {
        "student": 3 * 1e9 * measure_complexity("lmi_dw_mixffn", 8, **STUDENT).gmacs,
        "teacher": 1e9 * measure_complexity("pixelhacker", 8, **TEACHER).gmacs,
        "encoder": 2 * codec_macs(codec, 64)[0],
    }
    assert cost.flops == pytest.approx({part: 2 * count for part, count in macs.items()})
    assert cost.total == pytest.approx(2 * sum(macs.values()))
    assert cost.precision == {"student": "fp32", "teacher": "fp32", "encoder": "tf32"}


def test_what_a_recipe_switches_off_or_on_is_counted_so(codec):
    plain = sample_cost(recipe(), student(), None, codec).flops
    cached = sample_cost(recipe(data={"size": 64, "cache": 4}), student(), None, codec).flops
    assert plain.keys() - cached.keys() == {"encoder"}
    training = {"steps": 2, "global_batch": 2, "activation_checkpointing": True}
    again = sample_cost(recipe(training=training), student(), None, codec).flops
    assert again["student"] == pytest.approx(4 / 3 * plain["student"])
    losses = {"losses": ["task", "perceptual"], "perceptual_weights": "random"}
    perceived = sample_cost(recipe(distill=losses), student(), None, codec)
    assert perceived.flops["perceptual"] == 2 * 3 * perceptual_macs(8)


def test_the_perceptual_metric_is_counted_as_torch_counts_it():
    metric = ELatentLPIPS("random")
    x = torch.zeros(1, 4, 16, 16)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        metric(x, x)
    # Two latents; the heads, one channel each, are not ours to count.
    heads = 16 * 16 * (64 + 128 + 256 + 512 / 4 + 512 / 16)
    assert counter.get_total_flops() / 2 == pytest.approx(2 * perceptual_macs(16) + heads, rel=1e-3)


def test_the_sdxl_codecs_encoder_costs_what_is_known_of_it():
    """541 GMACs at 512 px in convolutions and Linears, and 17 in the attention of its middle."""
    from moebius.models.codec import AutoencoderKL
    from moebius.planning.networks import SDXL_VAE

    with torch.device("meta"):
        sdxl = LatentCodec(AutoencoderKL.from_config(SDXL_VAE), "sdxl")
    attention = 2 * 512 * (64 * 64) ** 2
    assert codec_macs(sdxl, 512)[0] - attention == pytest.approx(541e9, rel=1e-3)


def test_an_update_is_muons_products_on_every_matrix():
    linear = torch.nn.Linear(6, 4)
    macs = 5 * (2 * 4 * 4 * 6 + 4**3)  # gram, polynomial of the gram (4x4x4), and its product
    assert update_cost(recipe(), linear).total == 2 * macs
    assert update_cost(recipe(optimizer={"name": "adamw"}), linear).total == 0


def test_a_scored_picture_has_two_branches_where_guidance_is_on(codec):
    encoder, decoder = codec_macs(codec, 64)
    step = 1e9 * measure_complexity("lmi_dw_mixffn", 8, **STUDENT).gmacs
    for guidance, branches in ((1.0, 1), (2.5, 2)):
        cost = inpainting_cost(student(), codec, 64, 20, guidance)
        assert cost.total == pytest.approx(2 * (2 * encoder + decoder + 20 * branches * step))
    assert encoding_cost(codec, 64).total == 4 * encoder


def test_costs_add_up_and_multiply():
    one = Cost({"a": 1.0, "b": 2.0}, {"a": "bf16", "b": "fp32"})
    both = one.times(2) + Cost({"b": 3.0}, {"b": "fp32"})
    assert both.flops == {"a": 2.0, "b": 7.0} and both.total == 9


@pytest.mark.parametrize(
    "optimizer", [{"ema": 0.9}, {"ema": None}, {"name": "adamw"}], ids=["muon", "no-ema", "adamw"]
)
def test_a_checkpoint_is_as_large_as_estimated(tmp_path: Path, codec, optimizer):
    chosen = recipe(optimizer=optimizer, distill={"losses": ["task"]})
    latents = CachedLatents(
        {
            "clean": torch.rand(4, 2, 4, 8, 8),
            "masked": torch.rand(4, 2, 4, 8, 8),
            "mask": torch.ones(4, 1, 8, 8),
            "category": torch.zeros(4, dtype=torch.long),
        }
    )
    run = RunFolder(tmp_path)
    run.prepare(chosen)
    world = World(0, 1, torch.device("cpu"))
    Trainer(chosen, student(), None, latents, codec, None, run, world).run()
    files = (tmp_path / "checkpoints" / "step_000002").iterdir()
    size = sum(file.stat().st_size for file in files if file.suffix != ".json")
    assert checkpoint_bytes(chosen, student()) == pytest.approx(size, rel=0.1)
    if "ema" not in optimizer or optimizer["ema"]:
        without = recipe(optimizer={**optimizer, "ema": None})
        assert checkpoint_bytes(without, student()) < 0.9 * size


def test_cached_latents_are_as_large_as_estimated(codec):
    latents = {
        "clean": torch.zeros(3, 2, 4, 8, 8),
        "masked": torch.zeros(3, 2, 4, 8, 8),
        "mask": torch.zeros(3, 1, 8, 8),
        "category": torch.zeros(3, dtype=torch.long),
    }
    size = sum(t.numel() * t.element_size() for t in latents.values())
    assert latents_bytes(recipe(data={"size": 64, "cache": 3}), codec) == size
