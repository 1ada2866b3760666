"""Scores sets of inpainted pictures, batch by batch, in any number of processes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moebius.evaluation.batch_scores import BatchScores
from moebius.evaluation.fid import Moments
from moebius.evaluation.inception import InceptionFeatures
from moebius.evaluation.metrics import PICTURE_SCORES, picture_scores
from moebius.evaluation.perceptual_distance import PerceptualDistance
from moebius.evaluation.reduction import Reduction, real_moments
from moebius.evaluation.scores import SCORES, Score
from moebius.evaluation.weights import find_weights


class MetricSuite:
    """Some scores and the networks behind them.

    On a CPU a network sees one picture at a time, so that a picture's scores do not depend on
    its batch, to the bit. On a GPU it sees the whole batch, without TF32.

    Args:
        names: of `moebius.evaluation.scores.METRICS`.
        weights: folder with the networks' weights, see `find_weights`.
        device: of the networks, which are built when first needed.

    Raises:
        ValueError: if a name is unknown or weights are missing.
    """

    def __init__(
        self, names: Sequence[str], weights: Path | str | None = None, device: str = "cpu"
    ) -> None:
        unknown = [name for name in names if name not in SCORES]
        if unknown:
            raise ValueError(f"no metric {', '.join(unknown)}: choose from {', '.join(SCORES)}")
        self.names = tuple(name for name in SCORES if name in names)
        self.device = torch.device(device)
        keys = {score.weights for score in self._scores if score.weights}
        self._weights = {key: find_weights(key, weights) for key in sorted(keys)}
        self._kinds = sorted({score.features for score in self._scores if score.features})

    @property
    def _scores(self) -> list[Score]:
        return [SCORES[name] for name in self.names]

    @property
    def needs_pairs(self) -> bool:
        """Whether the real pictures' moments are not enough: P-IDS and U-IDS compare pairs."""
        return any(score.pairs for score in self._scores)

    def score(
        self, results: np.ndarray, truth: np.ndarray, holes: np.ndarray, real: bool = True
    ) -> BatchScores:
        """Scores a batch.

        Args:
            results: (B, H, W, 3) uint8.
            truth: the same.
            holes: (B, H, W) bool, True where pixels were made.
            real: whether to extract the truth's features; False where its moments are known.

        Raises:
            ValueError: if shapes or types are others, or a picture cannot be scored.
        """
        _check(results, truth, holes)
        if self.needs_pairs and not real:
            raise ValueError("P-IDS and U-IDS compare pairs: score the real pictures as well")
        names = [name for name in self.names if name in PICTURE_SCORES]
        triples = zip(results, truth, holes, strict=True)
        rows = [picture_scores(*triple, names) for triple in triples]
        made, true = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in (results, truth))
        for name, network in self._distances.items():
            for row, distance in zip(rows, self._run(network, made, true), strict=True):
                row[name] = float(distance)
        sides = {"fake": made, "real": true} if real else {"fake": made}
        features = {
            f"{kind}.{side}": self._run(partial(self._inception, kind=kind), pictures)
            for kind in self._kinds
            for side, pictures in sides.items()
        }
        return BatchScores(rows, features)

    def reduce(
        self, batches: Iterable[BatchScores], real: Mapping[str, Moments] | None = None
    ) -> dict[str, float]:
        """One number a score, of all pictures; how they are cut into batches does not count.

        Args:
            batches: scored by a suite with these scores at least; each is read once.
            real: moments of the real pictures, instead of those of the batches.

        Raises:
            ValueError: if there are no pictures, or one was scored without what is needed now.
        """
        reduction = Reduction(self.names, real)
        for batch in batches:
            reduction.add(batch)
        return reduction.result()

    def real_moments(self, batches: Iterable[BatchScores]) -> dict[str, Moments]:
        """Moments of the real pictures of some batches, for `save_moments` and `reduce`."""
        return real_moments(self.names, batches)

    def provenance(self) -> dict[str, dict[str, Any]]:
        """By score: its definition, library, weights with their checksum, and what is off."""
        found: dict[str, dict[str, Any]] = {}
        for name, score in zip(self.names, self._scores, strict=True):
            entry = found[name] = {"definition": score.definition}
            if score.weights is not None:
                weights = self._weights[score.weights]
                entry["library"] = f"{score.library} {version(str(score.library))}"
                entry["weights"], entry["sha256"] = weights.path.name, weights.sha256
                entry["made_up"] = weights.made_up
                if weights.note is not None:
                    entry["note"] = weights.note
        return found

    @cached_property
    def _inception(self) -> InceptionFeatures:
        return InceptionFeatures(self._weights["inception"]).to(self.device)

    @cached_property
    def _distances(self) -> dict[str, PerceptualDistance]:
        return {
            name: PerceptualDistance(score.weights, self._weights[score.weights]).to(self.device)
            for name, score in zip(self.names, self._scores, strict=True)
            if score.weights is not None and score.features is None
        }

    def _run(self, network: Callable[..., Tensor], *batches: Tensor) -> np.ndarray:
        """Applies a network to (B, 3, H, W) uint8 batches, in the chunks that the device allows."""
        size = 1 if self.device.type == "cpu" else len(batches[0])
        chunks = zip(*(batch.split(size) for batch in batches), strict=True)
        with (
            torch.inference_mode(),
            torch.backends.cudnn.flags(deterministic=True, allow_tf32=False),
        ):
            out = [network(*(part.to(self.device) for part in chunk)).cpu() for chunk in chunks]
        return torch.cat(out).numpy()


def _check(results: np.ndarray, truth: np.ndarray, holes: np.ndarray) -> None:
    if results.dtype != np.uint8 or truth.dtype != np.uint8 or holes.dtype != bool:
        raise ValueError(
            "metrics take uint8 pictures and bool holes, "
            f"not {results.dtype}, {truth.dtype} and {holes.dtype}"
        )
    if (
        results.shape != truth.shape
        or results.shape != (*holes.shape, 3)
        or holes.ndim != 3
        or not len(holes)
    ):
        raise ValueError(
            "metrics take results and truth (B, H, W, 3) and holes (B, H, W), B at least 1, "
            f"not {results.shape}, {truth.shape} and {holes.shape}"
        )
