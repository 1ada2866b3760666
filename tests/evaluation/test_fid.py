from pathlib import Path

import numpy as np
import pytest

import moebius.torchvision_schemas  # noqa: F401  (torch-fidelity imports torchvision)
from moebius.evaluation.fid import (
    BLOCK,
    Moments,
    RunningMoments,
    frechet_distance,
    load_moments,
    save_moments,
)


def features(count: int, seed: int, width: int = 48) -> np.ndarray:
    """Correlated, as Inception's are: eigenvalues fall by four orders of magnitude."""
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width)) * np.geomspace(1, 1e-2, width)
    return (np.abs(rng.normal(size=(count, width)) @ mixing.T) + 0.1 * seed).astype(np.float32)


@pytest.mark.parametrize("count", [600, 48, 12], ids=["N > D", "N = D", "N < D"])
def test_against_torch_fidelity(count: int):
    from torch_fidelity.metric_fid import fid_statistics_to_metric

    real, fake = features(count, 0), features(count, 1)
    for ddof in (0, 1):
        statistics = [
            {"mu": x.mean(0, np.float64), "sigma": np.cov(x, rowvar=False, ddof=ddof)}
            for x in (real, fake)
        ]
        expected = fid_statistics_to_metric(*statistics, verbose=False)
        found = frechet_distance(Moments.of(real), Moments.of(fake), ddof)
        assert found == pytest.approx(expected["frechet_inception_distance"], rel=1e-6)


def test_of_gaussians_that_have_a_closed_form():
    """Diagonal covariances: the sum of squared differences of means and of deviations."""
    mean, deviation = np.array([[0.0, 1.0, 5.0], [2.0, 1.0, 4.0]]), np.array([[1, 2, 3], [4, 2, 0]])
    real, fake = (
        Moments(10, m, 10.0 * np.diag(d**2)) for m, d in zip(mean, deviation, strict=True)
    )
    assert frechet_distance(real, fake, 0) == pytest.approx(4 + 0 + 1 + 9 + 0 + 9)
    assert frechet_distance(real, fake, 1) == pytest.approx(5 + 18 * 10 / 9)


@pytest.mark.parametrize("count", [600, 12])
def test_of_a_set_and_itself_is_zero(count: int):
    moments = Moments.of(100 * features(count, 0))
    assert 0 <= frechet_distance(moments, moments, 0) < 1e-6


def test_moments_against_numpy():
    x = features(300, 0)
    moments = Moments.of(x)
    np.testing.assert_allclose(moments.mean, x.mean(0, np.float64), rtol=1e-12)
    for ddof in (0, 1):
        np.testing.assert_allclose(
            moments.covariance(ddof), np.cov(x, rowvar=False, ddof=ddof), atol=1e-12
        )


@pytest.mark.parametrize("cut", [1, 7, 150, 299])
def test_merged_moments_are_those_of_the_whole(cut: int):
    x = features(300, 0) + 1000  # far from 0: sums of squares would cancel
    whole, merged = Moments.of(x), Moments.of(x[:cut]).merge(Moments.of(x[cut:]))
    assert merged.count == 300
    np.testing.assert_allclose(merged.mean, whole.mean, rtol=1e-12)
    np.testing.assert_allclose(merged.scatter, whole.scatter, rtol=1e-9, atol=1e-6)


@pytest.mark.parametrize("cuts", [[], [1], [BLOCK], [3, 3, 5, 500], list(range(0, 600, 64))])
def test_running_moments_do_not_depend_on_the_split_to_the_bit(cuts: list[int]):
    x = features(2 * BLOCK + 88, 0)
    running, whole = RunningMoments(), RunningMoments()
    whole.add(x)
    for part in np.split(x, cuts):
        running.add(part)
    np.testing.assert_allclose(whole.result().scatter, Moments.of(x).scatter, atol=1e-8)
    for _ in range(2):  # asking does not change it
        assert running.result().count == len(x)
        assert running.result().mean.tobytes() == whole.result().mean.tobytes()
        assert running.result().scatter.tobytes() == whole.result().scatter.tobytes()


def test_too_few_pictures_are_refused():
    with pytest.raises(ValueError, match="no pictures"):
        RunningMoments().result()
    one = Moments.of(features(1, 0))
    assert frechet_distance(one, one, 0) == 0
    with pytest.raises(ValueError, match="more than 1 picture"):
        frechet_distance(one, one, 1)


def test_moments_in_a_file(tmp_path: Path):
    path, made_with = tmp_path / "real.safetensors", {"weights": "ab12", "pictures": "cd34"}
    moments = {"fid_a": Moments.of(features(20, 0)), "fid_b": Moments.of(features(20, 1))}
    save_moments(path, moments, made_with)
    loaded = load_moments(path, made_with)
    assert list(loaded) == list(moments)
    for kind, found in loaded.items():
        assert found.count == 20
        assert found.mean.tobytes() == moments[kind].mean.tobytes()
        assert found.scatter.tobytes() == moments[kind].scatter.tobytes()
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    with pytest.raises(ValueError, match="other pictures or weights"):
        load_moments(path, made_with | {"weights": "ef56"})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="damaged"):
        load_moments(path, made_with)
