import numpy as np
import pytest
from skimage import data

from moebius.inference import blending
from moebius.inference.blending import check_blend, harmonic
from moebius.inference.masks import distance_to_hole

BLENDS = ["hard", "feather", "laplacian", "poisson"]
KNOWN = data.astronaut()[100:180, 200:290]
MADE = data.coffee()[100:180, 200:290]


def composite(known, made, hole, **options) -> np.ndarray:
    return blending.composite(known, made, distance_to_hole(hole), **options)


def hole() -> np.ndarray:
    y, x = np.indices(KNOWN.shape[:2])
    return (np.hypot(y - 40, x - 45) < 15) | ((abs(y - 60) < 3) & (x < 20))


@pytest.mark.parametrize("blend", BLENDS)
@pytest.mark.parametrize("radius", [0, 1, 2, 9])
@pytest.mark.parametrize("reach", [0, 5])
def test_beyond_the_radius_every_byte_is_the_photographs(blend, radius, reach):
    result = composite(KNOWN, MADE, hole(), radius=radius, blend=blend, reach=reach)
    outside = distance_to_hole(hole()) > radius
    assert result.dtype == np.uint8
    assert np.array_equal(result[outside], KNOWN[outside])
    assert (result[~outside] != KNOWN[~outside]).any(axis=-1).mean() > 0.5


@pytest.mark.parametrize("blend", ["hard", "feather", "laplacian"])
def test_up_to_half_the_radius_nothing_of_the_photograph_is_mixed_in(blend):
    """What is to be removed may reach a little beyond the mask."""
    result = composite(KNOWN, MADE, hole(), radius=8, blend=blend)
    near = distance_to_hole(hole()) <= 4
    assert np.array_equal(result[near], MADE[near])


@pytest.mark.parametrize("blend", BLENDS)
def test_what_the_photograph_hides_in_the_hole_has_no_influence(blend):
    other = KNOWN.copy()
    other[hole()] = 255 - other[hole()]
    options = {"radius": 6, "blend": blend, "reach": 5}
    first, second = (composite(image, MADE, hole(), **options) for image in (KNOWN, other))
    assert np.array_equal(first, second)


def test_the_feather_is_a_ramp_over_the_outer_half_of_the_ring():
    known, made = np.zeros((5, 60, 3), np.uint8), np.full((5, 60, 3), 240, np.uint8)
    hole = np.zeros((5, 60), bool)
    hole[:, :20] = True
    row = composite(known, made, hole, radius=10, blend="feather")[2, :, 0]
    # Pixel 19 is the last of the hole, so pixel 19 + d is at distance d: 240 (11 - d) / 6.
    assert row[19:31].tolist() == [240] * 6 + [200, 160, 120, 80, 40, 0]


@pytest.mark.parametrize("blend", ["feather", "laplacian"])
def test_steps_at_the_edges_are_gone(blend):
    known, made = np.zeros((40, 80, 3), np.uint8), np.full((40, 80, 3), 200, np.uint8)
    hole = np.zeros((40, 80), bool)
    hole[:, :30] = True
    row = composite(known, made, hole, radius=20, blend=blend)[20, :, 0].astype(int)
    steps = np.abs(np.diff(row))
    assert steps.max() <= 200 / 11 + 1
    assert np.abs(np.diff(composite(known, made, hole, radius=20, blend="hard")[20, :, 0])).max()


def test_fine_detail_changes_over_a_narrower_band_than_colour():
    x = np.arange(120)
    made = np.broadcast_to((128 + 100 * (x % 2))[None, :, None], (9, 120, 3)).astype(np.uint8)
    known = np.full_like(made, 20)
    hole = np.zeros((9, 120), bool)
    hole[:, :40] = True

    def detail(blend):
        row = composite(known, made, hole, radius=32, blend=blend)[4, :, 0].astype(int)
        return np.abs(np.diff(row, 2))[57:70]

    # Just beyond half the radius, the ramp of feathering has begun, that of detail has not.
    assert detail("laplacian")[:3].min() > 190 > detail("feather")[2]


def test_poisson_meets_the_photograph_and_keeps_the_gradients():
    y, x = np.indices((60, 60))
    known = np.stack([y + x + 60] * 3, -1).astype(np.uint8)
    texture = (8 * ((x // 3 + y // 3) % 2))[..., None]
    made = (np.stack([y + x + 20] * 3, -1) + texture).astype(np.uint8)
    hole = (abs(y - 30) < 12) & (abs(x - 30) < 12)
    result = composite(known, made, hole, radius=0, blend="poisson").astype(int)
    # The difference is constant but for the texture: so the hole is lifted by about 40.
    lifted = (result - made)[hole]
    assert abs(lifted.mean() - 36) < 3 and lifted.std() < 3


def test_harmonic_values_have_no_bumps():
    """x^2 - y^2 is harmonic: it comes back from its border alone."""
    y, x = np.indices((48, 40)) / 20 - 1
    truth = np.stack([x**2 - y**2, x * y, 3 * x + y], -1).astype(np.float32)
    given = np.ones((48, 40), bool)
    given[1:-1, 1:-1] = False
    noisy = np.where(given[..., None], truth, 99).astype(np.float32)
    assert np.abs(harmonic(noisy, given) - truth).max() < 0.01 * np.ptp(truth)
    assert np.array_equal(harmonic(noisy, ~given & given), np.zeros_like(truth))


def test_compensation_takes_out_a_cast_that_the_surroundings_show():
    known = KNOWN.clip(40, 215)
    made = (known + np.array([12, -9, 5])).astype(np.uint8)
    plain = composite(known, made, hole(), radius=3, blend="hard")
    mended = composite(known, made, hole(), radius=3, blend="hard", reach=6)
    assert np.array_equal(mended, known) and not np.array_equal(plain, known)


@pytest.mark.parametrize("blend", BLENDS)
def test_a_hole_without_surroundings_is_what_was_made(blend):
    everything = np.ones(KNOWN.shape[:2], bool)
    result = composite(KNOWN, MADE, everything, radius=4, blend=blend, reach=5)
    assert np.array_equal(result, MADE)


def test_unknown_blends_are_refused():
    check_blend("poisson")
    with pytest.raises(ValueError, match="'soft' is unknown: use feather, hard"):
        check_blend("soft")
