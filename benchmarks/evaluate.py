"""PSNR and SSIM against torchmetrics in double precision, and memory of scoring N and 4N pictures.

python benchmarks/evaluate.py [--threads 2] [--pictures 256]
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import tyro
from _memory import peak

import moebius.torchvision_schemas  # noqa: F401  (before torchmetrics imports torchvision)
from moebius.evaluation.batch_scores import BatchScores
from moebius.evaluation.metrics import BORDER, PICTURE_SCORES
from moebius.evaluation.suite import MetricSuite

SIDE, BATCH, ROUNDS = 512, 8, 3


@dataclass
class Options:
    """What to measure."""

    threads: int = 2
    pictures: int = 256
    """N of the comparison of memory."""
    only_memory_of: int | None = None
    """Score this many pictures and print the peak memory; the benchmark calls itself with it."""


def pictures(count: int) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Batches of noise in half of noise."""
    rng = np.random.default_rng(0)
    holes = np.zeros((BATCH, SIDE, SIDE), bool)
    holes[:, : SIDE // 2] = True
    for _ in range(count // BATCH):
        truth = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
        results = np.where(holes[..., None], rng.integers(0, 256, truth.shape, np.uint8), truth)
        yield results, truth, holes


def torchmetrics_scores(result: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> list[float]:
    """The same four scores of one picture by torchmetrics, in the order of `PICTURE_SCORES`."""
    from torchmetrics.functional.image import (
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    x, y = (torch.from_numpy(image).permute(2, 0, 1).double() for image in (result, truth))
    inside = torch.from_numpy(hole)
    _, similarity = structural_similarity_index_measure(
        x[None], y[None], sigma=1.5, data_range=255.0, return_full_image=True
    )
    scores = (
        peak_signal_noise_ratio(x[:, inside], y[:, inside], data_range=255.0),
        similarity[0][:, inside].mean(),
        peak_signal_noise_ratio(x, y, data_range=255.0),
        similarity[..., BORDER:-BORDER, BORDER:-BORDER].mean(),
    )
    return [float(score) for score in scores]


def compare_speed() -> None:
    """Prints pictures a second of both, taking turns, best of the rounds."""
    suite = MetricSuite(PICTURE_SCORES)
    slow, fast = 0.0, 0.0
    for results, truth, holes in pictures(ROUNDS * BATCH):
        start = time.perf_counter()
        expected = torchmetrics_scores(results[0], truth[0], holes[0])  # seconds each
        middle = time.perf_counter()
        batch = suite.score(results, truth, holes)
        end = time.perf_counter()
        np.testing.assert_allclose(list(batch.rows[0].values()), expected, atol=1e-4)
        slow, fast = max(slow, 1 / (middle - start)), max(fast, BATCH / (end - middle))
    print(
        f"PSNR and SSIM, hole and whole, {SIDE} px, {torch.get_num_threads()} threads: "
        f"torchmetrics in double {slow:.2f} pictures/s, moebius {fast:.1f} pictures/s, "
        f"ratio {fast / slow:.0f}"
    )


def print_memory(count: int) -> None:
    """Scores pictures and stand-in features through the suite; prints the peak in MB."""
    suite, rng = MetricSuite(PICTURE_SCORES), np.random.default_rng(0)

    def scored() -> Iterator[BatchScores]:
        for batch in pictures(count):
            features = {
                f"fid_a.{side}": rng.random((BATCH, 2048), np.float32) for side in ("real", "fake")
            }
            yield BatchScores(suite.score(*batch).rows, features)

    suite.names = (*PICTURE_SCORES, "fid")
    suite.reduce(scored())
    print(peak() // 2**20)


def main(options: Options) -> None:
    """Prints speed, its ratio, and both peaks of memory."""
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    if options.only_memory_of is not None:
        return print_memory(options.only_memory_of)
    # First, as a process inherits the peak of the one that starts it.
    peaks = [
        subprocess.run(
            [sys.executable, __file__, "--only-memory-of", str(count)],
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()
        for count in (options.pictures, 4 * options.pictures)
    ]
    print(
        f"Peak memory with FID's moments: {peaks[0]} MB for {options.pictures} pictures, "
        f"{peaks[1]} MB for {4 * options.pictures}"
    )
    compare_speed()


if __name__ == "__main__":
    main(tyro.cli(Options))
