"""The built-in photographs: colour pictures that travel inside scikit-image's wheel."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

BUILTIN: dict[str, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "chelsea.png",
        "hubble_deep_field.jpg",
        "ihc.png",
        "motorcycle_left.png",
        "motorcycle_right.png",
        "retina.jpg",
    ),
    "validation": ("coffee.png", "rocket.jpg"),
}
"""File names of each split; a photograph is in one split only."""


def builtin_paths(split: str) -> list[Path]:
    """Locate the photographs of one split on this machine; nothing is downloaded.

    Args:
        split: `train` or `validation`.

    Returns:
        Paths of existing RGB files, in the order of `BUILTIN`.

    Raises:
        ValueError: the split is unknown, scikit-image is not installed, or its wheel lacks a file.
    """
    if split not in BUILTIN:
        raise ValueError(f"unknown split {split!r} of the builtin photographs: use {_names()}")
    folder = _wheel_folder()
    paths = [folder / name for name in BUILTIN[split]]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise ValueError(
            f"builtin photographs {', '.join(missing)} are not in {folder}: "
            "reinstall scikit-image from its wheel"
        )
    return paths


def _names() -> str:
    return " or ".join(repr(name) for name in BUILTIN)


def _wheel_folder() -> Path:
    # find_spec of a top-level package reads its place without importing it.
    spec = find_spec("skimage")
    if spec is None or not spec.submodule_search_locations:
        raise ValueError("the builtin photographs come with scikit-image: pip install scikit-image")
    return Path(spec.submodule_search_locations[0]) / "data"
