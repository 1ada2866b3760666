"""The U-Net: stages of residual and mixing blocks, each stage with its own operators.

Shapes: B batch, C channels, H x W the stage's map, T time embedding, M x D the context.
Module names are those of the released checkpoints, so that weights load without renaming.
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from diffusers.models.downsampling import Downsample2D
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from moebius.blocks import MixingBlock, ResidualBlock, SpatialMixer, create
from moebius.config import Architecture, Stage

Size = tuple[int, int]
OUTPUT_SCALE = 0.1


class UNet(nn.Module):
    """Predicts noise from a noisy latent, its mask and the masked image's latent.

    Args:
        architecture: stages and widths; see `moebius.models.architectures.resolve`.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        stages, first = architecture.stages, architecture.stages[0]
        time_dim = 4 * first.width
        self.time_proj = Timesteps(first.width, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedding = TimestepEmbedding(first.width, time_dim)
        self.encoder_hid_proj = nn.Linear(architecture.lcg_dim, architecture.context_dim)
        self.conv_in = create(
            "conv", first.conv, in_channels=architecture.in_channels, out_channels=first.width
        )
        layer = partial(_layer, architecture=architecture, time_dim=time_dim)
        skips, self.down_blocks = [first.width], nn.ModuleList()
        for level, stage in enumerate(stages):
            last = level == len(stages) - 1
            down = DownStage(
                stage, skips[-1], last, partial(layer, size=map_size(architecture, level))
            )
            self.down_blocks.append(down)
            skips += [stage.width] * (stage.depth + (not last))
        bottom = map_size(architecture, len(stages) - 1)
        self.mid_block = (
            MiddleStage(architecture.middle, skips[-1], partial(layer, size=bottom))
            if architecture.middle
            else None
        )
        width, self.up_blocks = skips[-1], nn.ModuleList()
        for level, stage in reversed(list(enumerate(stages))):
            taken = [skips.pop() for _ in range(stage.depth + 1)]
            make = partial(layer, size=map_size(architecture, level))
            self.up_blocks.append(UpStage(stage, width, taken, level == 0, make))
            width = stage.width
        self.conv_norm_out = nn.GroupNorm(architecture.norm_groups, width, eps=1e-5)
        self.conv_out = create(
            "conv", first.conv, in_channels=width, out_channels=architecture.out_channels
        )
        _start_small(self.conv_out)
        self.gradient_checkpointing = False

    def forward(
        self, sample: Tensor, timestep: Tensor, lcg: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], list[Tensor]]:
        """sample (B, 9, H, W), timestep (B,), lcg (B, M, lcg_dim) -> noise, features, border.

        Features are the outputs of `down.i`, `mid` and `up.i`, samplers included. The border is
        all that the decoder gets from the encoder.
        """
        time = self.time_embedding(self.time_proj(timestep).to(sample.dtype))
        context = self.encoder_hid_proj(lcg)
        run = self._checkpointed if self.gradient_checkpointing and self.training else _plain
        features: dict[str, Tensor] = {}
        # Tokens are channels-last maps: in this order blocks hand over without copies.
        x = self.conv_in(sample.contiguous(memory_format=torch.channels_last))
        skips = [x]
        for i, down in enumerate(self.down_blocks):
            x, new = down(x, time, context, run)
            skips += new
            features[f"down.{i}"] = x
        # Views of their own: a gradient that stops at one holds nothing from the encoder's inside.
        # What has no gradient stays itself: inference keeps what it makes of a context by identity.
        border = [t.view_as(t) if t.requires_grad else t for t in (*skips, time, context)]
        *skips, time, context = border
        x = features[f"down.{i}"] = skips[-1]
        if self.mid_block is not None:
            x = features["mid"] = self.mid_block(x, time, context, run)
        for i, up in enumerate(self.up_blocks):
            assert isinstance(up, UpStage)
            taken = [skips.pop() for _ in up.layers]
            x = up(x, taken, time, context, run, skips[-1].shape[-2:] if skips else None)
            features[f"up.{i}"] = x
        return self.conv_out(F.silu(self.conv_norm_out(x))), features, border

    @staticmethod
    def _checkpointed(layer: nn.Module, *inputs: Tensor) -> Tensor:
        frozen = partial(_contexts, layer)
        return checkpoint(layer, *inputs, use_reentrant=False, context_fn=frozen)


Run = Callable[..., Tensor]


class Layer(nn.Module):
    """A residual block and, where the stage mixes, a mixing block."""

    def __init__(self, resnet: nn.Module, mixer: nn.Module | None) -> None:
        super().__init__()
        self.resnet, self.mixer = resnet, mixer

    def forward(self, x: Tensor, time: Tensor, context: Tensor) -> Tensor:
        x = self.resnet(x, time)
        return x if self.mixer is None else self.mixer(x, context)


