import math

import numpy as np
import pytest
import torch
from skimage import data
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import structural_similarity_index_measure

from moebius.evaluation.metrics import (
    PICTURE_SCORES,
    hole_psnr,
    hole_ssim,
    picture_scores,
    psnr,
    ssim,
)

WINDOW = {
    "data_range": 255,
    "gaussian_weights": True,
    "sigma": 1.5,
    "use_sample_covariance": False,
    "channel_axis": -1,
}


def pictures() -> tuple[np.ndarray, np.ndarray]:
    """Two crops and noisy copies of them, (2, 64, 80, 3) uint8."""
    photo = data.astronaut()
    target = np.stack([photo[50:114, 180:260], photo[300:364, 100:180]])
    noise = np.random.default_rng(0).normal(0, [[[[12]]], [[[40]]]], target.shape)
    return np.clip(target + noise, 0, 255).astype(np.uint8), target


def as_tensor(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1


@pytest.fixture
def inner_mask() -> torch.Tensor:
    """Holes away from the border, where the two libraries pad differently."""
    mask = torch.zeros(2, 1, 64, 80)
    mask[0, 0, 10:40, 12:50] = 1
    mask[1, 0, 20:50, 30:65] = 1
    return mask


def test_whole_pictures_against_skimage():
    pred, target = pictures()
    pairs = list(zip(target, pred, strict=True))
    expected = [peak_signal_noise_ratio(t, p, data_range=255) for t, p in pairs]
    assert psnr(as_tensor(pred), as_tensor(target)).tolist() == pytest.approx(expected)
    expected = [structural_similarity(t, p, **WINDOW) for t, p in pairs]
    assert ssim(as_tensor(pred), as_tensor(target)).tolist() == pytest.approx(expected, abs=1e-6)


def test_holes_against_skimage(inner_mask):
    pred, target = pictures()
    holes = inner_mask[:, 0].numpy().astype(bool)
    triples = list(zip(target, pred, holes, strict=True))
    expected = [peak_signal_noise_ratio(t[h], p[h], data_range=255) for t, p, h in triples]
    scores = hole_psnr(as_tensor(pred), as_tensor(target), inner_mask)
    assert scores.tolist() == pytest.approx(expected)
    expected = [
        structural_similarity(t, p, full=True, **WINDOW)[1][h].mean() for t, p, h in triples
    ]
    scores = hole_ssim(as_tensor(pred), as_tensor(target), inner_mask)
    assert scores.tolist() == pytest.approx(expected, abs=1e-6)


def test_ssim_against_torchmetrics_in_double_up_to_the_border():
    pred, target = pictures()
    flat = np.full_like(target, 255)  # where single precision is worst
    speckled = flat - np.random.default_rng(0).integers(0, 2, flat.shape, np.uint8)
    for result, truth in ((pred, target), (speckled, flat)):
        doubles = (torch.from_numpy(x).permute(0, 3, 1, 2).double() for x in (result, truth))
        _, full = structural_similarity_index_measure(
            *doubles, sigma=1.5, data_range=255.0, return_full_image=True
        )
        expected = full[..., 5:-5, 5:-5].mean(dim=(1, 2, 3))
        found = ssim(as_tensor(result), as_tensor(truth))
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
        corner = torch.zeros(2, 1, 64, 80)
        corner[..., :7, 60:] = 1
        expected = (full.mean(1, keepdim=True) * corner).sum(dim=(1, 2, 3)) / corner[0].sum()
        found = hole_ssim(as_tensor(result), as_tensor(truth), corner)
        assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


def test_scores_of_levels_are_those_of_tensors(inner_mask):
    pred, target = pictures()
    hole = inner_mask[1, 0].numpy().astype(bool)
    scores = picture_scores(pred[1], target[1], hole, PICTURE_SCORES)
    assert tuple(scores) == PICTURE_SCORES
    made, true, mask = as_tensor(pred)[1:], as_tensor(target)[1:], inner_mask[1:]
    found = [hole_psnr(made, true, mask), hole_ssim(made, true, mask), psnr(made, true)]
    assert list(scores.values()) == [score.item() for score in (*found, ssim(made, true))]
    for name in PICTURE_SCORES:
        assert picture_scores(pred[1], target[1], hole, (name,)) == {name: scores[name]}


def test_pictures_smaller_than_the_window_are_refused():
    small = torch.zeros(1, 3, 10, 64)
    with pytest.raises(ValueError, match="11 px a side, not 64x10"):
        ssim(small, small)


def test_errors_outside_the_hole_do_not_count(inner_mask):
    pred, target = (as_tensor(batch) for batch in pictures())
    composite = pred * inner_mask + target * (1 - inner_mask)
    wrong = hole_psnr(pred, target, inner_mask)
    assert torch.equal(hole_psnr(composite, target, inner_mask), wrong)
    assert torch.isinf(hole_psnr(composite, target, 1 - inner_mask)).all()


def test_one_picture_gives_one_score(inner_mask):
    pred, target = (as_tensor(batch)[:1] for batch in pictures())
    scores = [psnr(pred, target), ssim(pred, target)]
    scores += [hole_psnr(pred, target, inner_mask[:1]), hole_ssim(pred, target, inner_mask[:1])]
    assert [score.shape for score in scores] == 4 * [(1,)]


def test_scores_are_of_rounded_and_clamped_levels():
    target = torch.full((1, 3, 16, 16), -1.0)
    mask = torch.ones(1, 1, 16, 16)
    below_half_a_level = target + 0.49 / 127.5
    assert hole_psnr(below_half_a_level, target, mask).item() == math.inf
    assert hole_psnr(target - 3, target, mask).item() == math.inf
    one_level = target + 0.51 / 127.5
    assert hole_psnr(one_level, target, mask).item() == pytest.approx(20 * math.log10(255))


def test_an_empty_mask_is_refused(inner_mask):
    pred, target = (as_tensor(batch) for batch in pictures())
    inner_mask[1] = 0
    for metric in (hole_psnr, hole_ssim):
        with pytest.raises(ValueError, match="no hole pixel"):
            metric(pred, target, inner_mask)
