"""A model, a photograph and a mask that a server fills in a moment."""

import socket
from pathlib import Path

import torch
from inference.conftest import photograph, tiny_denoiser, tiny_vae
from PIL import Image

from moebius.inference.pipeline import InpaintPipeline
from moebius.models.schedule import build_scheduler

SIZE = (96, 80)


def make_model() -> InpaintPipeline:
    torch.manual_seed(0)
    pipe = InpaintPipeline(tiny_denoiser(), tiny_vae().eval(), build_scheduler())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def save_model(folder: Path) -> str:
    make_model().save_pretrained(folder)
    return str(folder)


def photo() -> Image.Image:
    return photograph(*SIZE)


def hole() -> Image.Image:
    mask = Image.new("L", SIZE)
    mask.paste(255, (30, 30, 50, 50))
    return mask


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
