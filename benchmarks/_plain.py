"""What the benchmarks compare with: Eq. 1, 2, 4 and 5 computed as they are written down."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.blocks import (
    DepthwiseSeparableConv,
    InteractiveLambda,
    LocalLambda,
    MixFeedForward,
    MixingBlock,
    ResidualBlock,
)
from moebius.blocks.products import Conv2d, Linear
from moebius.distill.batch import NoisyBatch
from moebius.distill.losses import implied_clean
from moebius.distill.perceptual import ELatentLPIPS
from moebius.models.denoiser import Denoiser


def local_lambda(m: LocalLambda, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Eq. 1 with the position lambda of every position in memory, (B, N, C) -> (B, N, C)."""
    grid = x.transpose(1, 2).unflatten(2, size)
    q = m.norm_q(m.to_q(grid)).unflatten(1, (m.heads, -1)).flatten(3)
    k, v = m.to_k(grid).flatten(2).softmax(-1), m.norm_v(m.to_v(grid))
    content = torch.einsum("bkn,bvn->bkv", k, v.flatten(2))
    conv = m.pos_conv
    position = F.conv3d(v.unsqueeze(1), conv.weight, conv.bias, padding=conv.padding).flatten(3)
    y = torch.einsum("bhkn,bkvn->bhvn", q, position + content.unsqueeze(-1))
    return y.flatten(1, 2).transpose(1, 2).contiguous()


def interactive_lambda(
    m: InteractiveLambda, x: Tensor, context: Tensor, size: tuple[int, int]
) -> Tensor:
    """Eq. 2 in its own order: E_pos V first, (B, N, C) and (B, M, D) -> (B, N, C)."""
    grid = x.transpose(1, 2).unflatten(2, size)
    q = m.norm_q(m.to_q(grid)).unflatten(1, (m.heads, -1)).flatten(3)
    k, v = m.to_k(context).softmax(1), m.norm_v(m.to_v(context).transpose(1, 2))
    position = torch.einsum("nmk,bvm->bnkv", m.position_table(size), v)
    content = torch.einsum("bmk,bvm->bkv", k, v)
    y = torch.einsum("bhkn,bkv->bhvn", q, content)
    y = y + torch.einsum("bhkn,bnkv->bhvn", q, position)
    return y.flatten(1, 2).transpose(1, 2).contiguous()


def mix_feed_forward(m: MixFeedForward, x: Tensor, size: tuple[int, int]) -> Tensor:
    """Mix-FFN as Sec. 3 has it, (B, N, C) -> (B, N, C)."""
    grid = x.transpose(1, 2).unflatten(2, size)
    value, gate = m.depth_conv(F.silu(m.inverted_conv(grid))).chunk(2, dim=1)
    return m.point_conv(value * F.silu(gate)).flatten(2).transpose(1, 2)


def mixing_block(m: MixingBlock, x: Tensor, context: Tensor, size: tuple[int, int]) -> Tensor:
    """Eq. 3, (B, N, C) -> (B, N, C)."""
    x = x + m.attn1(m.norm1(x), size)
    x = x + m.attn2(m.norm2(x), context, size)
    return x + m.ff(m.norm3(x), size)


def separable_conv(m: DepthwiseSeparableConv, x: Tensor) -> Tensor:
    """Depthwise 3x3, BN, ReLU, 1x1, BN, (B, C_in, H, W) -> (B, C_out, H, W)."""
    y = m.bn2(m.conv_pw(F.relu(m.bn1(m.conv_dw(x)))))
    return x + y if m.residual else y


def residual_block(m: ResidualBlock, x: Tensor, time: Tensor) -> Tensor:
    """DDPM's block, (B, C_in, H, W) -> (B, C_out, H, W)."""
    y = m.conv1(F.silu(m.norm1(x)))
    y = y + m.time_emb_proj(F.silu(time))[:, :, None, None]
    y = m.conv2(F.silu(m.norm2(y)))
    return y + (x if m.conv_shortcut is None else m.conv_shortcut(x))


@contextmanager
def plain_operators() -> Iterator[None]:
    """Operators and blocks in their plain form, and torch's own layers, inside a `with`."""
    plain: dict[type[nn.Module], Callable[..., Tensor]] = {
        LocalLambda: local_lambda,
        InteractiveLambda: interactive_lambda,
        MixFeedForward: mix_feed_forward,
        MixingBlock: mixing_block,
        DepthwiseSeparableConv: separable_conv,
        ResidualBlock: residual_block,
        Linear: nn.Linear.forward,
        Conv2d: nn.Conv2d.forward,
    }
    kept = {kind: kind.forward for kind in plain}
    try:
        for kind, forward in plain.items():
            kind.forward = forward  # type: ignore[method-assign]
        yield
    finally:
        for kind, forward in kept.items():
            kind.forward = forward  # type: ignore[method-assign]


def distillation_step(
    student: Denoiser,
    teacher: Denoiser,
    metric: ELatentLPIPS,
    batch: NoisyBatch,
    of_each_loss: bool = True,
) -> tuple[Tensor, list[Tensor]]:
    """Eq. 4 and 5 by gradients through the whole graph; (total, weights).

    Args:
        of_each_loss: seven gradients, of four losses to theta_C and of three to theta_F; L_out's
            is the sum of its losses'. Otherwise five, L_out's being one of them.
    """
    inputs = batch.sample, batch.timesteps, batch.category_ids
    ours = student(*inputs)
    with torch.no_grad():
        theirs = teacher(*inputs)

    def gradient(loss: Tensor, anchor: Tensor) -> Tensor:
        return torch.autograd.grad(loss, anchor, retain_graph=True)[0]

    def norm(loss: Tensor, anchor: Tensor) -> Tensor:
        return gradient(loss, anchor).square().sum()

    implied = implied_clean(ours.sample, batch.noisy, batch.alphas)
    task = F.mse_loss(ours.sample, batch.noise)
    fine = F.mse_loss(ours.sample, theirs.sample)
    perceptual = metric(implied, batch.clean).mean()
    coarse = F.mse_loss(ours.features[student.coarse_tap], theirs.features["up.0"])
    reference = norm(task, student.theta_f)
    weights = [reference / norm(loss, student.theta_f) for loss in (fine, perceptual)]
    output = task + weights[0] * fine + weights[1] * perceptual
    if of_each_loss:
        task_c, *others = (gradient(loss, student.theta_c) for loss in (task, fine, perceptual))
        output_c = task_c + sum(w * g for w, g in zip(weights, others, strict=True))
    else:
        output_c = gradient(output, student.theta_c)
    weights.append(norm(coarse, student.theta_c) / output_c.square().sum())
    return coarse + weights[2] * output, weights
