"""The latent codec: diffusers' AutoencoderKL, frozen, with scaled latents."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from moebius.blocks.products import takes
from moebius.models.inference_forms import inference_form
from moebius.models.optimized import KeptForm
from moebius.models.whole import load_whole

PIXELS_A_PASS = 8 * 512 * 512
"""Of a batch that the encoder takes at once."""
BUILTIN_FOLDER = Path(__file__).parent.parent / "assets" / "codec"


class LatentCodec(nn.Module):
    """Frozen autoencoder between images in [-1, 1] and scaled latents.

    Args:
        vae: the network; it is put in eval mode and its gradients are switched off.
        name: where the weights came from, for logs and recipes.

    Attributes:
        factor: image pixels for each latent cell along a side, 8 for every released codec.
        channels: latent channels.
        name: provenance.
    """

    def __init__(self, vae: AutoencoderKL, name: str) -> None:
        super().__init__()
        self.vae = vae.eval().requires_grad_(False)
        self.name = name
        self.factor: int = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self.channels: int = vae.config["latent_channels"]
        self._scale: float = vae.config["scaling_factor"]
        self._shift: float = vae.config["shift_factor"] or 0.0
        self._form = KeptForm(_in_inference_form)

    def train(self, mode: bool = True) -> LatentCodec:
        """Stay in eval mode whatever the caller asks: the codec is never trained from here."""
        return super().train(False)

    def moments(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents' posterior, both scaled.

        Args:
            images: (B, 3, H, W) in [-1, 1]; H and W multiples of `factor`.

        Returns:
            Two tensors (B, channels, H / factor, W / factor).

        Raises:
            ValueError: a side is not a multiple of `factor`.
        """
        height, width = images.shape[-2:]
        if height % self.factor or width % self.factor:
            raise ValueError(
                f"image of {height}x{width} pixels: pad or crop to multiples of {self.factor}"
            )
        # The encoder holds some 400 MB a 512 px picture: a training batch goes in parts.
        parts = images.to(self.vae.dtype).split(max(1, PIXELS_A_PASS // (height * width)))
        vae = self._network(parts[0])
        posteriors = [vae.encode(part).latent_dist for part in parts]
        mean = torch.cat([posterior.mean for posterior in posteriors])
        std = torch.cat([posterior.std for posterior in posteriors])
        return (mean - self._shift) * self._scale, std * self._scale

    def encode(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Latents of the images: a posterior sample with a generator, otherwise its mode."""
        mean, std = self.moments(images)
        if generator is None:
            return mean
        # Drawn where the generator lives, so a CPU generator gives the same noise on any device.
        noise = torch.randn(
            mean.shape, generator=generator, device=generator.device, dtype=mean.dtype
        )
        return mean + std * noise.to(mean.device)

    def digest(self) -> str:
        """SHA-256 of what latents depend on: the weights, by name, and the scaling."""
        config = self.vae.config
        scaling = (config["scaling_factor"], config["shift_factor"])
        digest = hashlib.sha256(repr(scaling).encode())
        for name, weight in self.vae.state_dict().items():
            digest.update(name.encode())
            digest.update(weight.cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return digest.hexdigest()

    def decode(self, latents: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [-1, 1] of scaled latents (B, channels, h, w)."""
        raw = latents.to(self.vae.dtype) / self._scale + self._shift
        return self._network(raw).decode(raw).sample.clamp(-1, 1)

    def _network(self, x: Tensor) -> AutoencoderKL:
        """The network for an input; its inference form where no gradient is asked for."""
        if torch.is_grad_enabled() or not takes(x, next(self.vae.parameters())):
            return self.vae
        form: AutoencoderKL = self._form.of(self.vae)
        return form


def _in_inference_form(vae: AutoencoderKL) -> AutoencoderKL:
    form = inference_form(vae)
    for module in form.modules():
        if type(module) is nn.Conv2d:  # the rest: few channels or strides, between maps in order
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return form


def load_codec(
    source: str,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
) -> LatentCodec:
    """Load a codec by name, strictly.

    Args:
        source: `builtin`; a folder in diffusers' layout, or with a `vae` folder of that layout
            inside; or a name on the hub, `owner/name` or `owner/name/subfolder`.
        device: where to put it; the CPU unless given.
        dtype: its precision; float32 unless given.

    Raises:
        ValueError: the folder or hub name holds no readable AutoencoderKL.
    """
    place, subfolder = locate(source)
    try:
        # Weights in .bin are read by diffusers with weights_only, so no code runs from them.
        vae = load_whole(
            AutoencoderKL.from_pretrained,
            place,
            subfolder=subfolder,
            torch_dtype=dtype or torch.float32,
            low_cpu_mem_usage=False,
        )
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ValueError(
            f"codec {source!r} could not be loaded ({reason}): give 'builtin', a folder with an "
            "AutoencoderKL's config.json and weights, or a hub name while online"
        ) from error
    return LatentCodec(vae, source).to(device or "cpu")


def locate(source: str) -> tuple[str, str | None]:
    """Split a source into what diffusers calls the model's path and its subfolder."""
    if source == "builtin":
        return str(BUILTIN_FOLDER), None
    folder = Path(source).expanduser()
    if folder.is_dir():
        inside = not (folder / "config.json").is_file() and (folder / "vae").is_dir()
        return str(folder / "vae" if inside else folder), None
    parts = source.split("/")
    if source.startswith((".", "/", "~")) or len(parts) < 2 or not all(parts):
        raise ValueError(
            f"codec {source!r} is no folder here: give 'builtin', an existing folder, "
            "or a hub name such as 'owner/name'"
        )
    return "/".join(parts[:2]), "/".join(parts[2:]) or None
