"""Networks of the released shapes with made-up weights, which times do not depend on."""

from typing import Any


def made_up_vae(**config: Any) -> Any:
    """An `AutoencoderKL` of 128-256-512-512 channels."""
    from diffusers import AutoencoderKL

    import moebius.torchvision_schemas  # noqa: F401  (mends what diffusers imports)

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512),
        layers_per_block=2,
        latent_channels=4,
        **config,
    )
