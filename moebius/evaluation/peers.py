"""Inpainting models of others, through diffusers, as methods to score.

Write one for another pipeline by a subclass, and name it by its module: `--peer my_peers.Mine`.

    class Mine(Peer):
        hub = "owner/name"
        pipeline = "AutoPipelineForInpainting"
        steps, guidance = 30, 7.5
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import numpy as np
import torch
from huggingface_hub import hf_hub_download
from PIL import Image

from moebius.config import Sampling
from moebius.evaluation.benchmark import Item
from moebius.evaluation.geometry import resize_hole, resize_picture
from moebius.evaluation.methods import Fill, Method
from moebius.evaluation.pixels import stable_seed

GREY = 128
"""What a peer sees in place of the hole."""


@dataclass(frozen=True)
class Peer(Method):
    """A pipeline of diffusers that takes `image`, `mask_image` (white = hole) and `generator`.

    Pictures are filled one by one, on the protocol's square, with an empty prompt; steps and
    guidance are the pipeline's own, not the protocol's.
    """

    hub: ClassVar[str]
    """Name on the Hub."""
    pipeline: ClassVar[str]
    """Class in diffusers."""
    steps: ClassVar[int]
    guidance: ClassVar[float]

    def load(self, sampling: Sampling, device: torch.device) -> Fill:
        """See `Method.load`; bfloat16 on a GPU, float32 on a CPU."""
        precision = torch.bfloat16 if device.type == "cuda" else torch.float32
        try:
            pipeline = getattr(diffusers, self.pipeline).from_pretrained(
                self.hub, torch_dtype=precision
            )
        except ImportError as error:
            reason = str(error).strip().splitlines()[0]
            raise ValueError(
                f"peer {self.name} needs more libraries ({reason}): "
                "pip install transformers sentencepiece protobuf"
            ) from None
        except (OSError, ValueError) as error:
            raise ValueError(_no_weights(self.name, self.hub, error)) from None
        pipeline.to(device)
        pipeline.set_progress_bar_config(disable=True)
        return lambda items: [self._fill(pipeline, item, sampling.side) for item in items]

    def uses(self, sampling: Sampling) -> dict[str, Any]:
        """See `Method.uses`."""
        return {"side": sampling.side}

    def provenance(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Method.provenance`; the Hub's revision stands for the weights' checksum."""
        return {
            "kind": "peer",
            "hub": self.hub,
            "revision": hub_revision(self.name, self.hub),
            "pipeline": f"{self.pipeline} of diffusers {diffusers.__version__}",
            "arguments": self.arguments(),
        }

    def arguments(self) -> dict[str, Any]:
        """What a call gets beside picture, mask, size and generator."""
        return {
            "prompt": "",
            "num_inference_steps": self.steps,
            "guidance_scale": self.guidance,
        }

    def _fill(self, pipeline: Any, item: Item, side: int) -> np.ndarray:
        cut = np.where(item.hole[..., None], np.uint8(GREY), item.image)
        made = pipeline(
            image=Image.fromarray(resize_picture(cut, side)),
            mask_image=Image.fromarray(resize_hole(item.hole, side)).convert("L"),
            height=side,
            width=side,
            generator=torch.Generator().manual_seed(stable_seed(item.name)),
            **self.arguments(),
        ).images[0]
        return resize_picture(np.asarray(made.convert("RGB")), len(item.hole))


class FluxFill(Peer):
    """FLUX.1-Fill-dev, with the paper's steps (Tab. 1)."""

    hub = "black-forest-labs/FLUX.1-Fill-dev"
    pipeline = "FluxFillPipeline"
    steps, guidance = 50, 30.0


class SD35Inpaint(Peer):
    """SD3.5 Large by masked sampling, with the paper's steps (Tab. 1)."""

    hub = "stabilityai/stable-diffusion-3.5-large"
    pipeline = "StableDiffusion3InpaintPipeline"
    steps, guidance = 28, 7.0

    def arguments(self) -> dict[str, Any]:
        """From pure noise: diffusers' default of 0.6 would keep most of the grey."""
        return {**super().arguments(), "strength": 1.0}


class SDInpaint(Peer):
    """Stable Diffusion 1.5 inpainting, by diffusers' defaults."""

    hub = "stable-diffusion-v1-5/stable-diffusion-inpainting"
    pipeline = "StableDiffusionInpaintPipeline"
    steps, guidance = 50, 7.5


PEERS: dict[str, type[Peer]] = {
    "FLUX.1-Fill-dev": FluxFill,
    "SD3.5-inpainting": SD35Inpaint,
    "SD-inpainting": SDInpaint,
}


def find_peer(name: str) -> type[Peer]:
    """A peer by its name in `PEERS`, or a class of the user's as `module.Class`.

    Raises:
        ValueError: there is none.
    """
    if name in PEERS:
        return PEERS[name]
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute) if module else None
    except (ImportError, AttributeError):
        found = None
    if not (isinstance(found, type) and issubclass(found, Peer)):
        known = ", ".join(PEERS)
        raise ValueError(
            f"unknown peer {name!r}: use {known}, or module.Class of a Peer on the path"
        )
    return found


def hub_revision(name: str, hub: str) -> str:
    """The commit of a Hub repository that this machine has or gets."""
    try:
        # The cache's layout: .../snapshots/<commit>/model_index.json
        return Path(hf_hub_download(hub, "model_index.json")).parent.name
    except (OSError, ValueError) as error:  # the Hub's errors are of both kinds
        raise ValueError(_no_weights(name, hub, error)) from None


def _no_weights(name: str, hub: str, error: Exception) -> str:
    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"peer {name}: no weights of {hub} here, and the Hub does not give them: {reason}"
