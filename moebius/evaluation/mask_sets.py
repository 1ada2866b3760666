"""The holes of a benchmark: drawn for each picture, or read from a published set.

Holes are (H, W) bool, True = hole.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from moebius.config import Masks, Polarity
from moebius.data.manifest import read_records
from moebius.data.masks import MASKS, draw_mask
from moebius.evaluation.listing import by_stem, describe_missing
from moebius.evaluation.pixels import read_hole, stable_seed

ATTEMPTS = 10_000
MEAN_TOLERANCE = 0.02
"""How far a set's mean hole may be off (protocols, acceptance checks)."""
CHANCE = 4 * 0.2
"""Small sets may be off by this over the root of their number: four standard errors of the widest
generator, whose areas have a deviation of 0.2."""


def draw_hole(masks: Masks, name: str, size: int) -> np.ndarray:
    """Draw the hole of the picture called `name`, whatever else is scored with it.

    Raises:
        ValueError: the generator is unknown, or hardly ever draws such an area.
    """
    if masks.generator not in MASKS:
        known = ", ".join(MASKS)
        raise ValueError(f"unknown mask generator {masks.generator!r}: use one of {known}")
    rng = np.random.default_rng(stable_seed("mask", masks.seed, name))
    low, high = masks.area
    for _ in range(ATTEMPTS):
        hole = draw_mask(masks.generator, size, size, rng).astype(bool)
        if low <= hole.mean() < high and hole.any():
            return hole
    raise ValueError(
        f"{masks.generator} drew no hole of {low:g} to {high:g} of {size} px in {ATTEMPTS} "
        "draws: widen masks.area"
    )


def pair_masks(folder: str | Path, names: Sequence[str], by_order: bool) -> dict[str, Path]:
    """Find the mask file of each picture.

    Args:
        folder: of mask files, searched with its subfolders.
        names: ids of all pictures of the benchmark, sorted as it sorts them.
        by_order: the i-th mask by name belongs to the i-th picture; otherwise stems are equal.

    Raises:
        ValueError: the sets do not match; the first names that are missing are listed.
    """
    records = read_records(folder)
    if by_order:
        if len(records) != len(names):
            raise ValueError(
                f"{folder} has {len(records)} masks for {len(names)} pictures: pairing by order "
                "needs one for each picture of the whole benchmark"
            )
        paths = sorted((record.image for record in records), key=lambda path: path.name)
        return dict(zip(names, paths, strict=True))
    masks = by_stem(records)
    missing = [name for name in names if name not in masks]
    if missing:
        raise ValueError(describe_missing(f"{folder} has no mask for", missing, len(names)))
    return {name: masks[name] for name in names}


def read_published(path: Path, size: int, white: Polarity) -> np.ndarray:
    """Read a published mask as it is, resized by no one.

    Raises:
        ValueError: the file cannot be read, or has another size.
    """
    shown = read_hole(path)
    if shown.shape != (size, size):
        raise ValueError(
            f"mask {path} is {shown.shape[1]}x{shown.shape[0]} pixels, the protocol's pictures "
            f"{size}x{size}: give the masks published for this size"
        )
    return shown if white == "hole" else ~shown


def check_mean_hole(areas: Sequence[float], expected: float | None, what: str) -> None:
    """Hold a set's mean hole against the one that its source gives (protocols, trap 3).

    Raises:
        ValueError: it is off by more than chance; a set that is inverted is called so.
    """
    mean, tolerance = float(np.mean(areas)), max(MEAN_TOLERANCE, CHANCE / len(areas) ** 0.5)
    if expected is None or abs(mean - expected) <= tolerance:
        return
    text = f"{what}: the holes take {mean:.3f} of the picture on average, not {expected:.3f}"
    if abs(1 - mean - expected) <= tolerance:
        raise ValueError(f"{text}, but the rest does: white means the opposite here, see --white")
    raise ValueError(f"{text}: these are other masks than the protocol's, see masks.mean_hole")
