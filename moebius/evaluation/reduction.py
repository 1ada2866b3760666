"""From the scores of batches to those of a set of pictures."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moebius.evaluation.batch_scores import BatchScores
from moebius.evaluation.fid import Moments, RunningMoments, frechet_distance
from moebius.evaluation.ids import discriminative_scores
from moebius.evaluation.scores import DDOF, SCORES


class Reduction:
    """Takes in batches in order; only P-IDS and U-IDS need memory that grows with them.

    Args:
        names: scores wanted.
        real: moments of the real pictures by kind; None takes them from the batches.
    """

    def __init__(self, names: Sequence[str], real: Mapping[str, Moments] | None = None) -> None:
        self.names, self.real = names, real
        single = [name for name in names if SCORES[name].features is None]
        self._columns: dict[str, list[float]] = {name: [] for name in single}
        sides = ("fake",) if real is not None else ("fake", "real")
        self._moments = {
            f"{kind}.{side}": RunningMoments() for kind in _moment_kinds(names) for side in sides
        }
        paired = sorted({str(SCORES[name].features) for name in names if SCORES[name].pairs})
        self._pairs: dict[str, list[np.ndarray]] = {
            f"{kind}.{side}": [] for kind in paired for side in ("fake", "real")
        }
        self._count = 0

    def add(self, batch: BatchScores) -> None:
        """Takes in a batch.

        Raises:
            ValueError: if it was scored without something that is needed now.
        """
        self._count += len(batch.rows)
        for name, column in self._columns.items():
            column += [_take(row, name) for row in batch.rows]
        for key, moments in self._moments.items():
            moments.add(_take(batch.features, key))
        for key, features in self._pairs.items():
            features.append(_take(batch.features, key))

    def result(self) -> dict[str, float]:
        """Unweighted means of single pictures' scores, and the scores of the set.

        A mean PSNR is infinite where one picture's is.

        Raises:
            ValueError: if there was no picture.
        """
        if not self._count:
            raise ValueError("there is nothing to score: no pictures")
        scores = {name: math.fsum(column) / self._count for name, column in self._columns.items()}
        for name in self.names:
            if name in DDOF:
                scores[name] = self._fid(str(SCORES[name].features), DDOF[name])
        if self._pairs:
            fake, real = (np.concatenate(features) for features in self._pairs.values())
            found = discriminative_scores(real, fake)._asdict()
            scores |= {name: found[name] for name in self.names if name in found}
        return scores

    def _fid(self, kind: str, ddof: int) -> float:
        if self.real is None:
            real = self._moments[f"{kind}.real"].result()
        else:
            real = _take(self.real, kind)
        fake = self._moments[f"{kind}.fake"].result()
        if real.count != fake.count:
            raise ValueError(
                f"FID compares equally many pictures: {real.count} real, {fake.count} results"
            )
        return frechet_distance(real, fake, ddof)


def real_moments(names: Sequence[str], batches: Iterable[BatchScores]) -> dict[str, Moments]:
    """Moments of the real pictures by kind, as far as the scores need them."""
    running = {kind: RunningMoments() for kind in _moment_kinds(names)}
    for batch in batches:
        for kind, moments in running.items():
            moments.add(_take(batch.features, f"{kind}.real"))
    return {kind: moments.result() for kind, moments in running.items()}


def _moment_kinds(names: Sequence[str]) -> list[str]:
    return sorted({str(SCORES[name].features) for name in names if name in DDOF})


def _take(scored: Mapping[str, Any], key: str) -> Any:
    if key not in scored:
        raise ValueError(f"pictures were scored without {key}: score them anew")
    return scored[key]
