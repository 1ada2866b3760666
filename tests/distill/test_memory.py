"""The memory estimate against what torch's profiler sees allocated."""

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

import moebius
from moebius.config import Recipe, parse
from moebius.distill.memory import estimate_memory, saved_bytes
from moebius.models.denoiser import Denoiser, category_ids

SMALL = {"lcg_dim": 48, "context_dim": 24, "latent_size": 16}
BATCH = 4


def make(arch: str) -> Denoiser:
    stages = 4 if arch == "pixelhacker" else 3
    return moebius.build(arch, widths=[32, 64, 64, 64][:stages], depths=[1] * stages, **SMALL)


def recipe(**changes) -> Recipe:
    data = {
        "data": {"size": 128},
        "training": {"steps": 1, "global_batch": 4, **changes.pop("training", {})},
        **changes,
    }
    return parse(Recipe, data, "recipe")


def held_bytes(model: Denoiser) -> int:
    """Bytes a sample that a forward pass leaves allocated while its output lives."""
    x, ids = torch.randn(BATCH, 9, 16, 16), category_ids(torch.zeros(BATCH))
    model(x, torch.zeros(BATCH), ids)  # what is made once does not count
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        output = model(x, torch.zeros(BATCH), ids)
    del output
    return sum(event.self_cpu_memory_usage for event in recorded.key_averages()) // BATCH


@pytest.mark.parametrize(
    ("arch", "checkpointing"),
    [("lmi_dw_mixffn", False), ("pixelhacker", False), ("lmi_dw_mixffn", True)],
)
def test_activations_are_those_that_a_forward_pass_keeps(arch: str, checkpointing: bool):
    model = make(arch).train()
    if checkpointing:
        model.enable_gradient_checkpointing()
    estimate = saved_bytes(model.architecture, 16, checkpointing)
    assert estimate == pytest.approx(held_bytes(model), rel=0.2)


def test_parts_are_counted_from_parameters():
    student, teacher = make("lmi_dw_mixffn"), make("pixelhacker")
    own, theirs = (sum(p.numel() for p in m.parameters()) for m in (student, teacher))
    adamw = estimate_memory(
        recipe(optimizer={"name": "adamw", "ema": 0.99}), student, teacher, BATCH
    )
    assert adamw.weights == 8 * own  # weight and gradient
    assert adamw.optimizer == 4 * 3 * own  # two moments and the average
    assert adamw.teacher == 4 * theirs
    assert adamw.activations == BATCH * saved_bytes(student.architecture, 16)
    parts = (adamw.weights, adamw.optimizer, adamw.teacher, adamw.activations)
    assert adamw.total == sum(parts)
    alone = estimate_memory(recipe(optimizer={"name": "adamw", "ema": None}), student, None, BATCH)
    assert (alone.optimizer, alone.teacher) == (8 * own, 0)


def test_muon_keeps_less_than_adamw_and_bf16_half_the_activations():
    student = make("lmi_dw_mixffn")
    muon = estimate_memory(recipe(optimizer={"ema": None}), student, None, 2)
    parameters = sum(p.numel() for p in student.parameters())
    assert 4 * parameters < muon.optimizer < 8 * parameters
    half = estimate_memory(recipe(training={"precision": "bf16"}), student, None, 2)
    assert half.activations == muon.activations // 2
    less = estimate_memory(recipe(training={"activation_checkpointing": True}), student, None, 2)
    assert less.activations < muon.activations / 4


def test_the_students_on_meta_cost_nothing_and_stay_as_they_are():
    with torch.device("meta"):
        student = moebius.build("lmi_dw_mixffn")
    paper = recipe(data={"size": 512}, training={"global_batch": 48})
    memory = estimate_memory(paper, student, None, 48)
    assert 10 < memory.activations / 2**30 < 1000
    real = make("lmi_dw_mixffn")
    estimate_memory(recipe(), real, None, 1)
    assert next(real.parameters()).device.type == "cpu"
