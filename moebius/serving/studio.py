"""What the page does with a photograph; it is shown smaller, and filled in full size."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
import torch
from PIL import Image

from moebius.inference.blending import Blend
from moebius.inference.files import write_picture
from moebius.inference.photograph import read_photograph
from moebius.inference.pipeline import InpaintPipeline
from moebius.inference.strategies import Strategy
from moebius.serving.uploads import Limits, read_upload

SHOWN_SIDE = 1600
"""Longest side that is sent to a browser to paint on, pixels."""


@dataclass(frozen=True)
class Choices:
    """What the page's controls say."""

    steps: int = 20
    guidance: float | None = None
    strategy: Strategy = "auto"
    blend: Blend = "feather"
    seed: int = 0
    count: int = 1


@dataclass(frozen=True)
class Filled:
    """Files of one run; `after` and `full` hold one a result.

    Attributes:
        folder: where they lie, with nothing else.
        before: the photograph as it is shown.
        after: results as they are shown.
        full: results in the photograph's size and mode.
    """

    folder: Path
    before: Path
    after: tuple[Path, ...]
    full: tuple[Path, ...]

    def delete(self) -> None:
        """Removes the files."""
        shutil.rmtree(self.folder, ignore_errors=True)


def show_upload(path: Path, limits: Limits) -> Image.Image:
    """An uploaded photograph as it is painted on: upright, RGB, at most `SHOWN_SIDE`.

    Raises:
        ValueError: what the pipeline would refuse, and what is too large.
    """
    return _shown(read_photograph(read_upload(path, limits)).picture)


def painted_hole(layers: Sequence[Image.Image | None]) -> np.ndarray:
    """(H, W) bool: where any layer was painted on.

    Raises:
        ValueError: nowhere.
    """
    hole = np.zeros((1, 1), bool)
    for layer in layers:
        if layer is not None:
            hole = hole | (np.asarray(layer.convert("RGBA"))[..., 3] >= 128)
    if not hole.any():
        raise ValueError("nothing is painted: paint over what should be filled")
    return hole


def fill_photograph(
    pipeline: InpaintPipeline,
    path: Path,
    hole: np.ndarray,
    choices: Choices,
    limits: Limits,
    place: Path,
    on_step: Callable[[int, int], None],
) -> Filled:
    """Fill an uploaded photograph in full size.

    Args:
        pipeline: the model.
        path: the upload.
        hole: (H, W) bool, of the photograph as it was shown.
        choices: settings; result n has the seed `choices.seed + n`.
        limits: for the upload.
        place: where the run's folder is made.
        on_step: told the step that was done and the number of the pass that it belongs to.

    Raises:
        ValueError: what the pipeline refuses.
    """
    passes = 0

    def after_step(_pipeline: object, index: int, _timestep: int, _kept: dict) -> None:
        nonlocal passes
        passes += index == 0
        on_step(index + 1, passes)

    photo = read_upload(path, limits)
    results = pipeline(
        photo,
        hole,
        num_inference_steps=choices.steps,
        guidance_scale=choices.guidance,
        generator=[torch.Generator().manual_seed(choices.seed + n) for n in range(choices.count)],
        num_images_per_prompt=choices.count,
        callback_on_step_end=after_step,
        strategy=choices.strategy,
        blend=choices.blend,
        fit_mask=True,
    ).images
    folder = Path(mkdtemp(dir=place))
    before = folder / "before.png"
    write_picture(_shown(read_photograph(photo).picture), before)
    after, full = [], []
    for n, result in enumerate(results, 1):
        number = f"_{n}" if choices.count > 1 else ""
        after.append(folder / f"after{number}.png")
        full.append(folder / f"{path.stem}_filled{number}.png")
        write_picture(_shown(result), after[-1])
        write_picture(result, full[-1])
    return Filled(folder, before, tuple(after), tuple(full))


def _shown(picture: Image.Image) -> Image.Image:
    shown = picture.convert("RGB")
    shown.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
    shown.info = {key: value for key, value in shown.info.items() if key == "icc_profile"}
    return shown
