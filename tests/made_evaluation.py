"""An evaluation's folder made in a moment; each method fills holes with its own colour."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = [(200, 30, 30), (30, 160, 30), (30, 30, 200), (180, 160, 20)]
"""Of the methods, by their number."""

HOLE = np.s_[8:24, 4:28]
"""Rows and columns that every mask opens; the pictures are 32 pixels wide and high."""


def truth(number: int) -> np.ndarray:
    """Picture `number`: noise, different for each."""
    return np.random.default_rng(number).integers(0, 256, (32, 32, 3), np.uint8)


def filled(number: int, method: int) -> np.ndarray:
    """What method `method` makes of it."""
    picture = truth(number)
    picture[HOLE] = COLOURS[method]
    return picture


def make_evaluation(folder: Path, methods: Sequence[str], ids: Sequence[str]) -> Path:
    """Writes truth, masks, results and scores: method m has 10 m + n dB in picture n."""
    hole = np.zeros((32, 32), np.uint8)
    hole[HOLE] = 255
    for number, name in enumerate(ids):
        _save(folder / "benchmark" / "images" / f"{name}.png", truth(number))
        _save(folder / "benchmark" / "masks" / f"{name}.png", hole)
        for m, method in enumerate(methods):
            _save(folder / method / "results" / f"{name}.png", filled(number, m))
    _write_lines(folder / "benchmark" / "manifest.jsonl", [{"id": name} for name in ids])
    for m, method in enumerate(methods):
        rows = [{"id": name, "psnr_hole": 10.0 * m + n} for n, name in enumerate(ids)]
        _write_lines(folder / method / "scores.jsonl", rows)
    return folder


def _save(path: Path, picture: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path)


def _write_lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
