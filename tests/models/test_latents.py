import pytest
import torch

from moebius.models.latents import denoiser_input, latent_mask


def test_mask_takes_the_top_left_pixel_of_each_cell():
    mask = torch.zeros(2, 1, 16, 24)
    mask[0, 0, 8, 16] = 1  # a top-left pixel
    mask[1, 0, 7, 15] = 1  # a bottom-right pixel
    latent = latent_mask(mask, 8)
    assert latent.shape == (2, 1, 2, 3)
    assert latent[0].nonzero().tolist() == [[0, 1, 2]]
    assert latent[1].sum() == 0
    nearest = torch.nn.functional.interpolate(mask, scale_factor=1 / 8, mode="nearest")
    assert torch.equal(latent, nearest)


def test_mask_of_a_size_between_cells_is_refused():
    with pytest.raises(ValueError, match="12x16.*multiples of 8"):
        latent_mask(torch.zeros(1, 1, 12, 16), 8)


def test_input_order_is_noisy_mask_masked():
    stacked = denoiser_input(
        torch.full((1, 4, 2, 2), 1.0), torch.full((1, 1, 2, 2), 2.0), torch.full((1, 4, 2, 2), 3.0)
    )
    assert stacked[0, :, 0, 0].tolist() == [1, 1, 1, 1, 2, 3, 3, 3, 3]
