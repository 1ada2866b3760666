"""What a call may give once or in lists, as lists."""

from collections.abc import Sequence
from typing import TypeAlias, cast

import numpy as np
import torch
from PIL import Image

from moebius.inference.masks import Mask, is_boxes

Picture: TypeAlias = Image.Image | np.ndarray


def list_images(images: Picture | Sequence[Picture]) -> list[Picture]:
    """One or several."""
    return [images] if isinstance(images, Image.Image | np.ndarray) else list(images)


def list_masks(masks: Mask | Sequence[Mask], count: int) -> list[Mask]:
    """One mask an image.

    Raises:
        ValueError: neither one nor as many as there are images.
    """
    if isinstance(masks, Image.Image | np.ndarray) or is_boxes(masks):
        return [cast(Mask, masks)] * count
    listed = list(cast(Sequence[Mask], masks))
    if len(listed) != count:
        raise ValueError(f"{len(listed)} masks for {count} images: give as many, or one for all")
    return listed


def list_generators(
    given: torch.Generator | Sequence[torch.Generator] | None, images: int, repeats: int
) -> list[list[torch.Generator]]:
    """Every image's generators, one a result; the same one throughout unless a list was given.

    Raises:
        ValueError: a list of another length, or a generator that is not on the CPU.
    """
    if repeats < 1:
        raise ValueError(f"num_images_per_prompt is {repeats}: use at least 1")
    if given is None:
        given = torch.Generator()
        given.seed()
    listed = [given] * (images * repeats) if isinstance(given, torch.Generator) else list(given)
    if len(listed) != images * repeats:
        raise ValueError(f"{len(listed)} generators for {images * repeats} results: one for each")
    if any(generator.device.type != "cpu" for generator in listed):
        raise ValueError("the generator is not on the CPU: torch.Generator() serves any device")
    return [listed[n : n + repeats] for n in range(0, len(listed), repeats)]
