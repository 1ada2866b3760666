import pytest
import torch

from moebius.blocks import InteractiveLambda, LocalLambda, gated_linear_attention, local_lambda
from moebius.blocks.gated_linear_attention import chunked_gla
from moebius.blocks.window_product import window_product
from moebius.deploy.forms import gla_over_chunks, graph_forms, resampled_table, window_lambda


def draw(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize("tokens", [7, 32, 100, 1000])
def test_the_sum_over_chunks_is_the_recurrence(tokens):
    q, k, v, gate = draw(*[(2, tokens, 3, 4)] * 2, (2, tokens, 3, 8), (2, tokens, 3, 4))
    q, k, v, gate = (t.float() for t in (q, k, v, -gate.abs() / 16))
    torch.testing.assert_close(
        gla_over_chunks(q, k, v, gate), chunked_gla(q, k, v, gate), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(("height", "width"), [(3, 5), (9, 30), (20, 11)])
def test_the_convolution_is_the_window_product(height, width):
    q, v, kernel = draw((2, height, width, 4, 6), (2, height, width, 5), (6, 7, 7))
    torch.testing.assert_close(window_lambda(q, v, kernel), window_product(q, v, kernel))


@pytest.mark.parametrize("size", [(4, 4), (3, 7), (8, 4)])
def test_the_resampled_table_is_the_table_at_every_size(size):
    operator = InteractiveLambda(8, context_dim=4, heads=2, context_length=3, size=(4, 4))
    torch.testing.assert_close(resampled_table(operator, size), operator.position_table(size))


def test_the_forms_last_as_long_as_their_block_even_when_it_fails():
    operator, (x,) = LocalLambda(8, heads=2).double().eval(), draw((1, 12, 8))
    expected = operator(x, (3, 4))
    with pytest.raises(KeyError), graph_forms():
        assert local_lambda.window_product is window_lambda
        torch.testing.assert_close(operator(x, (3, 4)), expected)
        raise KeyError
    assert local_lambda.window_product is window_product
    assert gated_linear_attention.gated_linear_attention is not gla_over_chunks
