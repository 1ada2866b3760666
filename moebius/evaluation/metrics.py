"""PSNR and SSIM of inpainted pictures, over the whole picture or inside the hole only.

Everything is measured on the 256 levels of an 8-bit file, so that a score belongs to what a user
can save (protocols, trap 12). One picture is measured at a time, so that its score does not
depend on its batch. Higher is better.

Shapes: (H, W, 3) uint8 pictures and (H, W) bool holes, or batches of tensors: pictures
(B, 3, H, W) in [-1, 1] and masks (B, 1, H, W), 1 = hole.
"""

from collections.abc import Collection, Iterator

import cv2
import numpy as np
import torch

DATA_RANGE = 255
# Wang et al. 2004: an 11 x 11 Gaussian of sigma 1.5, K1 = 0.01, K2 = 0.03.
WINDOW = cv2.getGaussianKernel(11, 1.5, cv2.CV_32F)
BORDER = len(WINDOW) // 2
C1, C2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
MIDDLE = np.float32(128)

PICTURE_SCORES = ("psnr_hole", "ssim_hole", "psnr", "ssim")
"""What `picture_scores` knows."""


def picture_scores(
    result: np.ndarray, truth: np.ndarray, hole: np.ndarray, names: Collection[str]
) -> dict[str, float]:
    """Scores of one picture; what several of them need is computed once.

    Args:
        result: (H, W, 3) uint8.
        truth: the same.
        hole: (H, W) bool.
        names: of `PICTURE_SCORES`.

    Raises:
        ValueError: if a score of the hole is asked for and there is none, or if the picture is
            too small for the window of SSIM.
    """
    if not hole.any() and not {"psnr_hole", "ssim_hole"}.isdisjoint(names):
        raise ValueError("a mask has no hole pixel: there is nothing to score in it")
    scores: dict[str, float] = {}
    if not {"psnr_hole", "psnr"}.isdisjoint(names):
        error = _squared_error(result, truth)
        scores["psnr_hole"] = _decibels(error[hole])
        scores["psnr"] = _decibels(error)
    if not {"ssim_hole", "ssim"}.isdisjoint(names):
        similarity = _ssim_map(result, truth)
        inner = similarity[BORDER:-BORDER, BORDER:-BORDER]
        scores["ssim_hole"] = float(similarity[hole].mean(dtype=np.float64))
        scores["ssim"] = float(inner.mean(dtype=np.float64))
    return {name: scores[name] for name in names}


def _squared_error(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W) sums over the channels, whole numbers."""
    difference = result.astype(np.int32) - truth
    return np.einsum("hwc,hwc->hw", difference, difference)


def _decibels(error: np.ndarray) -> float:
    """PSNR of summed squared errors of three channels; infinite where all are 0."""
    total = int(error.sum(dtype=np.int64))
    return float(10 * np.log10(DATA_RANGE**2 * 3 * error.size / total)) if total else float("inf")


def _ssim_map(result: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(H, W) float32, averaged over the channels; pictures are mirrored at the border."""
    if min(truth.shape[:2]) < len(WINDOW):
        height, width = truth.shape[:2]
        raise ValueError(
            f"SSIM needs pictures of at least {len(WINDOW)} px a side, not {width}x{height}"
        )
    planes = zip(cv2.split(result), cv2.split(truth), strict=True)
    total = np.zeros(truth.shape[:2], np.float32)
    for x, y in planes:
        total += _plane_ssim(x.astype(np.float32), y.astype(np.float32))
    return total / np.float32(3)


def _plane_ssim(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Eq. 13 of Wang et al. 2004 for one channel, (H, W) float32 levels.

    Only the sum of the two variances is needed. It is taken about the middle level, which does
    not change it and keeps four times as much of float32's precision.
    """
    x, y = x - MIDDLE, y - MIDDLE
    mean_x, mean_y = _blur(x), _blur(y)
    variances = _blur(x * x + y * y) - mean_x * mean_x - mean_y * mean_y
    covariance = _blur(x * y) - mean_x * mean_y
    mean_x, mean_y = mean_x + MIDDLE, mean_y + MIDDLE
    above = (2 * mean_x * mean_y + C1) * (2 * covariance + C2)
    return above / ((mean_x * mean_x + mean_y * mean_y + C1) * (variances + C2))


def _blur(plane: np.ndarray) -> np.ndarray:
    return cv2.sepFilter2D(plane, cv2.CV_32F, WINDOW, WINDOW, borderType=cv2.BORDER_REFLECT_101)


def hole_psnr(pred: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,) PSNR in dB over the channels of the hole's pixels; infinite where they are all equal.

    Raises:
        ValueError: if a mask is empty.
    """
    return _score_batch("psnr_hole", pred, target, mask)


def psnr(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(B,) PSNR in dB over the whole picture."""
    return _score_batch("psnr", pred, target)


def hole_ssim(pred: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """(B,) SSIM map averaged over the channels of the hole's pixels.

    The window at the hole's edge sees known pixels as well, so a hard composite scores higher
    than the same hole in a picture that is wrong all over.

    Raises:
        ValueError: if a mask is empty.
    """
    return _score_batch("ssim_hole", pred, target, mask)


def ssim(pred: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(B,) SSIM of the whole picture, without the border that the window does not fit into."""
    return _score_batch("ssim", pred, target)


def _score_batch(
    name: str, pred: torch.Tensor, target: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    mask = torch.ones_like(target[:, :1]) if mask is None else mask
    holes = mask[:, 0].bool().cpu().numpy()
    triples = zip(_levels(pred), _levels(target), holes, strict=True)
    scores = [picture_scores(*triple, names=(name,))[name] for triple in triples]
    return torch.tensor(scores, dtype=torch.float64, device=target.device)


def _levels(images: torch.Tensor) -> Iterator[np.ndarray]:
    """Yields each of (B, 3, H, W) in [-1, 1] as (H, W, 3) uint8."""
    levels = ((images.double() + 1) * (DATA_RANGE / 2)).round().clamp(0, DATA_RANGE)
    yield from levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
