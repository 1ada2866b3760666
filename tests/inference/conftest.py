"""A pipeline small enough for tests: squares of 64 pixels, made-up weights."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from PIL import Image
from skimage import data

from moebius.inference.pipeline import InpaintPipeline
from moebius.models.denoiser import Denoiser, build
from moebius.models.schedule import build_scheduler

TINY = {
    "widths": (32, 32, 32),
    "depths": (1, 1, 1),
    "lcg_dim": 8,
    "context_dim": 8,
    "latent_size": 8,
    "heads": 2,
}


def tiny_vae() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
    )


def tiny_denoiser() -> Denoiser:
    return build("lmi_dw_mixffn", **TINY).eval()


@pytest.fixture(scope="package")
def pipeline() -> InpaintPipeline:
    torch.manual_seed(0)
    pipe = InpaintPipeline(tiny_denoiser(), tiny_vae().eval(), build_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def load(*arguments, **options) -> InpaintPipeline:
    pipe = InpaintPipeline.from_pretrained(*map(str, arguments), **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photograph(width: int, height: int) -> Image.Image:
    return Image.fromarray(data.astronaut()).resize((width, height))


def box_mask(width: int, height: int) -> Image.Image:
    mask = Image.new("L", (width, height))
    mask.paste(255, (width // 4, height // 4, width // 2, height // 2))
    return mask


def run(pipe: InpaintPipeline, image, mask, seed=0, **options):
    options = {"num_inference_steps": 2, "generator": torch.Generator().manual_seed(seed)} | options
    return pipe(image, mask, **options).images[0]


def fill_folder(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder
