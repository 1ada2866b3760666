"""Door: train the builtin latent codec on the builtin photographs (`python -m moebius.codec`)."""

from __future__ import annotations

import copy
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
import torch
import tyro
from PIL import Image
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from moebius.data.photographs import builtin_paths
from moebius.distill.optimizer import Muon
from moebius.evaluation.metrics import psnr
from moebius.models.codec import AutoencoderKL, LatentCodec, load_codec

CROPS = ((64, 8), (96, 4), (128, 2))  # (side in pixels, crops a step): about equal work
WEIGHTS = "diffusion_pytorch_model.safetensors"
SCALES = (1.0, 0.8, 0.65, 0.5)
CHECKPOINT_SECONDS = 240.0
REPORT_SECONDS = 30.0


@dataclass(frozen=True)
class CodecTraining:
    """Train the builtin codec and report the PSNR of its reconstructions."""

    out: Path = Path("moebius/assets/codec")
    """Folder that receives config.json, the weights and training.json."""
    minutes: float = 40.0
    """Length of the run; the learning rate falls to zero at its end."""
    learning_rate: float = 0.02
    """Peak learning rate of Muon; AdamW, for what Muon leaves, has a twentieth of it."""
    kl_weight: float = 1e-4
    """Weight of the KL divergence in nats per latent element."""
    workers: int = 2
    """Threads that share each batch, one core each."""
    seed: int = 0
    """Seed of the weights, the crops and the posterior's noise."""


def build() -> AutoencoderKL:
    """A narrow f8 AutoencoderKL: its parameters sit where the resolution is low."""
    vae = AutoencoderKL(
        block_out_channels=(8, 24, 56, 92),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
        sample_size=128,
    )
    # A unit posterior drowns the signal in noise at the start: begin at exp(-8).
    with torch.no_grad():
        vae.quant_conv.bias[4:] -= 8
    return vae


def read_photograph(path: Path, scale: float = 1.0) -> Tensor:
    """Read one picture as (3, H, W) in [-1, 1], shrunk by `scale` with antialiasing."""
    picture = Image.open(path).convert("RGB")
    size = (round(picture.width * scale), round(picture.height * scale))
    picture = picture.resize(size, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def grid_crops(image: Tensor, side: int = 128) -> Tensor:
    """Cut a (3, H, W) image into its whole, non-overlapping crops (N, 3, side, side)."""
    tiles = image.unfold(1, side, side).unfold(2, side, side)
    return tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side)


def training_batches(pyramids: list[list[Tensor]], rng: np.random.Generator) -> Iterator[Tensor]:
    """Endless batches (B, 3, side, side) of augmented crops from `pyramids[photograph][scale]`."""
    while True:
        side, count = CROPS[rng.integers(len(CROPS))]
        crops = []
        for _ in range(count):
            levels = pyramids[rng.integers(len(pyramids))]
            image = levels[rng.integers(len(levels))]
            top, left = (rng.integers(extent - side + 1) for extent in image.shape[1:])
            crops.append(_augment(image[:, top : top + side, left : left + side], rng))
        yield torch.stack(crops).contiguous(memory_format=torch.channels_last)


def _augment(crop: Tensor, rng: np.random.Generator) -> Tensor:
    """Turn, mirror and recolour a crop: seven photographs alone show too few colours."""
    crop = torch.rot90(crop, int(rng.integers(4)), (1, 2))
    if rng.random() < 0.5:
        crop = crop.flip(2)
    if rng.random() < 0.5:
        crop = crop[torch.from_numpy(rng.permutation(3))]
    gain = torch.from_numpy(rng.uniform(0.7, 1.2, (3, 1, 1))).float()
    bias = torch.from_numpy(rng.uniform(-0.2, 0.2, (3, 1, 1))).float()
    return (crop * gain + bias).clamp(-1, 1)


def codec_loss(vae: AutoencoderKL, images: Tensor, kl_weight: float) -> Tensor:
    """Mean log squared error of the crops, which is their PSNR up to a factor, and the KL term."""
    # The cache of casts is not made for several threads in one model.
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        posterior = vae.encode(images).latent_dist
        output = vae.decode(posterior.sample()).sample
    error = (output.float() - images).square().mean((1, 2, 3))
    # The offset keeps flat crops, easy to the last decibel, from ruling the gradient.
    return (error + 2e-3).log().mean() + kl_weight * posterior.kl().sum() / posterior.mean.numel()


def build_optimizer(vae: AutoencoderKL) -> Muon:
    """Muon for the inner convolutions, AdamW for those at the borders, biases and norms.

    After 350 steps of a trial, `coffee` stood at 21 dB; with AdamW alone at 15 (one run each).
    """

    def inner(parameter: nn.Parameter) -> bool:
        return parameter.ndim == 4 and min(parameter.shape[:2]) > 4

    matrices = [p for p in vae.parameters() if inner(p)]
    others = [p for p in vae.parameters() if not inner(p)]
    optimizer = Muon(matrices, others, lr=0.0, weight_decay=1e-3, betas=(0.9, 0.99))
    for group in optimizer.param_groups:
        group["relative_lr"] = 1.0 if group["algorithm"] == "muon" else 0.05
    return optimizer


