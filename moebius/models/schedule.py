"""The noise that training and sampling share (protocols, sections 2.3 and 3)."""

from collections.abc import Sequence

import torch
from diffusers import DDIMScheduler
from torch import Tensor

NOISE_OFFSET = 0.0357
"""Standard deviation of the noise's share that is constant over a sample's channel."""


def build_scheduler() -> DDIMScheduler:
    """DDIM as released: 1000 scaled-linear steps, leading spacing, no clipping, final abar 1."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=0,
        prediction_type="epsilon",
        timestep_spacing="leading",
    )


def draw_noise(
    shape: Sequence[int], generators: Sequence[torch.Generator], offset: float = NOISE_OFFSET
) -> Tensor:
    """(B, C, h, w) noise, each sample from its own CPU generator, the offset drawn last.

    Raises:
        ValueError: not one generator a sample.
    """
    batch, channels, height, width = shape
    if len(generators) != batch:
        raise ValueError(f"{len(generators)} generators for {batch} images: pass one per image")
    draws = []
    for generator in generators:
        noise = torch.randn(channels, height, width, generator=generator)
        draws.append(noise + offset * torch.randn(channels, 1, 1, generator=generator))
    return torch.stack(draws)
