"""The folder that `python -m moebius.evaluate` writes, as its pictures and studies read it.

benchmark/manifest.jsonl  benchmark/images/<id>.png  benchmark/masks/<id>.png
<method>/results/<id>.png  <method>/scores.jsonl (where there are scores of single pictures)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from moebius.config import load_json_lines
from moebius.data.transforms import load_image, load_mask
from moebius.evaluation.plots import grey_hole

BENCHMARK = "benchmark"

Scores = dict[str, float]


@dataclass(frozen=True)
class EvaluatedFolder:
    """Pictures, holes and what methods made of them."""

    path: Path

    @cached_property
    def ids(self) -> list[str]:
        """Every picture's id, in the manifest's order."""
        manifest = self.path / BENCHMARK / "manifest.jsonl"
        if not manifest.is_file():
            raise ValueError(
                f"{self.path} has no {BENCHMARK}/manifest.jsonl: "
                "give a folder that python -m moebius.evaluate wrote"
            )
        return [_id(line, where) for where, line in load_json_lines(manifest)]

    @cached_property
    def methods(self) -> list[str]:
        """Folders with results, by name; one that was refused before its first has none."""
        if not self.path.is_dir():
            raise ValueError(f"no folder at {self.path}")
        folders = [folder for folder in self.path.glob("*/results") if folder.is_dir()]
        return sorted(folder.parent.name for folder in folders if any(folder.iterdir()))

    def choose_methods(self, names: Sequence[str] | None = None) -> list[str]:
        """These methods, in this order; all where none are named.

        Raises:
            ValueError: a method that is not there or named twice, or no method at all.
        """
        chosen = self.methods if names is None else list(names)
        for name in chosen:
            if name not in self.methods or chosen.count(name) > 1:
                known = ", ".join(self.methods) or "none"
                raise ValueError(f"method {name!r}: name each once; {self.path} has {known}")
        if not chosen:
            raise ValueError(f"{self.path} holds no method's results (METHOD/results)")
        return chosen

    def finished(self, methods: Sequence[str]) -> list[str]:
        """Ids that each of the methods has a result for."""
        return [n for n in self.ids if all(self._result(m, n).is_file() for m in methods)]

    def pictures(self, methods: Sequence[str], name: str) -> list[np.ndarray]:
        """Input with its hole grey, each method's result, truth; (H, W, 3) uint8, of one size.

        Raises:
            ValueError: a picture that cannot be read or has another size than the truth.
        """
        benchmark = self.path / BENCHMARK
        truth = np.asarray(load_image(benchmark / "images" / f"{name}.png"))
        hole = np.asarray(load_mask(benchmark / "masks" / f"{name}.png")) >= 128
        results = {m: np.asarray(load_image(self._result(m, name))) for m in methods}
        for what, picture in {"the mask": hole, **results}.items():
            if picture.shape[:2] != truth.shape[:2]:
                sizes = ["{1}x{0}".format(*p.shape) for p in (picture, truth)]
                raise ValueError(f"{what} has {name} at {sizes[0]} pixels, the truth at {sizes[1]}")
        return [grey_hole(truth, hole), *results.values(), truth]

    def scores(self, method: str) -> dict[str, Scores]:
        """The numbers of `scores.jsonl` by id; empty where there is no such file."""
        path = self.path / method / "scores.jsonl"
        if not path.is_file():
            return {}
        return {
            _id(line, where): {
                key: float(value)
                for key, value in line.items()
                if isinstance(value, int | float) and not isinstance(value, bool)
            }
            for where, line in load_json_lines(path)
        }

    def _result(self, method: str, name: str) -> Path:
        return self.path / method / "results" / f"{name}.png"


def _id(line: dict[str, Any], where: str) -> str:
    name = line.get("id")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{where}: no id")
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise ValueError(f"{where}: the id {name!r} leads out of the folder")
    return name
