"""The scores that can be asked for by name (protocols 1.3)."""

from dataclasses import dataclass

from moebius.evaluation.inception import FeatureKind
from moebius.evaluation.tables import Metric


@dataclass(frozen=True)
class Score:
    """A score's definition, and what computing it takes."""

    metric: Metric
    definition: str
    weights: str | None = None
    """Key of `PUBLISHED_FILES`."""
    library: str | None = None
    """Distribution that does the work."""
    features: FeatureKind | None = None
    """Of Inception; None is a score of single pictures, of which the mean is reported."""
    pairs: bool = False
    """Whether it needs every picture's features, not only their moments."""


_SCORES = (
    Score(
        Metric("psnr_hole", "PSNR hole"),
        "PSNR in dB over the hole's pixels, 8-bit levels, mean over pictures",
    ),
    Score(
        Metric("ssim_hole", "SSIM hole", digits=4),
        "SSIM map (Gaussian window 11, sigma 1.5) averaged over the hole's pixels",
    ),
    Score(Metric("psnr", "PSNR"), "PSNR in dB over the whole picture, 8-bit levels"),
    Score(
        Metric("ssim", "SSIM", digits=4),
        "SSIM (Gaussian window 11, sigma 1.5) of the whole picture, border of 5 px left out",
    ),
    Score(
        Metric("lpips", "LPIPS", higher_is_better=False, digits=3),
        "LPIPS 0.1, AlexNet, linearly calibrated, whole picture, levels / 127.5 - 1",
        weights="alexnet",
        library="lpips",
    ),
    Score(
        Metric("lpips_vgg", "LPIPS-VGG", higher_is_better=False, digits=3),
        "LPIPS 0.1, VGG16, linearly calibrated, whole picture, levels / 127.5 - 1",
        weights="vgg16",
        library="lpips",
    ),
    Score(
        Metric("fid", "FID", higher_is_better=False),
        "F-A: 8-bit levels, TensorFlow 1 bilinear to 299, (x - 128) / 128, covariance / N",
        weights="inception",
        library="torch-fidelity",
        features="fid_a",
    ),
    Score(
        Metric("fid_b", "FID (F-B)", higher_is_better=False),
        "F-B: [0, 1], torch bilinear to 299 without antialiasing, 2x - 1, covariance / (N - 1)",
        weights="inception",
        library="torch-fidelity",
        features="fid_b",
    ),
    Score(
        Metric("p_ids", "P-IDS"),
        "pairs in which a linear SVM on F-A features takes the result for more real, per cent",
        weights="inception",
        library="torch-fidelity",
        features="fid_a",
        pairs=True,
    ),
    Score(
        Metric("u_ids", "U-IDS"),
        "training error of a linear SVM on F-A features, real against results, per cent",
        weights="inception",
        library="torch-fidelity",
        features="fid_a",
        pairs=True,
    ),
)

SCORES: dict[str, Score] = {score.metric.name: score for score in _SCORES}
METRICS: dict[str, Metric] = {name: score.metric for name, score in SCORES.items()}
"""Every score by name, in the order of a table's columns."""
DDOF = {"fid": 0, "fid_b": 1}
"""What each FID takes from N before it divides a covariance."""
