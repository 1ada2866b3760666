import json
import logging
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from moebius.distill.augment import apply_affine, draw_augmentations
from moebius.distill.perceptual import ELatentLPIPS

SHAPES = Path(__file__).parents[1] / "data" / "elatentlpips_checkpoint_shapes.json"
# VGG16's `features` with batch normalisation: the numbers of its convolutions; pools and taps.
CONVOLUTIONS = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
POOLS = (33, 43)
TAPS = (6, 13, 23, 33, 43)


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    """A checkpoint in the release's layout, with running statistics that matter."""
    generator = torch.Generator().manual_seed(5)
    state = {}
    for key, shape in json.loads(SHAPES.read_text()).items():
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(0)
        elif len(shape) == 4 and shape[0] > 1:
            fan_in = shape[1] * 9
            state[key] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
        else:
            state[key] = torch.rand(shape, generator=generator) * 0.5 + 0.5
    for i in range(5):
        state[f"lins.{i}.model.1.weight"] = state[f"lin{i}.model.1.weight"]
    return state


@pytest.fixture(scope="module")
def metric(state) -> ELatentLPIPS:
    return ELatentLPIPS(state)


@pytest.fixture(scope="module")
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    x, y = torch.randn(2, 2, 4, 8, 12, generator=torch.Generator().manual_seed(1))
    return x, y


def reference(state, x, y):
    """The definition, written layer by layer from the checkpoint's numbers."""
    distance = (x - y).abs().mean((1, 2, 3))
    tensors = {k.split(".", 2)[2]: v for k, v in state.items() if k.startswith("net.")}
    for layer in range(44):
        if layer in CONVOLUTIONS:
            weight, bias = tensors[f"{layer}.weight"], tensors[f"{layer}.bias"]
            norm = [
                tensors[f"{layer + 1}.{name}"]
                for name in ("running_mean", "running_var", "weight", "bias")
            ]
            x, y = (
                F.batch_norm(F.conv2d(z, weight, bias, padding=1), *norm).relu() for z in (x, y)
            )
        if layer in POOLS:
            x, y = F.max_pool2d(x, 2), F.max_pool2d(y, 2)
        if layer in TAPS:
            head = state[f"lin{TAPS.index(layer)}.model.1.weight"].flatten()
            p, q = (z / (z.pow(2).sum(1, keepdim=True) + 1e-8).sqrt() for z in (x, y))
            distance = distance + torch.einsum("bchw,c->bhw", (p - q) ** 2, head).mean((1, 2))
    return distance


def test_state_dict_is_the_release_layout(metric):
    shapes = {key: list(tensor.shape) for key, tensor in metric.state_dict().items()}
    assert shapes == json.loads(SHAPES.read_text())
    assert metric.lin3 is metric.lins[3]


def test_matches_the_definition(metric, state, pair):
    distance = metric(*pair)
    assert distance.shape == (2,)
    torch.testing.assert_close(distance, reference(state, *pair))


def test_zero_for_equals_and_symmetric(metric, pair):
    x, y = pair
    assert metric(x, x).abs().max() == 0
    torch.testing.assert_close(metric(x, y), metric(y, x))


def test_frozen_in_eval_mode_and_differentiable(metric, pair):
    x, y = (z.clone().requires_grad_() for z in pair)
    metric.train()
    assert not any(module.training for module in metric.modules())
    metric(x, y, augment=True, generator=torch.Generator().manual_seed(0)).sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0
    assert y.grad.abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in metric.parameters())


def test_one_augmentation_for_both_latents(metric, state, pair):
    theta = draw_augmentations([torch.Generator().manual_seed(i) for i in (5, 6)], 8, 12)
    generators = [torch.Generator().manual_seed(i) for i in (5, 6)]
    x, y = pair
    moved = [apply_affine(z, theta) for z in pair]
    # The L1 term stays that of the latents as they came.
    expected = (
        reference(state, *moved)
        - (moved[0] - moved[1]).abs().mean((1, 2, 3))
        + (x - y).abs().mean((1, 2, 3))
    )
    distance = metric(x, y, augment=True, generator=generators)
    torch.testing.assert_close(distance, expected)
    assert (distance - metric(x, y)).abs().min() > 1e-4
    assert metric(x, x, augment=True).abs().max() == 0


def test_a_split_batch_gets_the_same_distances(metric, pair):
    def generators(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    whole = metric(*pair, augment=True, generator=generators(1, 2))
    halves = [
        metric(*(z[i : i + 1] for z in pair), augment=True, generator=generators(i + 1))
        for i in range(2)
    ]
    torch.testing.assert_close(whole, torch.cat(halves))
    with pytest.raises(ValueError, match="3 generators for 2 samples"):
        metric(*pair, augment=True, generator=generators(1, 2, 3))


def test_bfloat16_latents_give_float32_distances(metric, pair):
    distance = metric(*(z.bfloat16() for z in pair))
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, metric(*pair), rtol=0.05, atol=0)


def test_sizes(metric):
    assert metric(torch.randn(1, 4, 4, 4), torch.randn(1, 4, 4, 4)).isfinite().all()
    with pytest.raises(ValueError, match="at least 4x4"):
        metric(torch.randn(1, 4, 3, 8), torch.randn(1, 4, 3, 8))
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\)"):
        metric(torch.randn(1, 3, 8, 8), torch.randn(1, 3, 8, 8))


def test_reads_both_file_kinds(metric, state, pair, tmp_path):
    torch.save(state, tmp_path / "weights.pth")
    save_file({k: v.clone() for k, v in state.items()}, tmp_path / "weights.safetensors")
    for name in ("weights.pth", "weights.safetensors"):
        assert ELatentLPIPS(tmp_path / name)(*pair).equal(metric(*pair))
    assert not metric.made_up


def test_refuses_weights_that_do_not_fit(state, tmp_path):
    first = "net.slice1.0.weight"
    with pytest.raises(ValueError, match=f"1 missing: {first}; 1 unexpected: extra"):
        ELatentLPIPS({k: v for k, v in state.items() if k != first} | {"extra": torch.ones(1)})
    with pytest.raises(ValueError, match=r"\(64, 16, 3, 3\) \(not \(64, 4, 3, 3\)\)"):
        ELatentLPIPS(state | {first: torch.ones(64, 16, 3, 3)})
    with pytest.raises(ValueError, match=r"differ between lin2 and lins\.2"):
        ELatentLPIPS(state | {"lins.2.model.1.weight": torch.ones(1, 256, 1, 1)})
    with pytest.raises(ValueError, match="No E-LatentLPIPS weights at"):
        ELatentLPIPS(tmp_path / "absent.pth")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(Path("x"), protocol=2))
    with pytest.raises(ValueError, match="no file of weights alone"):
        ELatentLPIPS(tmp_path / "code.pth")


def test_no_weights_names_the_remedies():
    with pytest.raises(
        ValueError, match=r"huggingface.*non-commercial.*perceptual_weights: random"
    ):
        ELatentLPIPS(None)


def test_random_weights_are_seeded_and_say_so(pair, caplog):
    before = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        metric = ELatentLPIPS("random")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "made-up" in caplog.text and metric.made_up
    assert torch.get_rng_state().equal(before)
    assert all((head.model[1].weight >= 0).all() for head in metric.lins)
    distance = metric(*pair)
    assert distance.isfinite().all() and (distance > 0).all()
    assert distance.equal(ELatentLPIPS("random")(*pair))


def test_needs_no_torchvision():
    code = "import sys, moebius.distill.perceptual; sys.exit('torchvision' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
