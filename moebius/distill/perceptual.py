"""E-LatentLPIPS: a perceptual distance between latents (Kang et al. 2024, arXiv 2405.05967).

The layout is that of the public re-implementation, https://github.com/mingukkang/elatentlpips.
Shapes: B batch, H x W latent, C channels of a tap.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor, nn

from moebius.distill.augment import apply_affine, draw_augmentations
from moebius.models.released import read_tensors

logger = logging.getLogger(__name__)

LATENT_CHANNELS = 4
MIN_SIZE = 4  # the trunk halves the latent twice
# VGG16's convolutions between poolings; a tap follows each.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
REMOVED_POOLINGS = 3
MADE_UP_SEED = 0

WHERE = (
    "Get `sdxl_latest_vgg16_tuned.pth` from https://huggingface.co/Mingguksky/elatentlpips "
    "(folder elatentlpips_ckpt; CC BY-NC, non-commercial, so never shipped here) and name the "
    "file, or set `perceptual_weights: random` for a demo"
)


class _Trunk(nn.Module):
    """VGG16-BN on latents; layer names keep VGG16's numbering, removed poolings included."""

    def __init__(self) -> None:
        super().__init__()
        width_in, layer = LATENT_CHANNELS, 0
        for stage, widths in enumerate(STAGES):
            layers = nn.Sequential()
            for width in widths:
                layers.add_module(str(layer), nn.Conv2d(width_in, width, 3, padding=1))
                layers.add_module(str(layer + 1), nn.BatchNorm2d(width))
                layers.add_module(str(layer + 2), nn.ReLU(inplace=True))
                width_in, layer = width, layer + 3
            if stage >= REMOVED_POOLINGS:
                layers.add_module(str(layer), nn.MaxPool2d(2))
            layer += 1
            self.add_module(f"slice{stage + 1}", layers)


class _Head(nn.Module):
    """(B, C, H, W) to (B, 1, H, W): what each channel counts."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(channels, 1, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class ELatentLPIPS(nn.Module):
    """Perceptual distance between two batches of latents; frozen, always in eval mode.

    Args:
        weights: a file in the public release's layout (`.pth` or `.safetensors`), a state dict,
            or "random" for made-up weights (seeded, logged as such, `made_up` is True).

    Raises:
        ValueError: no weights, or weights whose keys or shapes are not the release's.
    """

    lins: nn.ModuleList

    def __init__(
        self, weights: str | Path | Mapping[str, Tensor] | Literal["random"] | None
    ) -> None:
        super().__init__()
        if weights is None:
            raise ValueError(f"E-LatentLPIPS has no weights. {WHERE}.")
        self.made_up = isinstance(weights, str) and weights == "random"
        with torch.device("meta"):  # neither time nor global randomness for discarded values
            self.net = _Trunk()
            heads = [_Head(widths[-1]) for widths in STAGES]
        # The release stores each head under both names.
        for i, head in enumerate(heads):
            self.add_module(f"lin{i}", head)
        self.lins = nn.ModuleList(heads)
        self.to_empty(device="cpu")
        if self.made_up:
            self._make_up_weights()
        else:
            state = weights if isinstance(weights, Mapping) else _read(Path(weights))
            _check(state, self.state_dict())
            self.load_state_dict(state)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode, also inside a module that trains."""
        return super().train(False)

    def forward(
        self,
        x: Tensor,
        y: Tensor,
        augment: bool = False,
        generator: torch.Generator | Sequence[torch.Generator] | None = None,
    ) -> Tensor:
        """Distance of each pair, differentiable with respect to both.

        Args:
            x: (B, 4, H, W) latents, scaled by the codec's factor; H and W at least 4.
            y: (B, 4, H, W).
            augment: compare the pair after one random transform that both share. The mean
                absolute difference is taken before it.
            generator: a CPU generator for the batch, or one a sample, so that a sample's transform
                does not depend on its batch; None is torch's default generator.

        Returns:
            (B,) distances, at least float32.
        """
        self._check_latents(x, y)
        if x.dtype in (torch.float16, torch.bfloat16):
            x, y = x.float(), y.float()
        distance = (x - y).abs().mean(dim=(1, 2, 3))
        if augment:
            theta = draw_augmentations(_one_each(generator, len(x)), *x.shape[-2:])
            x, y = apply_affine(x, theta), apply_affine(y, theta)
        for stage, head in zip(self.net.children(), self.lins, strict=True):
            x, y = stage(x), stage(y)
            difference = (_unit(x) - _unit(y)).square()
            distance = distance + head(difference).mean(dim=(1, 2, 3))
        return distance

    def _check_latents(self, x: Tensor, y: Tensor) -> None:
        if x.shape != y.shape or x.ndim != 4 or x.shape[1] != LATENT_CHANNELS:
            raise ValueError(
                f"E-LatentLPIPS compares two batches (B, {LATENT_CHANNELS}, H, W) of one shape, "
                f"not {tuple(x.shape)} and {tuple(y.shape)}"
            )
        if min(x.shape[-2:]) < MIN_SIZE:
            raise ValueError(
                f"E-LatentLPIPS needs latents of at least {MIN_SIZE}x{MIN_SIZE} "
                f"({8 * MIN_SIZE} px a side in the image), not {x.shape[-2]}x{x.shape[-1]}"
            )

    def _make_up_weights(self) -> None:
        logger.warning(
            "E-LatentLPIPS runs on made-up weights: its distances mean nothing. %s.", WHERE
        )
        generator = torch.Generator().manual_seed(MADE_UP_SEED)
        for module in self.net.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                assert module.bias is not None
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()
        for head in self.lins.parameters():
            nn.init.uniform_(head, generator=generator)  # a distance needs non-negative heads


def _unit(feature: Tensor) -> Tensor:
    """Divides (B, C, H, W) by its norm over the channels."""
    feature = feature.float() if feature.dtype in (torch.float16, torch.bfloat16) else feature
    return feature / (feature.square().sum(dim=1, keepdim=True) + 1e-8).sqrt()


def _one_each(
    generator: torch.Generator | Sequence[torch.Generator] | None, batch: int
) -> Sequence[torch.Generator]:
    if generator is None:
        generator = torch.default_generator
    if isinstance(generator, torch.Generator):
        return [generator] * batch
    if len(generator) != batch:
        raise ValueError(f"{len(generator)} generators for {batch} samples: give one a sample")
    return generator


def check_weights(source: str | Path) -> None:
    """Refuses weights that are not there; `random` are made here.

    Raises:
        ValueError: with where to get them.
    """
    if source != "random" and not Path(source).is_file():
        raise ValueError(f"No E-LatentLPIPS weights at {source}. {WHERE}.")


def _read(path: Path) -> Mapping[str, Tensor]:
    check_weights(path)
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{error}. {WHERE}.") from None


def _check(given: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Raises a ValueError that names the first keys and shapes that do not fit."""
    faults = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": [
            f"{key} {tuple(given[key].shape)} (not {tuple(tensor.shape)})"
            for key, tensor in expected.items()
            if key in given and given[key].shape != tensor.shape
        ],
    }
    found = [
        f"{len(keys)} {fault}: {', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''}"
        for fault, keys in faults.items()
        if keys
    ]
    if found:
        raise ValueError(f"Not E-LatentLPIPS weights for 4 channels: {'; '.join(found)}. {WHERE}.")
    for i in range(len(STAGES)):
        if not given[f"lin{i}.model.1.weight"].equal(given[f"lins.{i}.model.1.weight"]):
            raise ValueError(f"E-LatentLPIPS weights differ between lin{i} and lins.{i}")
