import pytest
import torch

from moebius.distill.augment import TRANSFORMS, apply_affine, draw_augmentations


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def affine(*rows: list[float]) -> torch.Tensor:
    return torch.tensor([rows], dtype=torch.float32)


@pytest.fixture
def latent() -> torch.Tensor:
    return torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0))


def test_identity_is_exact_on_any_shape():
    x = torch.randn(2, 4, 9, 14)
    theta = affine([1, 0, 0], [0, 1, 0]).expand(2, -1, -1)
    assert apply_affine(x, theta).equal(x)


def test_a_flip_and_quarter_turns_are_exact(latent):
    flip = affine([-1, 0, 0], [0, 1, 0])
    assert apply_affine(latent, flip).equal(latent.flip(-1))
    turns = {
        tuple(apply_affine(latent, torch.tensor([matrix])).flatten().tolist())
        for u in (0.0, 0.3, 0.6, 0.9)
        for matrix in [TRANSFORMS["quarter_turn"]([u, 0.0], [0.0, 0.0], 16, 16)]
    }
    expected = {tuple(latent.rot90(k, (-2, -1)).flatten().tolist()) for k in range(4)}
    assert turns == expected


def test_an_integer_shift_is_exact_and_reflects(latent):
    shifted = apply_affine(latent, affine([1, 0, 2], [0, 1, -3]))
    assert shifted[..., 3:, :-2].equal(latent[..., :-3, 2:])
    # Past the border, pixels come back without the border pixel repeated.
    assert shifted[..., 3:, -1].equal(latent[..., :-3, -3])
    assert shifted[..., 0, :-2].equal(latent[..., 3, 2:])


def test_a_fractional_shift_interpolates(latent):
    shifted = apply_affine(latent, affine([1, 0, 0.25], [0, 1, 0]))
    expected = 0.75 * latent[..., :-1] + 0.25 * latent[..., 1:]
    torch.testing.assert_close(shifted[..., :-1], expected)


def test_scale_and_rotation_map_a_ramp_linearly():
    ramp = (torch.arange(17.0) - 8).expand(1, 1, 17, 17)  # value = x from the centre
    inner = (..., slice(5, 12), slice(5, 12))  # away from the reflecting borders
    scaled = apply_affine(
        ramp, torch.tensor([TRANSFORMS["isotropic_scale"]([0, 0], [5, 0], 17, 17)])
    )
    torch.testing.assert_close(scaled[inner], ramp[inner] / 2)  # 2 ** (0.2 * 5): twice as large
    stretched = TRANSFORMS["anisotropic_scale"]([0, 0], [5, 0], 17, 17)
    assert stretched == [[0.5, 0, 0], [0, 2, 0]]
    theta = torch.tensor([TRANSFORMS["rotation"]([7 / 12, 0], [0, 0], 17, 17)])  # 30 degrees
    expected = ramp * 3**0.5 / 2 - ramp.mT / 2
    torch.testing.assert_close(apply_affine(ramp, theta)[inner], expected[inner])


def test_draws_cover_all_transforms_within_their_ranges():
    (generator,) = seeded(1)
    thetas = draw_augmentations([generator] * 2000, 32, 64)
    linear, shift = thetas[:, :, :2], thetas[:, :, 2]
    shifted = shift.abs().sum(1) > 0
    whole = shifted & (shift == shift.round()).all(1)
    det = torch.linalg.det(linear)
    kinds = {
        "flip": det < 0,  # half of the flips, the others are the identity
        "integer_shift": whole,
        "fractional_shift": shifted & ~whole,
        "isotropic_scale": ~shifted & ((det - 1).abs() > 1e-4) & (det > 0),
        "anisotropic_scale": (linear[:, 0, 1] == 0)
        & ((linear[:, 0, 0] - linear[:, 1, 1]) != 0)
        & (det > 0),
        "rotation": (linear[:, 0, 1] != 0) & (linear[:, 0, 0] != 0),
    }
    expected = {kind: 1 / 14 if kind == "flip" else 1 / 7 for kind in kinds}
    for kind, found in kinds.items():
        assert found.float().mean().item() == pytest.approx(expected[kind], abs=0.03), kind
    assert shift[whole].abs().amax(0).tolist() == [8, 4]  # x by the width, y by the height


def test_a_sample_draws_the_same_in_any_batch():
    whole = draw_augmentations(seeded(3, 4, 5, 6), 16, 16)
    halves = [draw_augmentations(seeded(*seeds), 16, 16) for seeds in ((3, 4), (5, 6))]
    assert whole.equal(torch.cat(halves))
    assert whole.unique(dim=0).shape[0] == 4


def test_resampling_is_differentiable():
    x = torch.randn(2, 1, 5, 6, dtype=torch.float64, requires_grad=True)
    theta = draw_augmentations(seeded(8, 9), 5, 6)
    assert torch.autograd.gradcheck(lambda x: apply_affine(x, theta), x)
