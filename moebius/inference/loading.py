"""Finding a model: our folders, the Hub, and the released checkpoints in their own layout."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError

from moebius.data.copies import here
from moebius.models.codec import load_codec
from moebius.models.denoiser import Denoiser
from moebius.models.loading import load_denoiser
from moebius.models.schedule import build_scheduler

RELEASED_FILES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
RELEASED_GUIDANCE = {"pretrained": 2.5, "ft_places2": 2.5, "ft_celebahq": 2.0, "ft_ffhq": 2.0}
"""The release's variants, with the paper's guidance scales: 2 for portraits."""
RELEASED_CODEC = "hustvl/PixelHacker/vae"

PIPELINE_CLASS = "InpaintPipeline"


@dataclass(frozen=True)
class FoundModel:
    """Where a model lies.

    Attributes:
        name: as the user gave it.
        kind: a saved pipeline, a saved denoiser, or a released checkpoint.
        place: its folder, a released checkpoint's file, or the latter's name on the Hub.
        variant: as given.
    """

    name: str
    kind: Literal["pipeline", "denoiser", "released"]
    place: Path | str
    variant: str | None = None


def find_model(name: str, variant: str | None = None, local_files_only: bool = False) -> FoundModel:
    """Look in a local folder of that name or at that URL, else on the Hub.

    Raises:
        ValueError: there is neither, or no model in it.
    """
    folder = Path(here(name))
    if not folder.is_dir():
        if re.fullmatch(r"[\w-][\w.-]*/[\w-][\w.-]*", name) is None:
            raise ValueError(f"model folder {name} not found")
        if variant in RELEASED_GUIDANCE:
            return FoundModel(name, "released", f"{name}/{variant}", variant)
        folder = _download(name, local_files_only)
    if _class_name(folder / "model_index.json") == PIPELINE_CLASS:
        return FoundModel(name, "pipeline", folder, variant)
    if _class_name(folder / "config.json") == Denoiser.__name__:
        return FoundModel(name, "denoiser", folder, variant)
    released = _released_file(folder / (variant or ""))
    if released is not None:
        return FoundModel(name, "released", released, variant or folder.resolve().name)
    others = sorted(p.name for p in folder.iterdir() if p.is_dir() and _released_file(p))
    if others:
        raise ValueError(f"{name} holds released checkpoints: choose variant {', '.join(others)}")
    raise ValueError(
        f"{name} is not a model: neither a model_index.json of {PIPELINE_CLASS} nor a config.json "
        f"of {Denoiser.__name__} in it, nor a released {RELEASED_FILES[-1]}"
    )


def read_parts(
    found: FoundModel, codec: str | None = None, arch: Any = "lmi_dw_mixffn", **kwargs: Any
) -> dict[str, Any]:
    """Arguments of `InpaintPipeline` for what is no saved pipeline.

    Raises:
        ValueError: no codec known, or weights that do not fit.
    """
    dtype = kwargs.get("torch_dtype") or torch.float32
    if found.kind == "released":
        codec = codec or _codec_beside(found)
        return {
            "denoiser": cast(load_denoiser(found.place, arch), dtype),
            "vae": load_codec(codec, dtype=dtype).vae,
            "scheduler": build_scheduler(),
            "guidance_scale": RELEASED_GUIDANCE.get(found.variant or "", 2.5),
            "licence": "see the authors' terms",
            "provenance": f"released checkpoint {found.place}, codec {codec}",
        }
    if codec is None:
        raise ValueError(f"{found.name} is a denoiser without codec: name one, such as builtin")
    with readable(found.name):
        return {
            "denoiser": Denoiser.from_pretrained(found.place, variant=found.variant, **kwargs),
            "vae": load_codec(codec, dtype=dtype).vae,
            "scheduler": build_scheduler(),
            "provenance": f"denoiser {found.name}, codec {codec}",
        }


def cast(denoiser: Denoiser, dtype: torch.dtype) -> Denoiser:
    """Convert the weights in place; diffusers' own `to` warns although nothing is amiss."""
    torch.nn.Module.to(denoiser, dtype=dtype)
    return denoiser


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turns what libraries raise for broken folders into one line."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"{name} is not a model that can be read: {reason}") from error


def _codec_beside(found: FoundModel) -> str:
    """PixelHacker's on the Hub for a checkpoint from there, else a folder `vae` close by."""
    if isinstance(found.place, str):
        return RELEASED_CODEC
    for folder in (found.place.parent, found.place.parent.parent):
        if (folder / "vae" / "config.json").is_file():
            return str(folder / "vae")
    raise ValueError(f"{found.name} has no folder vae: name a codec, such as {RELEASED_CODEC}")


def _released_file(folder: Path) -> Path | None:
    files = (folder / name for name in RELEASED_FILES)
    # A config.json says that the weights are some other model's.
    alone = not (folder / "config.json").exists()
    return next((file for file in files if alone and file.is_file()), None)


def _download(name: str, local_files_only: bool) -> Path:
    """Configs and safetensors of a repository on the Hub."""
    try:
        return Path(
            snapshot_download(
                name,
                allow_patterns=["*.json", "*.safetensors"],
                local_files_only=local_files_only,
            )
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"model {name} not found: no such folder, and the Hub did not give it "
            f"({type(error).__name__})"
        ) from error


def _class_name(config: Path) -> str | None:
    """The class that wrote a config in diffusers' layout, None where it is none."""
    try:
        return json.loads(config.read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError):
        return None
