"""Feature maps of student and teacher: which, how alike, and the figure."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import moebius
from moebius.data.latents import LatentSample, encode_pixels
from moebius.evaluation import features
from moebius.evaluation.features import (
    builtin_pairs,
    capture_features,
    compare_maps,
    feature_pairs,
    feature_similarity,
    features_figure,
    linear_cka,
    project,
)
from moebius.models.codec import load_codec
from moebius.models.denoiser import Denoiser
from moebius.models.loading import load_denoiser
from moebius.models.schedule import build_scheduler, draw_noise

SMALL = {"lcg_dim": 8, "context_dim": 8, "latent_size": 16}


def make(arch: str, *widths: int) -> Denoiser:
    torch.manual_seed(len(widths))
    return moebius.build(arch, widths=widths, depths=[1] * len(widths), **SMALL).eval()


@pytest.fixture(scope="module")
def student() -> Denoiser:
    return make("lmi_dw_mixffn", 32, 32, 64)


@pytest.fixture(scope="module")
def teacher() -> Denoiser:
    return make("pixelhacker", 32, 64, 64, 64)


@pytest.fixture(scope="module")
def photographs() -> tuple[Tensor, Tensor]:
    return builtin_pairs(64, 3)


@pytest.fixture(scope="module")
def latents(photographs: tuple[Tensor, Tensor]) -> LatentSample:
    return encode_pixels(load_codec("builtin"), *photographs, torch.zeros(3))


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_pairs_of_the_paper_have_equal_shapes():
    with torch.device("meta"):
        student, teacher = moebius.build("lmi_dw_mixffn"), moebius.build("pixelhacker")
    pairs = feature_pairs(student, teacher, 64)
    assert dict(pairs) == {
        "down.0": "down.0",
        "down.1": "down.1",
        "down.2": "up.0",
        "up.0": "up.1",
        "up.1": "up.2",
        "up.2": "up.3",
    }
    ours, theirs = student.feature_shapes(), teacher.feature_shapes()
    assert all(ours[name] == theirs[other] for name, other in pairs)


def test_networks_of_one_depth_pair_features_of_one_name(student: Denoiser):
    names = list(student.feature_shapes())
    assert feature_pairs(student, student, 16) == list(zip(names, names, strict=True))


def test_cka_is_its_formula_on_kernels():
    x, y = normal(9, 4), normal(9, 6, seed=1)
    n, ones = 9, torch.ones(9, dtype=torch.float64)

    def hsic(k: Tensor, m: Tensor) -> Tensor:
        k, m = (kernel - torch.diag(kernel.diagonal()) for kernel in (k, m))
        total = (k @ m).trace() + (ones @ k @ ones) * (ones @ m @ ones) / ((n - 1) * (n - 2))
        return (total - 2 / (n - 2) * (ones @ k @ m @ ones)) / (n * (n - 3))

    k, m = x @ x.T, y @ y.T
    wanted = hsic(k, m) / (hsic(k, k) * hsic(m, m)).sqrt()
    assert linear_cka(x, y) == pytest.approx(wanted.item(), abs=1e-12)


def test_cka_of_independent_features_is_zero_where_channels_outnumber_cells():
    x, y = normal(64, 500), normal(64, 500, seed=1)
    centred = [m - m.mean(0) for m in (x, y)]
    plain = (centred[0].T @ centred[1]).square().sum() / (
        (centred[0].T @ centred[0]).norm() * (centred[1].T @ centred[1]).norm()
    )
    assert plain > 0.8  # what the biased estimate would say
    assert abs(linear_cka(x, y)) < 0.05


def test_cka_ignores_rotation_and_scale_but_not_other_maps():
    x = normal(40, 8)
    rotation = torch.linalg.qr(normal(8, 8, seed=1)).Q
    assert linear_cka(x, 3 * x @ rotation) == pytest.approx(1)
    assert linear_cka(x, x @ torch.diag(torch.tensor([9.0] + [0.1] * 7).double())) < 0.6


def test_cka_refuses_what_it_cannot_say():
    with pytest.raises(ValueError, match="3 cells"):
        linear_cka(normal(3, 2), normal(3, 2))
    with pytest.raises(ValueError, match="do not vary"):
        linear_cka(torch.zeros(9, 2), normal(9, 2))


def test_cosine_is_by_channel_and_without_the_channels_means():
    a = normal(2, 5, 4, 4)
    offset = 100 * normal(1, 5, 1, 1, seed=1)
    assert compare_maps(a + offset, a - offset)["cosine"] == pytest.approx(1)
    assert compare_maps(-a, a) == {"cka": pytest.approx(1), "cosine": pytest.approx(-1)}
    swapped = compare_maps(a.roll(1, dims=1), a)
    assert swapped["cka"] == pytest.approx(1) and abs(swapped["cosine"]) < 0.4


def test_maps_of_other_widths_have_cka_alone_and_other_sizes_are_averaged():
    a = normal(2, 5, 4, 4)
    assert list(compare_maps(normal(2, 6, 4, 4), a)) == ["cka"]
    doubled = a.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    for pair in ((a, doubled), (doubled, a)):
        assert compare_maps(*pair) == {"cka": pytest.approx(1), "cosine": pytest.approx(1)}


def test_networks_see_photographs_noised_to_the_timestep(latents: LatentSample):
    seen = []

    class Recorder:
        training = False
        architecture = SimpleNamespace(context_length=10)

        def __call__(self, sample: Tensor, steps: Tensor, ids: Tensor) -> SimpleNamespace:
            seen.append((sample, steps.tolist(), ids[:, 0].tolist()))
            return SimpleNamespace(features={})

    capture_features(Recorder(), latents, 300, seed=2)  # type: ignore[arg-type]
    [(sample, steps, first_ids)] = seen
    # The second photograph has number 1, and its own noise.
    noise = draw_noise((1, 4, 8, 8), [torch.Generator().manual_seed(2 * 100_003 + 1)])
    alpha = build_scheduler().alphas_cumprod[300]
    wanted = alpha.sqrt() * latents["clean"][1:2, 0] + (1 - alpha).sqrt() * noise
    assert torch.allclose(sample[1:2, :4], wanted, atol=1e-6)
    assert torch.equal(sample[:, 4:5], latents["mask"])
    assert torch.equal(sample[:, 5:], latents["masked"][:, 0])
    assert steps == [300] * 3 and first_ids == [0] * 3


def test_a_network_is_like_itself_and_unlike_another(
    student: Denoiser, teacher: Denoiser, latents: LatentSample
):
    itself = feature_similarity(student, student, latents, (100, 900))
    assert len(itself) == 2 * 2 * len(student.feature_shapes())
    assert list(itself.values()) == pytest.approx([1] * len(itself), abs=1e-5)
    other = feature_similarity(student, teacher, latents, (100,), [("down.2", "up.0")])
    assert list(other) == ["cka/down.2/t100", "cosine/down.2/t100"]
    assert max(other.values()) < 0.9


def test_unknown_features_are_refused(student: Denoiser, latents: LatentSample):
    with pytest.raises(ValueError, match=r"no feature 'down.9'"):
        feature_similarity(student, student, latents, (1,), [("down.0", "down.9")])


def test_projection_is_the_teachers_for_both():
    scores = normal(2, 1, 3, 3)
    direction = normal(1, 6, 1, 1, seed=1)
    theirs = scores * direction + 0.01 * normal(2, 6, 3, 3, seed=2)
    ours = 2 * theirs
    mine, taught = project(ours, theirs)
    along = np.corrcoef(taught.ravel(), scores.numpy().ravel())[0, 1]
    assert abs(along) > 0.999
    # The teacher's mean is taken from both, so twice the map is not twice the projection.
    slope, offset = np.polyfit(taught.ravel(), mine.ravel(), 1)
    assert slope == pytest.approx(2) and abs(offset) > 1e-3
    with pytest.raises(ValueError, match="6 and 5 channels"):
        project(ours, theirs[:, :5])


def test_the_figure_shows_equal_networks_in_equal_colours(
    student: Denoiser, photographs: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch
):
    student.save_pretrained(tmp_path / "model")
    drawn = {}
    draw = features.draw_features

    def spy(inputs, maps, similarity, path):
        drawn.update(maps)
        draw(inputs, maps, similarity, path)

    monkeypatch.setattr(features, "draw_features", spy)
    out = tmp_path / "new" / "features.png"
    model, codec = load_denoiser(tmp_path / "model"), load_codec("builtin")
    found = features_figure(model, model, codec, *photographs, out, timesteps=(250, 750), rows=2)
    assert list(found.values()) == pytest.approx([1] * 4, abs=1e-5)
    assert [key.partition("/")[2] for key in found] == ["down.2/t250"] * 2 + ["down.2/t750"] * 2
    for ours, theirs in drawn.values():
        assert ours.shape == (3, 2, 2) and np.array_equal(ours, theirs)
    picture = np.asarray(Image.open(out).convert("RGB"))
    cell, dpi = features.CELL, 150
    left = (cell * 1 + features.GROUP_GAP) * dpi
    rows = slice(int(features.HEAD * dpi) + 20, int((features.HEAD + 2 * cell) * dpi) - 20)
    taught, learned = (
        picture[rows, round(left + n * cell * dpi) + 10 :][:, : int(0.8 * cell * dpi)]
        for n in (0, 1)
    )
    assert np.abs(taught.astype(int) - learned).mean() < 3  # equal up to a pixel's rounding
    assert taught.std() > 10
