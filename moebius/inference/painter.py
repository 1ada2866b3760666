"""Running the model on squares: encode, sample, decode, a few at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from moebius.inference.sampler import StepCallback, executed_steps, sample_latents
from moebius.models.codec import LatentCodec
from moebius.models.denoiser import Denoiser
from moebius.models.latents import latent_mask
from moebius.models.optimized import OptimizedDenoiser


@dataclass(frozen=True)
class Painter:
    """A model, and how to run it.

    Attributes:
        scheduler: its state changes; no other call may share it.
        batch_size: pictures that go through the model at once.
        callback: see `StepCallback`.
        announce: told how many denoising steps are about to be run.
    """

    denoiser: Denoiser | OptimizedDenoiser
    codec: LatentCodec
    scheduler: Any
    device: torch.device
    num_inference_steps: int
    guidance_scale: float
    noise_offset: float
    batch_size: int
    callback: StepCallback
    announce: Callable[[int], None]

    def paint(
        self,
        images: np.ndarray,
        holes: np.ndarray,
        generators: Sequence[torch.Generator],
        start: np.ndarray,
        strength: float,
    ) -> np.ndarray:
        """Whole pictures, of which the holes are new.

        Args:
            images: (N, s, s, 3) uint8; what they show inside the holes is not seen.
            holes: (N, s, s) bool.
            generators: one a picture.
            start: like `images`; used, with its holes' content, where strength is below 1.
            strength: see `sample_latents`.

        Returns:
            (N, s, s, 3) uint8.
        """
        rows = [slice(n, n + self.batch_size) for n in range(0, len(images), self.batch_size)]
        self.announce(len(rows) * executed_steps(self.num_inference_steps, strength))
        return np.concatenate(
            [
                self._paint(images[some], holes[some], generators[some], start[some], strength)
                for some in rows
            ]
        )

    def _paint(
        self,
        images: np.ndarray,
        holes: np.ndarray,
        generators: Sequence[torch.Generator],
        start: np.ndarray,
        strength: float,
    ) -> np.ndarray:
        mask = torch.from_numpy(holes).to(self.device, torch.float32)[:, None]
        latents = sample_latents(
            self.denoiser,
            self.codec.encode(self._pixels(images) * (1 - mask)).float(),
            latent_mask(mask, self.codec.factor),
            self.scheduler,
            generators=generators,
            num_inference_steps=self.num_inference_steps,
            guidance_scale=self.guidance_scale,
            noise_offset=self.noise_offset,
            callback=self.callback,
            start=None if strength == 1 else self.codec.encode(self._pixels(start)).float(),
            strength=strength,
        )
        decoded = self.codec.decode(latents).permute(0, 2, 3, 1).float().cpu()
        if not decoded.isfinite().all():
            raise FloatingPointError(
                f"the picture is not finite (denoiser in {self.denoiser.dtype}, codec in "
                f"{self.codec.vae.dtype}): use float32, or bfloat16 for the denoiser alone"
            )
        return ((decoded + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).numpy()

    def _pixels(self, images: np.ndarray) -> torch.Tensor:
        """(N, s, s, 3) uint8 as (N, 3, s, s) floats in [-1, 1]."""
        levels = torch.from_numpy(images).to(self.device, torch.float32)
        return levels.permute(0, 3, 1, 2) / 127.5 - 1
