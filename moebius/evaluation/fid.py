"""Frechet distance between two sets of features, from running moments in double precision.

Shapes: N pictures, D features of each.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from uuid import uuid4

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from scipy.linalg.lapack import dpstrf

BLOCK = 256


@dataclass(frozen=True)
class Moments:
    """What FID needs of a set of features."""

    count: int
    mean: np.ndarray
    """(D,) float64."""
    scatter: np.ndarray
    """(D, D) float64, sum of the outer products of the deviations from the mean."""

    @classmethod
    def of(cls, features: np.ndarray) -> Self:
        """Moments of (N, D) features, N at least 1."""
        deviations = features.astype(np.float64)
        mean = deviations.mean(axis=0)
        deviations -= mean
        return cls(len(features), mean, deviations.T @ deviations)

    def merge(self, other: "Moments") -> "Moments":
        """Moments of both sets together (Chan et al. 1979)."""
        count = self.count + other.count
        step = other.mean - self.mean
        scatter = np.outer(step, step * (self.count * other.count / count))
        scatter += self.scatter
        scatter += other.scatter
        return Moments(count, self.mean + step * (other.count / count), scatter)

    def covariance(self, ddof: int) -> np.ndarray:
        """(D, D), divided by N - `ddof`.

        Raises:
            ValueError: if there are too few pictures.
        """
        if self.count <= ddof:
            raise ValueError(f"a covariance needs more than {ddof} pictures, not {self.count}")
        return self.scatter / (self.count - ddof)


class RunningMoments:
    """Adds features up in blocks of a fixed size.

    The result depends on the features and their order, to the bit, and not on how they were
    split when they were added. Memory does not grow with their number.
    """

    def __init__(self) -> None:
        self._waiting: list[np.ndarray] = []
        self._moments: Moments | None = None

    def add(self, features: np.ndarray) -> None:
        """Adds (N, D) features."""
        self._waiting.append(features)
        if sum(map(len, self._waiting)) < BLOCK:
            return
        rows = np.concatenate(self._waiting)
        whole = len(rows) - len(rows) % BLOCK
        for start in range(0, whole, BLOCK):
            self._moments = self._with(rows[start : start + BLOCK])
        self._waiting = [rows[whole:]]

    def result(self) -> Moments:
        """Moments of all that was added.

        Raises:
            ValueError: if that is nothing.
        """
        rest = [rows for rows in self._waiting if len(rows)]
        if rest:
            return self._with(np.concatenate(rest))
        if self._moments is None:
            raise ValueError("FID of no pictures: nothing was scored")
        return self._moments

    def _with(self, rows: np.ndarray) -> Moments:
        moments = Moments.of(rows)
        return moments if self._moments is None else self._moments.merge(moments)


def frechet_distance(real: Moments, fake: Moments, ddof: int) -> float:
    """Squared distance of the means + Tr(Sr + Sf - 2 sqrt(Sr Sf)) (Heusel et al. 2017, eq. 6).

    With Sr = A A', the eigenvalues of Sr Sf are those of A' Sf A, which is symmetric: nothing is
    complex. A has as many columns as Sr has ranks, so that N < D is no special case.

    Args:
        real: moments of the true pictures.
        fake: of the results.
        ddof: 0 divides covariances by N (F-A), 1 by N - 1 (F-B).
    """
    step = real.mean - fake.mean
    real_covariance, fake_covariance = real.covariance(ddof), fake.covariance(ddof)
    factor = _factor(real_covariance)
    product = np.linalg.eigvalsh(factor.T @ fake_covariance @ factor)
    root_trace = np.sqrt(product.clip(min=0)).sum()
    trace = np.trace(real_covariance) + np.trace(fake_covariance) - 2 * root_trace
    return max(0.0, float(step @ step + trace))


def _factor(covariance: np.ndarray) -> np.ndarray:
    """(D, R) with covariance = factor @ factor.T, by Cholesky with pivots; R is the rank."""
    lower, pivots, rank, _ = dpstrf(covariance, lower=1)
    factor = np.empty((len(covariance), rank))
    factor[pivots - 1] = np.tril(lower)[:, :rank]
    return factor


def save_moments(path: Path, moments: Mapping[str, Moments], provenance: Mapping[str, str]) -> None:
    """Writes moments whole or not at all.

    Args:
        path: safetensors file.
        moments: by kind.
        provenance: what they were made of and with; `load_moments` asks for the same.
    """
    tensors = {}
    for kind, found in moments.items():
        tensors[f"{kind}.count"] = np.array([found.count])
        tensors[f"{kind}.mean"], tensors[f"{kind}.scatter"] = found.mean, found.scatter
    temporary = path.with_name(f".{path.name}.{uuid4().hex}")
    save_file(tensors, temporary, dict(provenance))
    os.replace(temporary, path)


def load_moments(path: Path, provenance: Mapping[str, str]) -> dict[str, Moments]:
    """Reads what `save_moments` wrote.

    Raises:
        ValueError: if the file is damaged or was made of or with something else.
    """
    try:
        with safe_open(path, framework="np") as file:
            if (file.metadata() or {}) != dict(provenance):
                raise ValueError(f"{path} holds statistics of other pictures or weights: remove it")
            kinds = sorted({key.partition(".")[0] for key in file.keys()})  # noqa: SIM118
            return {
                kind: Moments(
                    int(file.get_tensor(f"{kind}.count")[0]),
                    file.get_tensor(f"{kind}.mean"),
                    file.get_tensor(f"{kind}.scatter"),
                )
                for kind in kinds
            }
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} is damaged: remove it ({error})") from error