def backward(
    vae: AutoencoderKL, images: Tensor, recipe: CodecTraining, pool: ThreadPoolExecutor
) -> float:
    """Set the gradients of a batch that `recipe.workers` threads share; return its loss."""
    parameters = list(vae.parameters())

    def shard_gradients(shard: Tensor) -> tuple[float, tuple[Tensor, ...]]:
        loss = codec_loss(vae, shard, recipe.kl_weight)
        return loss.item(), torch.autograd.grad(loss, parameters)

    losses, gradients = zip(*pool.map(shard_gradients, images.chunk(recipe.workers)), strict=True)
    for parameter, *parts in zip(parameters, *gradients, strict=True):
        parameter.grad = torch.stack(parts).mean(0)
    return sum(losses) / len(losses)


def train(recipe: CodecTraining) -> None:
    """Train for `recipe.minutes`; write the averaged weights to `recipe.out` now and then."""
    torch.set_num_threads(1)  # Whole crops per core: per-operator threads stall on a busy machine.
    torch.manual_seed(recipe.seed)
    vae = build().to(memory_format=torch.channels_last)
    averaged = AveragedModel(vae, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    average = cast(AutoencoderKL, averaged.module)
    optimizer = build_optimizer(vae)
    pyramids = [[read_photograph(p, s) for s in SCALES] for p in builtin_paths("train")]
    batches = training_batches(pyramids, np.random.default_rng(recipe.seed))
    pool = ThreadPoolExecutor(recipe.workers)
    losses: list[float] = []
    step = 0
    start = reported = saved = time.monotonic()
    while (passed := (time.monotonic() - start) / (60 * recipe.minutes)) < 1:
        losses.append(backward(vae, next(batches), recipe, pool))
        nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        warmup = min(1.0, (step + 1) / 200)
        for group in optimizer.param_groups:
            rate = recipe.learning_rate * group["relative_lr"]
            group["lr"] = rate * warmup * (1 + math.cos(math.pi * passed)) / 2
        optimizer.step()
        averaged.update_parameters(vae)
        step += 1
        now = time.monotonic()
        if now - reported > REPORT_SECONDS:
            minute, loss = passed * recipe.minutes, sum(losses) / len(losses)
            print(f"{minute:5.1f} min  step {step}  loss {loss:.3f}", flush=True)
            losses, reported = [], now
        if now - saved > CHECKPOINT_SECONDS:
            finish(average, recipe, step, now - start)
            saved = now
    finish(average, recipe, step, time.monotonic() - start)


@torch.no_grad()
def finish(vae: AutoencoderKL, recipe: CodecTraining, steps: int, seconds: float) -> None:
    """Standardize the latents, write the folder, each file replaced at once, and report."""
    crops = {p.stem: grid_crops(read_photograph(p)) for p in builtin_paths("validation")}
    crops["train"] = torch.cat(
        [grid_crops(read_photograph(p))[::6] for p in builtin_paths("train")]
    )
    stored = copy.deepcopy(vae)
    standardize(stored, crops["train"])
    recipe.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=recipe.out.parent) as folder:
        stored.half().save_pretrained(folder)
        codec = load_codec(folder)
        report = {
            "psnr": {name: reconstruction_psnr(codec, some) for name, some in crops.items()},
            "parameters": stored.num_parameters(),
            "bytes": (Path(folder) / WEIGHTS).stat().st_size,
            "steps": steps,
            "seconds": round(seconds),
            "cores": os.cpu_count(),
            "date": datetime.now(UTC).date().isoformat(),
            "recipe": {**asdict(recipe), "out": str(recipe.out)},
        }
        (Path(folder) / "training.json").write_text(json.dumps(report, indent=2) + "\n")
        for file in Path(folder).iterdir():
            file.chmod(0o644)  # save_pretrained leaves the weights to their owner alone
            os.replace(file, recipe.out / file.name)
    print(json.dumps(report), flush=True)


@torch.no_grad()
def standardize(vae: AutoencoderKL, crops: Tensor) -> None:
    """Give each latent channel mean 0 and deviation 1 over the crops (N, 3, H, W).

    The change is folded into the 1x1 convolutions on both sides of the latents, so the
    reconstructions stay as they are and the scaling factor is 1.
    """
    vae.register_to_config(scaling_factor=1.0)
    codec = LatentCodec(vae, "training")
    latents = torch.cat([codec.encode(some) for some in crops.split(4)])
    mean, std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
    inward, outward, count = vae.quant_conv, vae.post_quant_conv, len(mean)
    inward.weight[:count] /= std.view(-1, 1, 1, 1)
    inward.bias[:count] = (inward.bias[:count] - mean) / std
    inward.bias[count:] -= 2 * std.log()  # these channels are the posterior's log variance
    outward.bias += outward.weight[:, :, 0, 0] @ mean
    outward.weight *= std.view(1, -1, 1, 1)


@torch.no_grad()
def reconstruction_psnr(codec: LatentCodec, crops: Tensor) -> float:
    """Mean over the crops (N, 3, H, W) of the reconstruction's PSNR in dB."""
    output = torch.cat([codec.decode(codec.encode(some)) for some in crops.split(4)])
    return round(psnr(output, crops).mean().item(), 3)


if __name__ == "__main__":
    train(tyro.cli(CodecTraining))
