"""The codec of the released models' shape, 256 px: its network as it is, and its inference form.

Made-up weights, which time does not depend on.
"""

import torch
from _ratio import ratio, show
from torch import Tensor

from moebius.models.codec import LatentCodec

SIDE = 256


def made_up_codec() -> LatentCodec:
    """An autoencoder of 128-256-512-512 channels."""
    from diffusers import AutoencoderKL  # after moebius, which mends what it imports

    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
    )
    return LatentCodec(vae, "made-up")


@torch.no_grad()
def main() -> None:
    """Shows the ratios of decoding and of encoding."""
    codec = made_up_codec()
    image, latents = torch.rand(1, 3, SIDE, SIDE) * 2 - 1, torch.randn(1, 4, SIDE // 8, SIDE // 8)

    def decode() -> Tensor:
        return codec.vae.decode(latents).sample

    def encode() -> Tensor:
        return codec.vae.encode(image).latent_dist.mean

    for name, plain, fast in (
        ("decoder", decode, lambda: codec.decode(latents)),
        ("encoder", encode, lambda: codec.encode(image)),
    ):
        show(f"codec's {name}, {SIDE} px", ratio(plain, fast, rounds=2))


if __name__ == "__main__":
    main()
