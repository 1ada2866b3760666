"""From latent moments to a noisy batch, every draw seeded by the sample's number."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from moebius.data.latents import LatentSample
from moebius.models.denoiser import category_ids
from moebius.models.latents import denoiser_input
from moebius.models.schedule import build_scheduler, draw_noise


@dataclass(frozen=True)
class NoisyBatch:
    """What a distillation step reads; B samples of C x h x w latents."""

    clean: Tensor
    """(B, C, h, w) posterior sample of the crop: the true x_0."""
    noise: Tensor
    """(B, C, h, w), offset included: the target."""
    noisy: Tensor
    """(B, C, h, w): x_t."""
    sample: Tensor
    """(B, 9, h, w): the denoiser's input."""
    timesteps: Tensor
    """(B,) in [0, 1000)."""
    alphas: Tensor
    """(B,): abar_t."""
    category_ids: Tensor
    """(B, M) rows of the LCG table."""
    generators: list[torch.Generator]
    """One a sample, for what else is drawn (perceptual augmentation)."""


class Noising:
    """Draws posterior samples, timesteps and noise.

    Args:
        seed: of the run; with a sample's number it determines everything drawn for it.
        timesteps: `logit_normal` as the release, floor(1000 sigmoid(N(0, 1))), or `uniform`.
        noise_offset: share of the noise that is constant over a sample's channel.
        context_length: LCG rows a sample.
        logit: mean and deviation of the normal in `logit_normal`.
    """

    def __init__(
        self,
        seed: int,
        timesteps: str,
        noise_offset: float,
        context_length: int = 10,
        logit: tuple[float, float] = (0.0, 1.0),
    ) -> None:
        self.seed, self.timesteps, self.noise_offset = seed, timesteps, noise_offset
        self.logit = logit
        self.context_length = context_length
        self.alphas = build_scheduler().alphas_cumprod

    def __call__(
        self, latents: LatentSample, numbers: Sequence[int], device: torch.device
    ) -> NoisyBatch:
        """Noises a batch of latent moments whose samples have these numbers in the stream."""
        generators = [self._generator(number) for number in numbers]
        mean, std = latents["clean"].to(device).unbind(1)
        masked_mean, masked_std = latents["masked"].to(device).unbind(1)
        clean = mean + std * _normal(mean, generators)
        masked = masked_mean + masked_std * _normal(masked_mean, generators)
        steps = torch.stack([self._timestep(generator) for generator in generators])
        noise = draw_noise(mean.shape, generators, self.noise_offset).to(device)
        alphas = self.alphas[steps].to(device)
        signal, sigma = (a.sqrt()[:, None, None, None] for a in (alphas, 1 - alphas))
        noisy = signal * clean + sigma * noise
        ids = category_ids(latents["category"].to(device), self.context_length)
        sample = denoiser_input(noisy, latents["mask"].to(device), masked)
        return NoisyBatch(clean, noise, noisy, sample, steps.to(device), alphas, ids, generators)

    def _generator(self, number: int) -> torch.Generator:
        seed = np.random.SeedSequence(self.seed, spawn_key=(number,)).generate_state(1, np.uint64)
        # manual_seed takes what fits a signed 64-bit integer.
        return torch.Generator().manual_seed(int(seed[0]) >> 1)

    def _timestep(self, generator: torch.Generator) -> Tensor:
        if self.timesteps == "uniform":
            return torch.randint(1000, (), generator=generator)
        mean, deviation = self.logit
        logit = mean + deviation * torch.randn((), generator=generator)
        return (1000 * logit.sigmoid()).long().clamp(max=999)


def _normal(like: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    draws = [torch.randn(like.shape[1:], generator=generator) for generator in generators]
    return torch.stack(draws).to(like.device)
