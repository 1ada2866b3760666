"""Guided sampling of latents, from pure noise or from a noised picture (protocols, section 3)."""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from moebius.models.denoiser import Denoiser, category_ids
from moebius.models.latents import denoiser_input
from moebius.models.optimized import OptimizedDenoiser
from moebius.models.schedule import NOISE_OFFSET, draw_noise

BACKGROUND, FOREGROUND = 0, 1

StepCallback = Callable[[int, int, torch.Tensor], torch.Tensor]
"""Takes (step index, timestep, latents) after a step and returns the latents to go on with."""


def _predict(
    denoiser: Denoiser | OptimizedDenoiser,
    sample: torch.Tensor,
    timestep: torch.Tensor,
    guidance_scale: float,
) -> torch.Tensor:
    """Return u + g (c - u), c with the background ids and u with the foreground ids."""
    conditional = torch.full((len(sample),), BACKGROUND, device=sample.device)
    if guidance_scale == 1:
        ids = category_ids(conditional, denoiser.architecture.context_length)
        return denoiser(sample, timestep, ids).sample
    categories = torch.cat([torch.full_like(conditional, FOREGROUND), conditional])
    ids = category_ids(categories, denoiser.architecture.context_length)
    u, c = denoiser(torch.cat([sample, sample]), timestep, ids).sample.chunk(2)
    return u + guidance_scale * (c - u)


def executed_steps(num_inference_steps: int, strength: float) -> int:
    """Denoiser evaluations: int(steps x strength), as in the release.

    Raises:
        ValueError: steps below 1, strength outside (0, 1], or no step left of them.
    """
    if num_inference_steps < 1:
        raise ValueError(f"num_inference_steps is {num_inference_steps}: use at least 1")
    if not 0 < strength <= 1:
        raise ValueError(f"strength is {strength}: use more than 0 and at most 1")
    steps = int(num_inference_steps * strength)
    if steps == 0:
        raise ValueError(
            f"strength {strength} of {num_inference_steps} steps leaves none: raise one of them"
        )
    return steps


@torch.no_grad()
def sample_latents(
    denoiser: Denoiser | OptimizedDenoiser,
    masked_latents: torch.Tensor,
    mask: torch.Tensor,
    scheduler: Any,
    *,
    generators: Sequence[torch.Generator],
    num_inference_steps: int = 20,
    guidance_scale: float = 2.5,
    noise_offset: float = NOISE_OFFSET,
    callback: StepCallback | None = None,
    start: torch.Tensor | None = None,
    strength: float = 1.0,
) -> torch.Tensor:
    """Sample the latents of whole pictures.

    Each result depends on its own generator only, not on its neighbours in the batch.

    Args:
        denoiser: predicts noise from (B, 9, h, w), with the context of its LCG ids. It computes
            in its own precision, the scheduler in that of `masked_latents`.
        masked_latents: (B, 4, h, w), scaled latents of the image with its hole at grey.
        mask: (B, 1, h, w), 1 = hole, see `latent_mask`.
        scheduler: one of diffusers', see `moebius.models.schedule.build_scheduler`.
        generators: one CPU generator per image.
        num_inference_steps: of the whole schedule.
        guidance_scale: 1 switches guidance off and halves the work.
        noise_offset: as in training.
        callback: see `StepCallback`.
        start: (B, 4, h, w), the latents that are noised to start from where strength is below 1.
        strength: 1 starts from pure noise and runs every step; below, only the last
            int(steps x strength) are run.

    Returns:
        (B, 4, h, w) scaled latents.

    Raises:
        ValueError: if the denoiser is in training mode, generators do not match the batch, the
            guidance scale is not finite, or no step is left to run.
    """
    if denoiser.training:
        # BatchNorm would mix the images of a batch and move its statistics.
        raise ValueError("the denoiser is in training mode: call its eval() before sampling")
    if not math.isfinite(guidance_scale):
        raise ValueError(f"guidance_scale is {guidance_scale}: give a finite number, 1 for none")
    steps = executed_steps(num_inference_steps, strength)
    device, dtype = masked_latents.device, masked_latents.dtype
    scheduler.set_timesteps(num_inference_steps, device=device)
    noise = draw_noise(masked_latents.shape, generators, noise_offset).to(device, dtype)
    timesteps = scheduler.timesteps
    if strength < 1:
        assert start is not None, "strength below 1 starts from a picture"
        skipped = (num_inference_steps - steps) * scheduler.order
        timesteps = timesteps[skipped:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(skipped)
        latents = scheduler.add_noise(start.to(noise), noise, timesteps[:1].expand(len(noise)))
    else:
        latents = noise * scheduler.init_noise_sigma
    options: dict[str, Any] = {"return_dict": False}
    if "generator" in inspect.signature(scheduler.step).parameters:
        # Stochastic schedulers would draw from the global state.
        options["generator"] = list(generators)
    precision = next((p.dtype for p in denoiser.parameters()), dtype)
    for index, timestep in enumerate(timesteps):
        noisy = scheduler.scale_model_input(latents, timestep)
        sample = denoiser_input(noisy, mask, masked_latents).to(precision)
        prediction = _predict(denoiser, sample, timestep, guidance_scale).to(dtype)
        latents = scheduler.step(prediction, timestep, latents, **options)[0]
        if callback is not None:
            latents = callback(index, int(timestep), latents)
    return latents
