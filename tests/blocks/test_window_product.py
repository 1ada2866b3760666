"""Q first, then the window: against the convolution and the product that it stands for."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F

from moebius.blocks import window_product as module
from moebius.blocks.window_product import make_plan, window_product

HEADS, KEY, VALUE = 3, 4, 5


def plain(q, v, kernel):
    """lambda_p of every position by a convolution, then its product with Q."""
    padding = (0, kernel.shape[1] // 2, kernel.shape[2] // 2)
    lambdas = F.conv3d(v.permute(0, 3, 1, 2).unsqueeze(1), kernel[:, None, None], padding=padding)
    return torch.einsum("byxhk,bkvyx->byxhv", q, lambdas)


def draw(size, window, batch=2, dtype=torch.double):
    generator = torch.Generator().manual_seed(0)
    shapes = (
        (batch, *size, HEADS, KEY),
        (batch, *size, VALUE),
        (KEY, *((window, window) if isinstance(window, int) else window)),
    )
    return [torch.randn(s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


@pytest.fixture(params=["whole", "in pieces"])
def _pieces(request, monkeypatch):
    """Pieces of a single row too, as a large map has them."""
    make_plan.cache_clear()
    if request.param == "in pieces":
        monkeypatch.setattr(module, "PIECE_BYTES", {"cpu": 1})
    yield
    make_plan.cache_clear()


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize(
    ("size", "window"),
    [
        ((8, 8), 5),  # tiles do not pay
        ((16, 16), 3),  # four tiles
        ((5, 7), 15),  # a window larger than the map
        ((1, 1), 15),
        ((2, 30), 15),  # larger in one direction only
        ((30, 2), 15),
        ((9, 27), 7),  # a last tile that is not full
        ((19, 6), (3, 1)),
    ],
)
def test_values_and_gradients_are_those_of_the_convolution(size, window) -> None:
    inputs = draw(size, window)
    expected, actual = plain(*inputs), window_product(*inputs)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn(expected.shape, dtype=torch.double)
    for a, b in zip(
        torch.autograd.grad(actual, inputs, weight),
        torch.autograd.grad(expected, inputs, weight),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.usefixtures("_pieces")
@pytest.mark.parametrize(("top", "bottom"), [(0, 9), (0, 1), (2, 4), (5, 9), (8, 9)])
@pytest.mark.parametrize("window", [3, 7, 19])
def test_some_rows_are_those_of_the_whole_map(top: int, bottom: int, window: int) -> None:
    q, v, kernel = draw((9, 27), window)
    rows = window_product(q[:, top:bottom], v, kernel, top)
    whole = plain(q, v, kernel)[:, top:bottom]
    torch.testing.assert_close(rows, whole, rtol=1e-10, atol=1e-10)
    expected, actual = (
        torch.autograd.grad(y.square().sum(), (q, v, kernel)) for y in (whole, rows)
    )
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-8)


def test_without_gradients_it_is_the_same() -> None:
    inputs = draw((6, 22), 7)
    with torch.no_grad():
        torch.testing.assert_close(window_product(*inputs), window_product(*inputs).detach())
        torch.testing.assert_close(window_product(*inputs), plain(*inputs))


@pytest.mark.parametrize("which", [0, 1, 2])
def test_one_input_alone_may_want_a_gradient(which: int) -> None:
    inputs = [t.detach() for t in draw((6, 9), 5)]
    inputs[which].requires_grad_()
    (actual,) = torch.autograd.grad(window_product(*inputs).square().sum(), inputs[which])
    (expected,) = torch.autograd.grad(plain(*inputs).square().sum(), inputs[which])
    torch.testing.assert_close(actual, expected)


def test_bfloat16_sums_up_in_float32() -> None:
    exact = draw((24, 24), 15, dtype=torch.float32)
    half = [t.detach().bfloat16().requires_grad_() for t in exact]
    gradients = []
    for inputs in (exact, half):
        out = window_product(*inputs)
        gradients.append(torch.autograd.grad(out, inputs, torch.ones_like(out)))
    for a, b in zip(*gradients, strict=True):
        assert b.dtype == torch.bfloat16
        assert (a - b.float()).norm() < 0.02 * a.norm()


def test_no_lambda_is_kept() -> None:
    q, v, kernel = draw((16, 16), 7)
    kept: list[int] = []
    with saved_tensors_hooks(lambda t: kept.append(t.numel()) or t, lambda t: t):
        window_product(q, v, kernel)
    assert max(kept) <= max(q.numel(), v.numel()) < KEY * VALUE * 2 * 16 * 16


def test_plans_tile_where_it_saves_work_and_cut_to_the_cache() -> None:
    assert make_plan(16, 16, 8, 15, 15, 4, "cpu").tile == 16
    wide = make_plan(64, 64, 8, 15, 15, 4, "cpu")
    assert (wide.tile, wide.columns) == (4, 18)
    assert wide.rows * wide.tile * 8 * 15 * wide.columns * 4 <= 2**20 and wide.batch == 1
    assert make_plan(64, 64, 8, 15, 15, 2, "cpu").rows > wide.rows
    launched = make_plan(64, 64, 8, 15, 15, 2, "cuda")
    assert launched.rows == 64 and launched.batch > 8
