"""Holes filled by a denoiser, each picture with noise of its own (protocols, section 3).

Shapes: B pictures, side x side pixels, h x w latent cells.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moebius.config import Sampling
from moebius.data.latents import encode_pixels
from moebius.data.transforms import to_tensor
from moebius.evaluation.benchmark import Item
from moebius.evaluation.geometry import resize_hole, resize_picture
from moebius.evaluation.pixels import stable_seed
from moebius.evaluation.validation import to_levels
from moebius.inference.sampler import sample_latents
from moebius.models.codec import LatentCodec
from moebius.models.denoiser import Denoiser
from moebius.models.schedule import build_scheduler

RELEASE_STRENGTH = 0.99


def strength(sampling: Sampling) -> float:
    """Share of the schedule that is run; below 1 it starts from the truth."""
    return RELEASE_STRENGTH if sampling.start == "release" else 1.0


class DenoiserFill:
    """Samples whole pictures at the model's side and brings them back to the scored size.

    Args:
        denoiser: in eval mode, on the codec's device.
        codec: between pixels and latents.
        sampling: side, steps, guidance and start.
        noise_offset: of the noise, as in the denoiser's training.

    Raises:
        ValueError: the denoiser was trained at another side.
    """

    def __init__(
        self, denoiser: Denoiser, codec: LatentCodec, sampling: Sampling, noise_offset: float
    ) -> None:
        trained = denoiser.architecture.latent_size * codec.factor
        if trained != sampling.side:
            raise ValueError(
                f"the model was trained at {trained} px and the protocol runs it at "
                f"{sampling.side} px: score it by a protocol with sampling.side: {trained}"
            )
        self.denoiser, self.codec, self.sampling = denoiser.eval(), codec, sampling
        self.noise_offset = noise_offset

    @torch.no_grad()
    def __call__(self, items: Sequence[Item]) -> list[np.ndarray]:
        """See `moebius.evaluation.methods.Fill`; a picture's noise depends on its id alone."""
        side, size = self.sampling.side, len(items[0].hole)
        image = torch.stack([to_tensor(resize_picture(item.image, side)) for item in items])
        holes = np.stack([resize_hole(item.hole, side) for item in items])
        mask = torch.from_numpy(holes[:, None].astype(np.float32))
        latents = encode_pixels(self.codec, image, mask, torch.zeros(len(items)))
        generators = [torch.Generator().manual_seed(stable_seed(item.name)) for item in items]
        released = self.sampling.start == "release"
        # As released, both latents are posterior samples, the truth's drawn first.
        start = _draw(latents["clean"], generators) if released else None
        masked = _draw(latents["masked"], generators) if released else latents["masked"][:, 0]
        sampled = sample_latents(
            self.denoiser,
            masked,
            latents["mask"],
            build_scheduler(),
            generators=generators,
            num_inference_steps=self.sampling.steps,
            guidance_scale=self.sampling.guidance,
            noise_offset=self.noise_offset,
            start=start,
            strength=strength(self.sampling),
        )
        levels = to_levels(self.codec.decode(sampled).float().cpu())
        return [resize_picture(picture, size) for picture in levels]


def _draw(moments: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Posterior samples (B, C, h, w) of moments (B, 2, C, h, w), each by its own generator."""
    mean, std = moments.unbind(1)
    noise = torch.stack([torch.randn(mean.shape[1:], generator=g) for g in generators])
    return mean + std * noise.to(mean.device)
