"""The networks of recipes on the meta device: shapes without weights, for counting."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from moebius.config import Architecture, Recipe
from moebius.models.architectures import TEACHER, resolve
from moebius.models.codec import AutoencoderKL, LatentCodec, locate
from moebius.models.denoiser import Denoiser, build
from moebius.recipes import teacher_recipe

SDXL_VAE = {
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "block_out_channels": [128, 256, 512, 512],
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
}
"""Config of the paper's codec, for where a recipe's own cannot be read here."""


class Networks:
    """Students, teachers and codecs that recipes name, each built once.

    Attributes:
        notes: what was assumed where a recipe leaves something open.
        planned_teachers: teachers that do not exist yet, by the name of their folder.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.planned_teachers: Mapping[str, Recipe] = {}
        self._denoisers: dict[str, Denoiser] = {}
        self._codecs: dict[str, LatentCodec] = {}

    def student(self, recipe: Recipe) -> Denoiser:
        """The denoiser to train."""
        return self._build(resolve(recipe.arch, **recipe.model))

    def teacher(self, recipe: Recipe) -> Denoiser | None:
        """The teacher, where a loss needs one."""
        if not recipe.needs_teacher:
            return None
        return self._build(self._teacher_architecture(recipe))

    def codec(self, recipe: Recipe) -> LatentCodec:
        """The codec, from its own configuration where that lies on this machine."""
        source = recipe.codec
        if source not in self._codecs:
            config = _codec_config(source)
            if config is None:
                self._note(f"Codec {source!r} is not on this machine: counted as the SDXL VAE.")
            with torch.device("meta"):
                vae = AutoencoderKL.from_config(config or SDXL_VAE)
            self._codecs[source] = LatentCodec(vae, source)
        return self._codecs[source]

    def with_weights(self, recipe: Recipe) -> tuple[Denoiser, Denoiser | None, LatentCodec]:
        """Student, teacher and codec with made-up weights, for timing."""
        codec, teacher = self.codec(recipe), self.teacher(recipe)
        return (
            build(self.student(recipe).architecture),
            None if teacher is None else build(teacher.architecture),
            LatentCodec(AutoencoderKL.from_config(codec.vae.config), codec.name),
        )

    def _build(self, architecture: Architecture) -> Denoiser:
        key = architecture.model_dump_json(by_alias=True)
        if key not in self._denoisers:
            with torch.device("meta"):
                self._denoisers[key] = build(architecture)
        return self._denoisers[key]

    def _teacher_architecture(self, recipe: Recipe) -> Architecture:
        own, named = teacher_recipe(recipe), recipe.teacher
        if named is None:
            self._note(f"No teacher is named yet: counted as {TEACHER}.")
            return resolve(TEACHER)
        if own is None and named.path is not None:
            # A promotion names the folder of a teacher that the sweep will have trained.
            own = self.planned_teachers.get(Path(named.path).parent.name)
            if own is None:
                return _saved_architecture(Path(named.path)) or resolve(named.arch)
        assert own is not None
        return resolve(own.arch, **own.model)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _codec_config(source: str) -> dict[str, Any] | None:
    """A codec's configuration, without asking the network; `None` where it is not here."""
    if not source:
        return None
    place, subfolder = locate(source)
    try:
        return AutoencoderKL.load_config(place, subfolder=subfolder, local_files_only=True)
    except OSError:
        return None


def _saved_architecture(path: Path) -> Architecture | None:
    """The architecture in the `config.json` of a model's or a pipeline's folder."""
    for folder in (path / "denoiser", path):
        if (folder / "config.json").is_file():
            config = json.loads((folder / "config.json").read_text())
            return resolve({k: v for k, v in config.items() if k in Architecture.model_fields})
    return None
