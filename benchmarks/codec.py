"""The codec of the released models' shape, 256 px: its network as it is, and its inference form.

Made-up weights, which time does not depend on.
"""

import torch
from _made_up import made_up_vae
from _ratio import ratio, show
from torch import Tensor

from moebius.models.codec import LatentCodec

SIDE = 256


@torch.no_grad()
def main() -> None:
    """Shows the ratios of decoding and of encoding."""
    codec = LatentCodec(made_up_vae(), "made-up")
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
