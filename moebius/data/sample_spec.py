"""How samples are drawn: sizes, masks and probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from moebius.config import Data
from moebius.data.masks import MASKS, MIN_SIDE


@dataclass(frozen=True)
class SampleSpec:
    """How samples are drawn from records."""

    size: int = 512
    """Side of the square crop in pixels."""
    short_side: int | tuple[int, int] | None = None
    """Short side of the picture before the crop; a pair is drawn from, bounds included. None:
    `size`."""
    background_mask: str = "lama_medium_512"
    """Key of `masks.MASKS`; drawn on the resized picture, its lengths scaled to the short side."""
    scene_mask_probability: float = 0.5
    """How often a background item that has a mask uses it instead of a drawn one."""
    extra_foreground_mask: bool = False
    """Every second background hole also gets a random foreground item's (their union)."""
    dilation_probability: float = 0.99
    flip_probability: float = 0.5
    channel_shuffle_probability: float = 0.0
    """How often the colour channels change places: colours for a set of few photographs."""
    max_hole: float = 0.6
    """Largest share of the crop for holes of background items, drawn anew above it. The mask of a
    foreground item is its object and is not judged."""
    foreground_share: float = 0.1
    """Least share of foreground items, where there are any: they are repeated in an epoch."""
    seed: int = 0

    def __post_init__(self) -> None:
        low, high = self.short_sides
        if self.size < MIN_SIDE:
            raise ValueError(f"size is {self.size}: crops start at {MIN_SIDE} pixels")
        if not self.size <= low <= high:
            raise ValueError(f"short_side is {self.short_side}: give {self.size} (size) or more")
        if self.background_mask not in MASKS:
            raise ValueError(
                f"background_mask is {self.background_mask!r}: use one of {', '.join(MASKS)}"
            )
        for name in (
            "scene_mask_probability",
            "dilation_probability",
            "flip_probability",
            "channel_shuffle_probability",
        ):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give a value in [0, 1]")
        if not 0 < self.max_hole <= 1:
            raise ValueError(f"max_hole is {self.max_hole}: give a value in (0, 1]")
        if not 0 <= self.foreground_share < 1:
            raise ValueError(f"foreground_share is {self.foreground_share}: give one in [0, 1)")
        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}: give 0 or more")

    @property
    def short_sides(self) -> tuple[int, int]:
        """Bounds of the short side, both included."""
        if isinstance(self.short_side, tuple):
            return self.short_side
        side = self.size if self.short_side is None else self.short_side
        return side, side


def sample_spec(data: Data, seed: int) -> SampleSpec:
    """How the samples of a recipe are drawn; a ValueError names what is wrong with it."""
    kept = SampleSpec.__dataclass_fields__.keys() - {"seed"}
    return SampleSpec(**{key: getattr(data, key) for key in kept}, seed=seed)
