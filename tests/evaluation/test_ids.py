import numpy as np
import pytest
from scipy.optimize import minimize

from moebius.evaluation.ids import discriminative_scores


def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Minimises |w|^2 / 2 + sum of squared hinges; the last weight is the bias (C = 1)."""

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        slack = np.maximum(0, 1 - y * (x @ w))
        return w @ w / 2 + slack @ slack, w - 2 * x.T @ (y * slack)

    return minimize(loss, np.zeros(x.shape[1]), jac=True, options={"gtol": 1e-8}).x


@pytest.mark.parametrize("shift", [0.0, 0.4, 3.0])
def test_against_a_direct_computation(shift: float):
    rng = np.random.default_rng(0)
    scale = np.geomspace(1, 0.01, 6)  # what is small is held back by C, and nothing is rescaled
    real, fake = scale * rng.normal(size=(60, 6)), scale * (rng.normal(size=(60, 6)) + shift)
    ones = np.ones((60, 1))
    r, f = np.hstack([real, ones]), np.hstack([fake, ones])
    w = fit(np.vstack([r, f]), np.repeat([1, -1], 60))
    wrong = np.sum(r @ w <= 0) + np.sum(f @ w > 0)
    found = discriminative_scores(real.astype(np.float32), fake.astype(np.float32))
    assert found.p_ids == pytest.approx(100 * np.mean(f @ w > r @ w))
    assert found.u_ids == pytest.approx(100 * wrong / 120)


def test_pictures_that_are_the_truth_fool_by_half_and_never_beat_it():
    real = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    assert discriminative_scores(real, real) == pytest.approx((0, 50))


def test_features_must_be_pairs():
    with pytest.raises(ValueError, match="20 real pictures, 19 results"):
        discriminative_scores(np.ones((20, 4)), np.ones((19, 4)))
    with pytest.raises(ValueError, match="0 real pictures"):
        discriminative_scores(np.ones((0, 4)), np.ones((0, 4)))
