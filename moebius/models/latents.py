"""The layout of the denoiser's nine input channels, shared by training and sampling.

Shapes: B batch, H, W pixels, h = H / factor, w = W / factor latent cells.
"""

import torch


def latent_mask(mask: torch.Tensor, factor: int) -> torch.Tensor:
    """Bring a hole mask to latent resolution by its nearest sample, the top-left of each cell.

    This is what the released model was trained with (protocols, trap 19): a stroke that misses
    every top-left pixel leaves no trace in the mask.

    Args:
        mask: (B, 1, H, W), 1 = hole.
        factor: pixels per latent cell.

    Returns:
        (B, 1, h, w).

    Raises:
        ValueError: if H or W is no multiple of the factor.
    """
    height, width = mask.shape[-2:]
    if height % factor or width % factor:
        raise ValueError(f"mask of {height}x{width} pixels: sides must be multiples of {factor}")
    return mask[..., ::factor, ::factor]


def denoiser_input(
    noisy: torch.Tensor, mask: torch.Tensor, masked_latents: torch.Tensor
) -> torch.Tensor:
    """Concatenate (B, 4, h, w) noisy, (B, 1, h, w) mask, (B, 4, h, w) masked to (B, 9, h, w)."""
    return torch.cat([noisy, mask.to(noisy.dtype), masked_latents], dim=1)
