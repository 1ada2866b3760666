"""Products for inference against the layers that they stand for."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moebius.models import fused_products as products
from moebius.models.fused_products import PointwiseConv, Product

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "swish": F.silu}


@pytest.mark.parametrize("onednn", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_product_is_the_layer_and_its_activation(activation, bias, onednn, monkeypatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(products, "ONEDNN", onednn and products.ONEDNN)
    layer, x = nn.Linear(24, 40, bias), torch.randn(2, 7, 24)
    with torch.no_grad():
        expected = ACTIVATIONS[activation](layer(x))
        torch.testing.assert_close(Product(layer, activation)(x), expected)
        torch.testing.assert_close(Product(layer, activation)(x[:, :0]), expected[:, :0])


def test_a_pointwise_convolution_takes_any_order_and_hands_out_channels_last() -> None:
    conv, x = nn.Conv2d(6, 10, 1), torch.randn(2, 6, 5, 4)
    with torch.no_grad():
        for given in (x, x.contiguous(memory_format=torch.channels_last)):
            actual = PointwiseConv(conv)(given)
            torch.testing.assert_close(actual, conv(x))
            assert actual.is_contiguous(memory_format=torch.channels_last)


def test_weights_are_shared() -> None:
    conv = nn.Conv2d(6, 10, 1)
    assert PointwiseConv(conv).product.weight.data_ptr() == conv.weight.data_ptr()


@pytest.mark.skipif(not products.ONEDNN, reason="no oneDNN")
def test_onednn_takes_what_it_can() -> None:
    x = torch.randn(2, 3)
    assert products._onednn_takes(x) and not products._onednn_takes(x.double())
    assert products._onednn_takes(x.bfloat16()) == products.BFLOAT16


@pytest.mark.skipif(not products.ONEDNN, reason="no oneDNN")
def test_a_compiler_sees_an_operator_that_it_need_not_understand() -> None:
    names: list[str] = []

    def backend(graph: torch.fx.GraphModule, inputs):
        names.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    layer, x = nn.Linear(24, 40), torch.randn(2, 24)
    product = Product(layer, "swish")
    with torch.no_grad():
        compiled = torch.compile(product, backend=backend, fullgraph=True)
        torch.testing.assert_close(compiled(x), product(x))
    assert any("onednn_product" in name for name in names)
    assert not any("_linear_pointwise" in name for name in names)
