"""One window of one result, from its working copy to the patch that goes into the photograph."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from moebius.inference.blending import Blend, composite
from moebius.inference.masks import distance_to_hole
from moebius.inference.painter import Painter
from moebius.inference.photograph import Patch, Photograph
from moebius.inference.refinement import STRENGTH, refine
from moebius.inference.strategies import Window
from moebius.inference.working_copy import WorkingCopy, make_working_copy

COMPENSATION_REACH = 0.04
"""How far beyond the ring colours are compared, in proportion to the window's side."""


@dataclass
class Job:
    """What is to be filled, and what the model has made of it so far.

    Attributes:
        hole: (H, W) bool, of the whole photograph.
        copy: the window's newest working copy; results of one photograph share the first.
        generated: like `copy.image`.
    """

    photo: Photograph
    hole: np.ndarray
    window: Window
    generator: torch.Generator
    copy: WorkingCopy
    generated: np.ndarray | None = None

    def refine(self, painter: Painter, tile: int) -> None:
        """Go through the levels after the first."""
        # Few steps could leave none.
        strength = max(STRENGTH, 1 / painter.num_inference_steps)

        def fill(images: np.ndarray, holes: np.ndarray, start: np.ndarray) -> np.ndarray:
            return painter.paint(images, holes, [self.generator] * len(images), start, strength)

        for side in self.window.sides[1:]:
            assert self.generated is not None
            height, width = self.copy.inner
            coarse = self.generated[:height, :width]
            self.copy = copy_window(self.photo, self.hole, self.window, side, tile)
            self.generated = refine(self.copy, coarse, tile, fill)

    def patch(self, blend: Blend, compensate: bool) -> Patch:
        """What of the photograph changes."""
        assert self.generated is not None
        box, own, radius = self.window.box, self.window.hole, self.window.dilation
        reach = round(COMPENSATION_REACH * box.side) if compensate else 0
        around = own.grown(radius + reach + 1).within(box)
        hole = np.zeros((around.height, around.width), bool)
        for part in self.window.parts:
            hole[part.relative_to(around).slices] |= self.hole[part.slices]
        made = self.copy.restore(self.generated)[around.relative_to(box).slices]
        distance = distance_to_hole(hole)
        colours = composite(
            self.photo.crop(around),
            self.photo.like(made),
            distance,
            radius=radius,
            blend=blend,
            reach=reach,
        )
        return Patch(around, colours, distance <= radius)


def run_jobs(jobs: Sequence[Job], painter: Painter, side: int, strength: float) -> None:
    """Let the model fill every window, all together at the first level.

    Args:
        side: of the squares that the model works at.
        strength: of the first level, see `sample_latents`.
    """
    if not jobs:
        return
    images = np.stack([job.copy.image for job in jobs])
    holes = np.stack([job.copy.hole for job in jobs])
    generators = [job.generator for job in jobs]
    made = painter.paint(images, holes, generators, images, strength)
    for job, generated in zip(jobs, made, strict=True):
        job.generated = generated
        job.refine(painter, side)


def copy_window(
    photo: Photograph, hole: np.ndarray, window: Window, side: int, least: int
) -> WorkingCopy:
    """A window's working copy, in which every hole is dilated."""
    hidden = distance_to_hole(hole[window.box.slices]) <= window.dilation
    return make_working_copy(photo.crop(window.box), hidden, side=side, least=least)
