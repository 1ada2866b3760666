"""The registry: user operators, and errors that list what exists."""

import pytest
import torch
from torch import nn

import moebius
from moebius.blocks import registry
from moebius.models.denoiser import category_ids


@pytest.fixture(autouse=True)
def _restore_registry(monkeypatch):
    monkeypatch.setattr(
        registry, "_OPERATORS", {slot: dict(table) for slot, table in registry._OPERATORS.items()}
    )


def test_a_users_operator_is_built_into_a_denoiser() -> None:
    @registry.register("cross", "mine")
    class Mine(nn.Module):
        def __init__(self, dim: int, context_dim: int, gain: float = 1.0) -> None:
            super().__init__()
            self.to_v, self.gain = nn.Linear(context_dim, dim), gain

        def forward(self, x, context, size):
            return x + self.gain * self.to_v(context).mean(1, keepdim=True)

    stage = {"width": 32, "depth": 1, "cross": {"name": "mine", "gain": 0.5}}
    model = moebius.build({"stages": [stage]}, latent_size=8, lcg_dim=8, context_dim=8)
    mixer = model.unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2
    assert isinstance(mixer, Mine) and mixer.gain == 0.5
    out = model(torch.randn(1, 9, 8, 8), 1, category_ids(torch.tensor([0])))
    assert out.sample.shape == (1, 4, 8, 8)


def test_duplicate_names_are_refused() -> None:
    with pytest.raises(ValueError, match="already registered.*gla"):

        @registry.register("self", "gla")
        class Other(nn.Module):
            pass


@pytest.mark.parametrize(
    ("slot", "spec", "message"),
    [
        ("self", "locallambda", "did you mean 'local_lambda'.*registered: gla, local_lambda"),
        ("selv", "gla", "slots are self, cross, ffn, conv"),
        ("self", {"name": "local_lambda", "windw": 3}, "no option 'windw'; it takes: window"),
        ("self", {"window": 3}, "has no name"),
        ("self", {"name": "local_lambda", "window": 4}, "must be odd"),
    ],
)
def test_errors_list_what_exists(slot: str, spec, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        registry.create(slot, spec, dim=32, heads=8)


def test_width_must_divide_into_heads() -> None:
    with pytest.raises(ValueError, match="36 is not divisible by 8 heads"):
        registry.create("self", "local_lambda", dim=36, heads=8)
