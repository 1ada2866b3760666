"""Whole denoisers: the release's values, every architecture at tiny widths, any latent size."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import moebius
from moebius.models.architectures import NAMES
from moebius.models.denoiser import category_ids
from moebius.models.released import released_state_dict

GOLDEN = Path(__file__).parents[1] / "data" / "golden"
SMALL = {"lcg_dim": 48, "context_dim": 24, "latent_size": 16}
WIDTHS = {"lmi_dw_mixffn": (32, 32, 64), "pixelhacker": (32, 32, 64, 64)}


def tiny(arch: str, **options) -> moebius.Denoiser:
    widths = (32, 32, 32, 32) if arch == "pixelhacker" else (32, 32, 32)
    return moebius.build(arch, **{"widths": widths, **SMALL, **options})


@pytest.mark.parametrize(
    ("file", "arch"), [("tiny_student", "lmi_dw_mixffn"), ("tiny_teacher", "pixelhacker")]
)
def test_denoiser_reproduces_the_release(file: str, arch: str) -> None:
    golden = load_file(GOLDEN / f"{file}.safetensors")
    weights = {k.removeprefix("weight."): v for k, v in golden.items() if k.startswith("weight.")}
    model = tiny(arch, widths=WIDTHS[arch]).eval()
    moebius.load_released(model, weights)
    with torch.no_grad():
        inputs = (golden[f"input.{k}"] for k in ("sample", "timestep", "input_ids"))
        out = model(*inputs)
    assert (out.sample - golden["output"]).norm() < 1e-5 * golden["output"].norm()
    for i, feature in enumerate(out.features.values()):
        expected = golden[f"features.{i}"]
        assert (feature - expected).norm() < 1e-5 * expected.norm()
    returned = released_state_dict(model)
    assert returned.keys() == weights.keys()
    assert all(torch.equal(returned[k], weights[k]) for k in weights)


@pytest.mark.parametrize(
    ("arch", "file"), [("lmi_dw_mixffn", "moebius"), ("pixelhacker", "pixelhacker")]
)
def test_keys_and_shapes_are_the_released_ones(arch: str, file: str) -> None:
    expected = json.loads((GOLDEN / f"{file}_checkpoint_shapes.json").read_text())
    with torch.device("meta"):
        model = moebius.build(arch)
    assert {k: list(v.shape) for k, v in released_state_dict(model).items()} == expected


@pytest.mark.parametrize("arch", NAMES)
def test_every_architecture_trains_and_round_trips(arch: str, tmp_path: Path) -> None:
    model = tiny(arch)
    sample, steps = torch.randn(2, 9, 16, 16), torch.tensor([3, 700])
    ids = category_ids(torch.tensor([0, 1]))
    out = model(sample, steps, ids)
    assert {k: tuple(v.shape[1:]) for k, v in out.features.items()} == model.feature_shapes()
    out.sample.square().mean().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    model.eval().save_pretrained(tmp_path)
    again = moebius.Denoiser.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert torch.equal(model(sample, steps, ids).sample, again(sample, steps, ids).sample)


@pytest.mark.parametrize("arch", ["lmi_dw_mixffn", "pixelhacker"])
@pytest.mark.parametrize("size", [(4, 4), (12, 20), (20, 12), (16, 16)])
def test_any_latent_size(arch: str, size: tuple[int, int]) -> None:
    widths = (64, 64, 64, 64) if arch == "pixelhacker" else (64, 64, 64)
    model = tiny(arch, widths=widths).eval()
    out = model(torch.randn(1, 9, *size), 10, category_ids(torch.tensor([0])))
    assert out.sample.shape == (1, 4, *size)


def test_mixed_stages_from_yaml(tmp_path: Path) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text(
        "base: lmi_dw_mixffn\nwidths: [32, 64, 96]\nlatent_size: 16\nstages:\n"
        "- {conv: conv}\n- {self: gla}\n- {self: {name: local_lambda, window: 5}, mixing: true}\n"
    )
    model = moebius.build(path, lcg_dim=48, context_dim=24)
    assert model.architecture.name == "mixed"
    kinds = [
        type(stage.attentions[0].transformer_blocks[0].attn1).__name__
        for stage in model.unet.down_blocks
    ]
    assert kinds == ["LocalLambda", "GatedLinearAttention", "LocalLambda"]
    assert (
        model(torch.randn(1, 9, 16, 16), 5, category_ids(torch.tensor([1]))).sample.isfinite().all()
    )


def test_anchors_lie_where_the_losses_pass() -> None:
    student = tiny("lmi_dw_mixffn").train()
    out = student(
        torch.randn(2, 9, 16, 16), torch.tensor([1, 9]), category_ids(torch.tensor([0, 1]))
    )
    coarse = out.features[student.coarse_tap].square().mean()
    (at_tap,) = torch.autograd.grad(coarse, student.theta_c, retain_graph=True)
    (at_out,) = torch.autograd.grad(out.sample.square().mean(), student.theta_f)
    assert at_tap.abs().sum() > 0 and at_out.abs().sum() > 0
    named = {id(p): name for name, p in student.named_parameters()}
    assert named[id(student.theta_c)] == "unet.down_blocks.2.attentions.1.proj_out.weight"
    assert named[id(student.theta_f)] == "unet.conv_out.conv_pw.weight"


def test_gradient_checkpointing_changes_nothing() -> None:
    torch.manual_seed(0)
    model = tiny("lmi_dw_mixffn").train()
    args = (torch.randn(2, 9, 16, 16), torch.tensor([1, 9]), category_ids(torch.tensor([0, 1])))
    results = []
    start = {k: v.clone() for k, v in model.state_dict().items()}
    for switch in (model.disable_gradient_checkpointing, model.enable_gradient_checkpointing):
        model.load_state_dict(start)
        switch()
        model.zero_grad()
        model(*args).sample.square().mean().backward()
        buffers = {k: v.clone() for k, v in model.named_buffers()}
        results.append((buffers, {k: p.grad.clone() for k, p in model.named_parameters()}))
    for plain, checkpointed in zip(*results, strict=True):
        assert all(torch.allclose(plain[k], checkpointed[k], rtol=1e-5, atol=1e-7) for k in plain)


@pytest.mark.parametrize("arch", ["lmi_dw_mixffn", "gla_ca_conv_ffn"])
def test_training_starts_near_predicting_zero(arch: str) -> None:
    out = tiny(arch).train()(torch.randn(4, 9, 16, 16), 500, category_ids(torch.zeros(4)))
    assert 0 < out.sample.std() < 0.2


def test_category_ids() -> None:
    ids = category_ids(torch.tensor([0, 1]))
    assert ids.tolist() == [list(range(10)), list(range(10, 20))]
