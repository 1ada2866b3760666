"""What training costs in floating-point operations and on disk, counted on the meta device."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from moebius.config import Architecture, Recipe
from moebius.distill.optimizer import newton_schulz_macs, split_parameters
from moebius.distill.perceptual import LATENT_CHANNELS, REMOVED_POOLINGS, STAGES
from moebius.models.codec import AutoencoderKL, LatentCodec
from moebius.models.complexity import measure_complexity
from moebius.models.denoiser import Denoiser

FLOPS_PER_MAC = 2
BACKWARD = 2
"""A backward pass in forward passes: gradients of inputs and of weights."""
TENSOR_BYTES = 100
"""What a safetensors file says about one tensor, about."""
STATE_BYTES = 370
"""What torch.save adds to one tensor, about."""


@dataclass(frozen=True)
class Cost:
    """FLOPs by what they are for, and the precision that each part runs in."""

    flops: Mapping[str, float]
    precision: Mapping[str, str]
    """`bf16`, `tf32` (convolutions of float32 on a GPU) or `fp32`."""

    @property
    def total(self) -> float:
        """All parts' FLOPs."""
        return sum(self.flops.values())

    def times(self, count: float) -> "Cost":
        """The cost of doing it `count` times."""
        return Cost({part: count * n for part, n in self.flops.items()}, self.precision)

    def __add__(self, other: "Cost") -> "Cost":
        parts = {**self.flops, **other.flops}
        both = {part: self.flops.get(part, 0) + other.flops.get(part, 0) for part in parts}
        return Cost(both, {**self.precision, **other.precision})


NOTHING = Cost({}, {})


def sample_cost(
    recipe: Recipe, student: Denoiser, teacher: Denoiser | None, codec: LatentCodec
) -> Cost:
    """One training sample, as the code computes it.

    Student forward and backward, once more forward with activation checkpointing; teacher forward;
    E-LatentLPIPS of both latents and back to one of them; the codec's encoder for the crop and for
    the crop with its hole, unless training reads latents. The balance of the losses is counted as
    part of the backward pass.

    Args:
        recipe: losses, size, precision and cache are read.
        student, teacher, codec: on any device (meta costs nothing); the teacher where it is needed.
    """
    side = recipe.data.size // codec.factor
    passes = 1 + BACKWARD + recipe.training.activation_checkpointing
    macs = {"student": passes * _macs(student, side)}
    if teacher is not None:
        macs["teacher"] = _macs(teacher, side)
    if "perceptual" in recipe.distill.losses:
        macs["perceptual"] = 3 * perceptual_macs(side)
    if not recipe.data.encoded:
        macs["encoder"] = 2 * codec_macs(codec, recipe.data.size)[0]
    networks = recipe.training.precision
    precision = {"student": networks, "teacher": networks, "perceptual": "tf32", "encoder": "tf32"}
    return _cost(macs, precision)


def update_cost(recipe: Recipe, student: Denoiser) -> Cost:
    """One step of the optimiser: Muon's matrix products, shared by the workers; else nothing."""
    if recipe.optimizer.name != "muon":
        return _cost({"optimizer": 0.0}, {"optimizer": "bf16"})
    macs = 0.0
    for parameter in split_parameters(student)[0]:
        macs += newton_schulz_macs(parameter.shape[0], parameter[0].numel())
    return _cost({"optimizer": macs}, {"optimizer": "bf16"})


def inpainting_cost(
    student: Denoiser, codec: LatentCodec, size: int, steps: int, guidance: float
) -> Cost:
    """One picture inpainted for a score: encoded whole and with its hole, sampled, decoded."""
    evaluations = steps * (1 if guidance == 1 else 2)
    encoder, decoder = codec_macs(codec, size)
    macs = 2 * encoder + decoder + evaluations * _macs(student, size // codec.factor)
    return _cost({"scoring": macs}, {"scoring": "fp32"})


def encoding_cost(codec: LatentCodec, size: int) -> Cost:
    """One draw encoded for the cache: the crop, and the crop with its hole."""
    return _cost({"encoder": 2 * codec_macs(codec, size)[0]}, {"encoder": "tf32"})


def perceptual_macs(side: int) -> float:
    """MACs of E-LatentLPIPS's trunk for one latent of this side."""
    macs, width = 0.0, LATENT_CHANNELS
    for stage, widths in enumerate(STAGES):
        for out in widths:
            macs += 9 * width * out * side**2
            width = out
        if stage >= REMOVED_POOLINGS:
            side //= 2
    return macs


@lru_cache(maxsize=32)
def codec_macs(codec: LatentCodec, size: int) -> tuple[float, float]:
    """MACs of encoding and of decoding one picture of this side, convolutions and attention."""
    with torch.device("meta"), torch.no_grad():
        vae = AutoencoderKL.from_config(codec.vae.config)
        with FlopCounterMode(display=False) as encoder:
            latents = vae.encode(torch.empty(1, 3, size, size)).latent_dist.mean
        with FlopCounterMode(display=False) as decoder:
            vae.decode(latents)
    counted = encoder.get_total_flops(), decoder.get_total_flops()
    return counted[0] / FLOPS_PER_MAC, counted[1] / FLOPS_PER_MAC


def encoder_peak_bytes(codec: LatentCodec, size: int, pictures: int) -> int:
    """What encoding some pictures at once holds, about: three maps of the first stage's width."""
    return 3 * 4 * codec.vae.config["block_out_channels"][0] * size**2 * pictures


def model_bytes(module: nn.Module) -> int:
    """Size of a module's state, as safetensors."""
    state = module.state_dict().values()
    return sum(t.numel() * t.element_size() + TENSOR_BYTES for t in state)


def checkpoint_bytes(recipe: Recipe, student: Denoiser) -> int:
    """Size of one checkpoint: weights, their average, and the optimiser's state."""
    matrices, vectors = split_parameters(student)
    parameters = matrices + vectors
    averages = 0 if recipe.optimizer.ema is None else _sizes(parameters, TENSOR_BYTES)
    adamw = vectors if recipe.optimizer.name == "muon" else parameters
    moments = 2 * _sizes(adamw, STATE_BYTES) + len(adamw) * (4 + STATE_BYTES)
    momentum = _sizes(matrices, STATE_BYTES) if recipe.optimizer.name == "muon" else 0
    return model_bytes(student) + averages + moments + momentum


def latents_bytes(recipe: Recipe, codec: LatentCodec) -> int:
    """Size of the cached latents: two moments of two pictures and the mask, in float32."""
    cells = (recipe.data.size // codec.factor) ** 2
    return recipe.data.cache * (4 * cells * (4 * codec.channels + 1) + 8)


@lru_cache(maxsize=64)
def _gmacs(architecture: str, side: int) -> float:
    """Complete count by an architecture's JSON: a sweep has the same one in many trials."""
    return measure_complexity(Architecture.model_validate_json(architecture), side).gmacs


def _macs(denoiser: Denoiser, side: int) -> float:
    return 1e9 * _gmacs(denoiser.architecture.model_dump_json(by_alias=True), side)


def _sizes(parameters: Sequence[nn.Parameter], extra: int) -> int:
    return sum(4 * p.numel() + extra for p in parameters)


def _cost(macs: Mapping[str, float], precision: Mapping[str, str]) -> Cost:
    return Cost(
        {part: FLOPS_PER_MAC * count for part, count in macs.items()},
        {part: precision[part] for part in macs},
    )
