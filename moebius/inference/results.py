"""Finished pictures in the type that the caller asked for."""

from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image

OutputType = Literal["pil", "np", "pt"]


def check_output_type(output_type: str) -> None:
    """Raises ValueError for an output type that there is not."""
    if output_type not in get_args(OutputType):
        raise ValueError(f"output_type {output_type!r} is unknown: use 'pil', 'np' or 'pt'")


def convert_output(pictures: list[Image.Image], output_type: OutputType) -> Any:
    """The list itself, (B, H, W, C) floats in [0, 1], or a tensor (B, C, H, W) of them.

    Raises:
        ValueError: pictures of different sizes or modes in one array.
    """
    if output_type == "pil":
        return pictures
    kinds = {(picture.size, picture.mode) for picture in pictures}
    if len(kinds) > 1:
        raise ValueError("the images differ in size or mode: use output_type 'pil'")
    array = np.stack([np.asarray(picture) for picture in pictures]).astype(np.float32) / 255
    array = array[..., None] if array.ndim == 3 else array
    return array if output_type == "np" else torch.from_numpy(array).permute(0, 3, 1, 2)
