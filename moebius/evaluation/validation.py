"""Scores on fixed crop-mask pairs: what a sweep compares and a training run watches."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moebius.data.latents import encode_pixels
from moebius.data.samples import Sample
from moebius.evaluation.metrics import hole_psnr, hole_ssim
from moebius.evaluation.plots import grey_hole, picture_grid
from moebius.inference.sampler import sample_latents
from moebius.models.codec import LatentCodec
from moebius.models.denoiser import Denoiser
from moebius.models.schedule import NOISE_OFFSET, build_scheduler


class Validation:
    """Inpaints fixed pairs and scores the holes.

    Each pair has its own noise, seeded by its number, so that models are compared on equal draws.

    Args:
        pairs: crops with holes, see `moebius.data.samples.fixed_pairs`.
        codec: brings crops to latents and back, on the denoiser's device.
        steps: DDIM steps, all of them run, from pure noise.
        guidance: guidance scale; 1 is one branch only.
        seed: of the noise.
        noise_offset: of the noise that sampling starts from; that of the training.
        batch: pairs at once.
    """

    def __init__(
        self,
        pairs: Sequence[Sample],
        codec: LatentCodec,
        steps: int = 20,
        guidance: float = 1.0,
        seed: int = 0,
        noise_offset: float = NOISE_OFFSET,
        batch: int = 16,
    ) -> None:
        self.codec, self.steps, self.guidance, self.seed = codec, steps, guidance, seed
        self.noise_offset, self.batch = noise_offset, batch
        self.images = torch.stack([pair["image"] for pair in pairs])
        self.masks = torch.stack([pair["mask"] for pair in pairs])

    def inpaint(self, denoiser: Denoiser, count: int | None = None) -> Tensor:
        """(N, 3, H, W) hard composites of the first `count` pairs, in [-1, 1]."""
        device = next(denoiser.parameters()).device
        made = [self._inpaint(denoiser, rows, device) for rows in self._rows(count)]
        generated, masks = torch.cat(made), self.masks[:count]
        return self.images[:count] * (1 - masks) + generated * masks

    def score(self, pictures: Tensor) -> dict[str, float]:
        """Mean `psnr_hole` (dB) and `ssim_hole` of all pairs' results, as `inpaint` gives them."""
        psnr = hole_psnr(pictures, self.images, self.masks)
        ssim = hole_ssim(pictures, self.images, self.masks)
        return {"psnr_hole": psnr.mean().item(), "ssim_hole": ssim.mean().item()}

    def picture(self, results: Sequence[tuple[str, Tensor]], path: Path) -> None:
        """A grid: inputs with their holes grey, each titled result, the truth."""
        count = len(results[0][1])
        truth = to_levels(self.images[:count])
        holes = self.masks[:count, 0].numpy().astype(bool)
        inputs = [grey_hole(image, hole) for image, hole in zip(truth, holes, strict=True)]
        columns = [(title, list(to_levels(images))) for title, images in results]
        path.parent.mkdir(parents=True, exist_ok=True)
        picture_grid([("input", inputs), *columns, ("truth", list(truth))], path)

    @torch.no_grad()
    def _inpaint(self, denoiser: Denoiser, rows: range, device: torch.device) -> Tensor:
        image, mask = (t[rows.start : rows.stop].to(device) for t in (self.images, self.masks))
        latents = encode_pixels(self.codec, image, mask, torch.zeros(len(image)))
        generators = [torch.Generator().manual_seed(self.seed * 100_003 + n) for n in rows]
        sampled = sample_latents(
            denoiser,
            latents["masked"][:, 0],
            latents["mask"],
            build_scheduler(),
            generators=generators,
            num_inference_steps=self.steps,
            guidance_scale=self.guidance,
            noise_offset=self.noise_offset,
        )
        return self.codec.decode(sampled).float().cpu()

    def _rows(self, count: int | None) -> list[range]:
        total = len(self.images) if count is None else min(count, len(self.images))
        return [range(n, min(n + self.batch, total)) for n in range(0, total, self.batch)]


def to_levels(images: Tensor) -> np.ndarray:
    """(B, 3, H, W) in [-1, 1] to (B, H, W, 3) uint8, rounded."""
    levels = ((images + 1) * 127.5).round().clamp(0, 255)
    return levels.permute(0, 2, 3, 1).to(torch.uint8).numpy()
