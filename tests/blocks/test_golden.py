"""Every operator against the release's values (tests/data/golden, made-up weights, float32)."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from moebius import blocks

GOLDEN = Path(__file__).parents[1] / "data" / "golden"

CASES = {
    "local_lambda_r15": (lambda: blocks.LocalLambda(64, 8, 15), (8, 8)),
    "local_lambda_r7": (lambda: blocks.LocalLambda(48, 4, 7), (12, 12)),
    "interactive_lambda": (lambda: blocks.InteractiveLambda(64, 24, size=(8, 8)), (8, 8)),
    "mix_ffn": (lambda: blocks.MixFeedForward(48), (8, 8)),
    "gla_t64": (lambda: blocks.GatedLinearAttention(64), (8, 8)),
    "gla_t144": (lambda: blocks.GatedLinearAttention(64), (12, 12)),
    "dwconv_same": (lambda: blocks.DepthwiseSeparableConv(32, 32), None),
    "dwconv_widen": (lambda: blocks.DepthwiseSeparableConv(32, 64), None),
    "dw_resnet": (lambda: blocks.ResidualBlock(32, 64, 128, conv="dw_conv"), None),
}


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize("name", CASES)
def test_operator_reproduces_the_release(name: str) -> None:
    build, size = CASES[name]
    golden = load_file(GOLDEN / f"{name}.safetensors")
    weights = {k.removeprefix("weight."): v for k, v in golden.items() if k.startswith("weight.")}
    operator = build().eval()
    operator.load_state_dict(weights)
    inputs = [golden[k] for k in sorted(golden) if k.startswith("input.")]
    with torch.no_grad():
        output = operator(*inputs, *([] if size is None else [size]))
    assert relative_error(output, golden["output"]) < 1e-5
