"""The node, thin over the pipeline.

Shapes: image (B, H, W, 3 or 4) and mask (B or 1, H, W) or (H, W), floats in [0, 1], 1 = fill, as
ComfyUI passes them.
"""

from functools import lru_cache
from typing import Any, ClassVar, get_args

import numpy as np
import torch

from moebius.inference.blending import Blend
from moebius.inference.pipeline import InpaintPipeline
from moebius.inference.strategies import Strategy
from moebius.inpaint import pick_device
from moebius.serving.model import find_model, load_model

AUTO_DILATION = -1


class MoebiusInpaint:
    """Fill the masked part of images."""

    CATEGORY = "Moebius"
    FUNCTION = "inpaint"
    RETURN_TYPES = ("IMAGE",)
    DESCRIPTION: ClassVar[str] = "Fills the masked part; all other pixels stay as they are."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """Inputs in ComfyUI's form."""
        return {
            "required": {
                "image": ("IMAGE",),
                "mask": ("MASK",),
                "steps": ("INT", {"default": 20, "min": 1, "max": 1000}),
                "guidance": (
                    "FLOAT",
                    {
                        "default": 0.0,
                        "min": 0.0,
                        "max": 30.0,
                        "step": 0.1,
                        "tooltip": "0: the model's own; 1: none",
                    },
                ),
                "seed": ("INT", {"default": 0, "min": 0, "max": 2**63 - 1}),
                "dilation": (
                    "INT",
                    {
                        "default": AUTO_DILATION,
                        "min": AUTO_DILATION,
                        "max": 512,
                        "tooltip": "pixels by which the mask grows; -1: by the hole's size",
                    },
                ),
                "strategy": (list(get_args(Strategy)), {"default": "auto"}),
                "blend": (list(get_args(Blend)), {"default": "feather"}),
            },
            "optional": {
                "model": (
                    "STRING",
                    {"default": "", "tooltip": "folder or Hub name; empty: the built-in model"},
                ),
            },
        }

    def inpaint(
        self,
        image: torch.Tensor,
        mask: torch.Tensor,
        steps: int,
        guidance: float,
        seed: int,
        dilation: int,
        strategy: Strategy,
        blend: Blend,
        model: str = "",
    ) -> tuple[torch.Tensor]:
        """Returns the filled images, (B, H, W, C); image n of a batch has the seed seed + n.

        Raises:
            ValueError: shapes that do not belong together, or what the pipeline refuses.
        """
        holes = _holes(image, mask)
        filled = _cached_pipeline(find_model(model.strip() or None))(
            [_picture(one) for one in image],
            list(holes),
            num_inference_steps=steps,
            guidance_scale=guidance or None,
            generator=[torch.Generator().manual_seed(seed + n) for n in range(len(image))],
            dilation=None if dilation == AUTO_DILATION else dilation,
            strategy=strategy,
            blend=blend,
        ).images
        made = torch.from_numpy(np.stack([np.asarray(one) for one in filled])).float() / 255
        # Known pixels keep their floats, which need not be multiples of 1/255.
        before = torch.from_numpy(np.stack([_picture(one) for one in image])).float() / 255
        return (torch.where(made == before, image.cpu().float(), made),)


@lru_cache(maxsize=1)
def _cached_pipeline(name: str) -> InpaintPipeline:
    return load_model(name, None, str(pick_device("auto")))


def _picture(image: torch.Tensor) -> np.ndarray:
    return (image.cpu().float() * 255).round().clamp(0, 255).to(torch.uint8).numpy()


def _holes(image: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """(B, H, W) float32."""
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ValueError(f"the image has shape {tuple(image.shape)}: (B, H, W, 3 or 4) is needed")
    mask = mask[None] if mask.ndim == 2 else mask
    count = len(image)
    if mask.ndim != 3 or mask.shape[1:] != image.shape[1:3] or len(mask) not in (1, count):
        raise ValueError(
            f"the mask has shape {tuple(mask.shape)} and the image {tuple(image.shape)}: "
            "give one mask of the image's height and width, or one for each image"
        )
    return mask.cpu().float().expand(count, -1, -1).numpy()


NODE_CLASS_MAPPINGS = {"MoebiusInpaint": MoebiusInpaint}
NODE_DISPLAY_NAME_MAPPINGS = {"MoebiusInpaint": "Inpaint (Moebius)"}
