"""Operators against the plain formulas that define them, gradients too."""

import pytest
import torch
from torch.nn import functional as F

from moebius.blocks import InteractiveLambda, LocalLambda, names
from moebius.blocks.gated_linear_attention import chunked_gla
from moebius.blocks.registry import create


def plain_gla(q, k, v, log_gate):
    """The recurrence, token by token."""
    state = torch.zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3], dtype=q.dtype)
    out = []
    for t in range(q.shape[1]):
        state = log_gate[:, t].exp().unsqueeze(-1) * state
        state = state + k[:, t].unsqueeze(-1) * v[:, t].unsqueeze(-2)
        out.append(torch.einsum("bhk,bhkv->bhv", q[:, t], state) * q.shape[-1] ** -0.5)
    return torch.stack(out, dim=1)


def plain_local_lambda(m: LocalLambda, x, size):
    """Eq. 1 with both lambdas written out, a window sum a position."""
    grid = x.transpose(1, 2).unflatten(2, size)
    q = m.norm_q(m.to_q(grid)).unflatten(1, (m.heads, -1)).flatten(3)
    k, v = m.to_k(grid).flatten(2).softmax(-1), m.norm_v(m.to_v(grid))
    kernel, r = m.pos_conv.weight[:, 0, 0], m.pos_conv.weight.shape[-1]
    windows = F.unfold(v.flatten(0, 1).unsqueeze(1), r, padding=r // 2)
    position = torch.einsum("kr,brn->bkn", kernel.flatten(1), windows)
    position = position.unflatten(0, v.shape[:2]) + m.pos_conv.bias[:, None]
    content = torch.einsum("bkn,bvn->bkv", k, v.flatten(2))
    y = torch.einsum("bhkn,bkv->bhvn", q, content)
    return (y + torch.einsum("bhkn,bvkn->bhvn", q, position)).flatten(1, 2).transpose(1, 2)


def plain_interactive_lambda(m: InteractiveLambda, x, context, size):
    """Eq. 2 in the order it is written."""
    grid = x.transpose(1, 2).unflatten(2, size)
    q = m.norm_q(m.to_q(grid)).unflatten(1, (m.heads, -1)).flatten(3)
    k, v = m.to_k(context).softmax(1), m.norm_v(m.to_v(context).transpose(1, 2))
    position = torch.einsum("nmk,bvm->bnkv", m.rel_pos_emb.squeeze(-1), v)
    content = torch.einsum("bmk,bvm->bkv", k, v)
    y = torch.einsum("bhkn,bkv->bhvn", q, content)
    return (y + torch.einsum("bhkn,bnkv->bhvn", q, position)).flatten(1, 2).transpose(1, 2)


def assert_same(fast, plain, inputs) -> None:
    expected = plain()
    grads = torch.autograd.grad(expected.square().sum(), inputs)
    actual = fast()
    torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-10)
    actual_grads = torch.autograd.grad(actual.square().sum(), inputs)
    for a, b in zip(actual_grads, grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("tokens", [1, 31, 32, 100])
def test_chunked_gla_is_the_recurrence(tokens: int) -> None:
    torch.manual_seed(0)
    # float32 inside: the reference runs in float64 on the same values.
    q, k, v = (torch.randn(2, tokens, 3, d) for d in (4, 4, 6))
    gate = F.logsigmoid(4 * torch.randn(2, tokens, 3, 4)) / 4
    expected = plain_gla(*(t.double() for t in (q, k, v, gate)))
    torch.testing.assert_close(chunked_gla(q, k, v, gate).double(), expected, rtol=1e-4, atol=1e-5)


def test_chunked_gla_gradients() -> None:
    torch.manual_seed(0)
    inputs = [torch.randn(1, 70, 2, d, requires_grad=True) for d in (4, 4, 6)]
    gate = (F.logsigmoid(torch.randn(1, 70, 2, 4)) / 16).requires_grad_()
    fast = torch.autograd.grad(chunked_gla(*inputs, gate).square().sum(), [*inputs, gate])
    plain = torch.autograd.grad(plain_gla(*inputs, gate).square().sum(), [*inputs, gate])
    for a, b in zip(fast, plain, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-3)


def test_gla_survives_strong_gates() -> None:
    q, k, v = (torch.randn(1, 64, 1, 4) for _ in range(3))
    gate = torch.full((1, 64, 1, 4), -5.0)
    expected = plain_gla(*(t.double() for t in (q, k, v, gate)))
    torch.testing.assert_close(chunked_gla(q, k, v, gate).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 8), (4, 12)])
def test_local_lambda_is_eq_1(size) -> None:
    torch.manual_seed(0)
    operator = LocalLambda(32, 4, 5).double().eval()
    x = torch.randn(2, size[0] * size[1], 32, dtype=torch.double, requires_grad=True)
    assert_same(
        lambda: operator(x, size),
        lambda: plain_local_lambda(operator, x, size),
        [x, *operator.parameters()],
    )


def test_interactive_lambda_is_eq_2() -> None:
    torch.manual_seed(0)
    operator = InteractiveLambda(32, 12, 4, size=(6, 6)).double().eval()
    x = torch.randn(2, 36, 32, dtype=torch.double, requires_grad=True)
    context = torch.randn(2, 10, 12, dtype=torch.double, requires_grad=True)
    assert_same(
        lambda: operator(x, context, (6, 6)),
        lambda: plain_interactive_lambda(operator, x, context, (6, 6)),
        [x, context, *operator.parameters()],
    )


def test_position_table_is_itself_at_its_size_and_resampled_elsewhere() -> None:
    operator = InteractiveLambda(32, 12, 4, size=(6, 6))
    assert operator.position_table((6, 6)).data_ptr() == operator.rel_pos_emb.data_ptr()
    assert operator.position_table((5, 9)).shape == (45, 10, 8)
    operator.rel_pos_emb.data.fill_(0.25)
    torch.testing.assert_close(operator.position_table((12, 3)), torch.full((36, 10, 8), 0.25))


@pytest.mark.parametrize("size", [(5, 9), (12, 3), (1, 1), (6, 7)])
def test_a_trained_table_is_resampled_as_bicubic_interpolation_is(size) -> None:
    operator = InteractiveLambda(32, 12, 4, size=(6, 6)).double()
    weights = torch.randn(size[0] * size[1], 10, 8, dtype=torch.double)

    def interpolated():
        maps = operator.rel_pos_emb.view(1, 6, 6, 80).permute(0, 3, 1, 2)
        return F.interpolate(maps, size=size, mode="bicubic")[0].flatten(1).mT.view_as(weights)

    found, grads = [], []
    for table in (operator.position_table(size), interpolated()):
        found.append(table.detach())
        grads.append(torch.autograd.grad((table * weights).sum(), operator.rel_pos_emb)[0])
    torch.testing.assert_close(*found, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*grads, rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # without a backward pass it is the interpolation itself
        torch.testing.assert_close(operator.position_table(size), found[1], rtol=0, atol=0)


def test_a_trained_table_is_resampled_in_its_own_precision_under_autocast() -> None:
    operator = InteractiveLambda(32, 12, 4, size=(6, 6))
    plain = operator.position_table((5, 9))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(operator.position_table((5, 9)), plain)


@pytest.mark.parametrize(("slot", "name"), [(s, n) for s in ("self", "ffn") for n in names(s)])
def test_token_operators_keep_shape_and_give_every_parameter_a_gradient(slot, name) -> None:
    operator = create(slot, name, dim=32, heads=4)
    out = operator(torch.randn(2, 24, 32), (4, 6))
    assert out.shape == (2, 24, 32)
    out.square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in operator.parameters())