class PairedStage(nn.Module):
    """Residual blocks under `resnets`, mixing blocks under `attentions`, called in pairs."""

    layers: list[Layer]

    def __init__(self, layers: list[Layer]) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(layer.resnet for layer in layers)
        self.attentions = nn.ModuleList(layer.mixer for layer in layers if layer.mixer is not None)
        self.pair()

    def pair(self) -> None:
        """Makes the pairs of what both lists hold; again, where something in them was replaced."""
        mixers = [*self.attentions, *[None] * (len(self.resnets) - len(self.attentions))]
        # Plain list: the pairs call modules that are registered above, under released names.
        self.__dict__["layers"] = list(map(Layer, self.resnets, mixers))


class DownStage(PairedStage):
    """`depth` layers, then a stride-2 convolution unless it is the last stage."""

    def __init__(self, stage: Stage, width: int, last: bool, layer: Callable[..., Layer]) -> None:
        widths = [width] + [stage.width] * (stage.depth - 1)
        super().__init__([layer(stage, width) for width in widths])
        sampler = Downsample2D(stage.width, use_conv=True, padding=1, name="op")
        self.downsamplers = None if last else nn.ModuleList([sampler])

    def forward(
        self, x: Tensor, time: Tensor, context: Tensor, run: Run
    ) -> tuple[Tensor, list[Tensor]]:
        skips = []
        for layer in self.layers:
            x = run(layer, x, time, context)
            skips.append(x)
        if self.downsamplers is not None:
            x = self.downsamplers[0](x)
            skips.append(x)
        return x, skips


class MiddleStage(PairedStage):
    """Residual, mixing, residual, below the last stage."""

    def __init__(self, stage: Stage, width: int, layer: Callable[..., Layer]) -> None:
        closing = stage.model_copy(update={"mixing": False})
        super().__init__([layer(stage, width), layer(closing, stage.width)])

    def forward(self, x: Tensor, time: Tensor, context: Tensor, run: Run) -> Tensor:
        for layer in self.layers:
            x = run(layer, x, time, context)
        return x


class UpStage(PairedStage):
    """`depth + 1` layers over skip connections, then nearest upsampling and a convolution."""

    def __init__(
        self, stage: Stage, width: int, skips: list[int], last: bool, layer: Callable[..., Layer]
    ) -> None:
        widths = [width] + [stage.width] * (len(skips) - 1)
        super().__init__([layer(stage, a + b) for a, b in zip(widths, skips, strict=True)])
        sampler = Upsample2D(stage.width, use_conv=True)
        self.upsamplers = None if last else nn.ModuleList([sampler])

    def forward(
        self,
        x: Tensor,
        skips: list[Tensor],
        time: Tensor,
        context: Tensor,
        run: Run,
        size: Size | None,
    ) -> Tensor:
        for layer, skip in zip(self.layers, skips, strict=True):
            x = run(layer, torch.cat([x, skip], dim=1), time, context)
        if self.upsamplers is not None:
            # The next skip's size, not twice this one: odd maps come back to their own size.
            x = self.upsamplers[0](x, output_size=size)
        return x


def map_size(architecture: Architecture, level: int) -> Size:
    """(H, W) of a stage's map at the trained latent size."""
    side = -(-architecture.latent_size // 2**level)
    return side, side


def _layer(
    stage: Stage, in_channels: int, *, architecture: Architecture, time_dim: int, size: Size
) -> Layer:
    resnet = ResidualBlock(in_channels, stage.width, time_dim, stage.conv, architecture.norm_groups)
    if not stage.mixing:
        return Layer(resnet, None)
    dim, heads = stage.width, architecture.heads
    block = MixingBlock(
        dim,
        create("self", stage.self_mixer, dim=dim, heads=heads),
        create(
            "cross",
            stage.cross_mixer,
            dim=dim,
            heads=heads,
            context_dim=architecture.context_dim,
            context_length=architecture.context_length,
            size=size,
        ),
        create("ffn", stage.feed_forward, dim=dim),
    )
    return Layer(resnet, SpatialMixer(dim, block, architecture.norm_groups))


def _start_small(conv: nn.Module) -> None:
    """Scales a convolution's last affine layer, so that training starts near predicting zero.

    Not zero itself: behind a zero scale, the anchor theta_F of Eq. 4 would have no gradient.
    """
    affine = [module for module in conv.modules() if hasattr(module, "weight")]
    with torch.no_grad():
        for parameter in affine[-1].parameters(recurse=False):
            parameter.mul_(OUTPUT_SCALE)


def _plain(layer: nn.Module, *inputs: Tensor) -> Tensor:
    return layer(*inputs)


def _contexts(layer: nn.Module) -> tuple[Any, Any]:
    return nullcontext(), _FrozenStatistics(layer)


class _FrozenStatistics:
    """Keeps a checkpoint's second forward pass from updating BatchNorm's averages again.

    It is entered once for every backward pass: the balance of Eq. 4 and 5 takes several.
    """

    def __init__(self, layer: nn.Module) -> None:
        modules = layer.modules()
        self.norms = [m for m in modules if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    def __enter__(self) -> None:
        self.kept = [(n.momentum, n.get_buffer("num_batches_tracked").clone()) for n in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0

    def __exit__(self, *error: object) -> None:
        for norm, (momentum, batches) in zip(self.norms, self.kept, strict=True):
            norm.momentum = momentum
            norm.get_buffer("num_batches_tracked").copy_(batches)
