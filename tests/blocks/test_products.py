"""Products by oneDNN, against torch's own layers."""

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from moebius.blocks import products
from moebius.blocks.products import Conv2d, Linear, adopt, product

LAYERS = {
    "linear": (lambda: nn.Linear(24, 40), (2, 9, 24)),
    "linear, no bias": (lambda: nn.Linear(24, 40, bias=False), (5, 24)),
    "pointwise": (lambda: nn.Conv2d(24, 40, 1), (2, 24, 5, 7)),
    "pointwise, no bias": (lambda: nn.Conv2d(24, 40, 1, bias=False), (1, 24, 20, 20)),
    "small map": (lambda: nn.Conv2d(24, 40, 3, padding=1), (2, 24, 4, 6)),
    "small map, stride": (lambda: nn.Conv2d(24, 40, 3, stride=2, padding=1), (2, 24, 5, 7)),
    "small map, dilated": (lambda: nn.Conv2d(24, 40, (3, 1), dilation=2), (2, 24, 9, 4)),
    "large map": (lambda: nn.Conv2d(24, 40, 3, padding=1), (2, 24, 18, 18)),
    "depthwise": (lambda: nn.Conv2d(24, 24, 3, padding=1, groups=24), (2, 24, 4, 4)),
    "same padding": (lambda: nn.Conv2d(24, 40, 3, padding="same"), (2, 24, 4, 4)),
    "reflected": (
        lambda: nn.Conv2d(24, 40, 3, padding=1, padding_mode="reflect"),
        (2, 24, 4, 4),
    ),
    "one map": (lambda: nn.Conv2d(24, 40, 1), (24, 5, 7)),
}


def results(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and gradients of all that wants one."""
    y = layer(x)
    weight = torch.linspace(-1, 1, y.numel()).view(y.shape)
    wanted = [t for t in (x, *layer.parameters()) if t.requires_grad]
    return [y, *(torch.autograd.grad(y, wanted, weight) if wanted else ())]


@pytest.mark.parametrize("case", LAYERS)
@pytest.mark.parametrize("trained", ["all", "input", "weights", "nothing"])
@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_outputs_and_gradients_are_those_of_torch(case: str, trained: str, order) -> None:
    make, shape = LAYERS[case]
    torch.manual_seed(0)
    layer, x = make().requires_grad_(trained in ("all", "weights")), torch.randn(shape)
    x = x.contiguous(memory_format=order) if x.ndim == 4 else x
    x.requires_grad_(trained in ("all", "input"))
    expected = results(layer, x)
    adopt(layer)
    assert type(layer) in (Linear, Conv2d)
    for a, b in zip(results(layer, x), expected, strict=True):
        assert a.shape == b.shape
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", ["linear", "pointwise", "small map"])
def test_float32_on_a_cpu_is_taken_and_nothing_else(case: str, monkeypatch) -> None:
    make, shape = LAYERS[case]
    layer, x = make(), torch.randn(shape)
    adopt(layer)
    taken: list[torch.dtype] = []
    multiply = products.by_onednn
    monkeypatch.setattr(products, "by_onednn", lambda *a: taken.append(a[0].dtype) or multiply(*a))
    layer(x)
    assert taken == [torch.float32]
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(x).dtype == torch.bfloat16
    assert layer.double()(x.double()).dtype == torch.double
    assert layer.to("meta")(x.to("meta").double()).is_meta
    assert taken == [torch.float32]


def test_a_recorded_program_holds_portable_operators() -> None:
    model = nn.Sequential(nn.Conv2d(4, 8, 1), nn.Conv2d(8, 8, 3, padding=1))
    adopt(model)
    program = torch.export.export(model.eval(), (torch.randn(1, 4, 6, 6),))
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert called and all("conv2d" in name for name in called)
    assert "mkldnn" not in str(torch.jit.trace(model, torch.randn(1, 4, 6, 6)).graph)


def test_adopting_keeps_weights_and_leaves_others_kinds_alone() -> None:
    class Own(nn.Linear):
        pass

    model = nn.ModuleDict({"linear": nn.Linear(2, 3), "own": Own(2, 3), "norm": nn.LayerNorm(3)})
    before = model.state_dict(keep_vars=True)
    adopt(model)
    assert [type(m) for m in model.values()] == [Linear, Own, nn.LayerNorm]
    assert all(tensor is before[key] for key, tensor in model.state_dict(keep_vars=True).items())


def test_windows_are_not_kept() -> None:
    make, shape = LAYERS["small map"]
    layer, kept = make(), list[int]()
    adopt(layer)
    with saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        layer(torch.randn(shape, requires_grad=True))
    assert sorted(kept) == sorted([torch.Size(shape).numel(), layer.weight.numel()])


def test_a_transposed_weight_needs_no_copy() -> None:
    x, weight = torch.randn(6, 4), torch.randn(4, 5)
    torch.testing.assert_close(product(x, weight.mT), x @ weight)
