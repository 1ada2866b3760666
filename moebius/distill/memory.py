"""What a training worker holds in memory, estimated without allocating it."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from moebius.config import Architecture, Recipe
from moebius.distill.optimizer import split_parameters
from moebius.models.denoiser import Denoiser, build, category_ids


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes on one worker."""

    weights: int
    """Student and gradients."""
    optimizer: int
    """Optimiser state and EMA."""
    teacher: int
    activations: int
    """Kept for the backward pass of one micro-batch; layer by layer they may be fewer."""

    @property
    def total(self) -> int:
        """Sum of all parts."""
        return self.weights + self.optimizer + self.teacher + self.activations


def estimate_memory(
    recipe: Recipe, student: Denoiser, teacher: Denoiser | None, micro_batch: int, factor: int = 8
) -> MemoryEstimate:
    """Adds up parameters, optimiser state, and activations that autograd saves.

    Args:
        recipe: optimiser, precision and crop size are read.
        student, teacher: denoisers, on any device (meta costs nothing).
        micro_batch: samples at once.
        factor: pixels per latent cell.
    """
    matrices, vectors = (sum(p.numel() for p in part) for part in split_parameters(student))
    parameters = matrices + vectors
    # Muon keeps one buffer a weight, AdamW two.
    buffers = (matrices if recipe.optimizer.name == "muon" else 2 * matrices) + 2 * vectors
    averages = 0 if recipe.optimizer.ema is None else parameters
    checkpointing = recipe.training.activation_checkpointing
    saved = saved_bytes(student.architecture, recipe.data.size // factor, checkpointing)
    if recipe.training.precision == "bf16":
        saved //= 2
    return MemoryEstimate(
        weights=8 * parameters,
        optimizer=4 * (buffers + averages),
        teacher=0 if teacher is None else 4 * sum(p.numel() for p in teacher.parameters()),
        activations=saved * micro_batch,
    )


def saved_bytes(architecture: Architecture, latent_size: int, checkpointing: bool = False) -> int:
    """Bytes that autograd keeps for one sample's backward pass, in float32, on the meta device.

    With activation checkpointing, what a layer keeps while it is run again comes on top.
    """
    with torch.device("meta"):
        model = build(architecture).train()
    if checkpointing:
        model.enable_gradient_checkpointing()
    weights = {_storage(tensor) for tensor in (*model.parameters(), *model.buffers())}
    # A storage counts once, whatever views of it are saved; holding it keeps its key its own.
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        if _storage(tensor) not in weights:
            kept[_storage(tensor)] = tensor
        return tensor

    # Two samples: BatchNorm refuses to train on one value a channel.
    with torch.device("meta"), saved_tensors_hooks(pack, lambda tensor: tensor):
        sample = torch.empty(2, architecture.in_channels, latent_size, latent_size)
        ids = category_ids(torch.zeros(2), architecture.context_length)
        output = model(sample, torch.zeros(2), ids)
    del output
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values()) // 2


def _storage(tensor: Tensor) -> int:
    # Meta tensors have no addresses, but their storages are objects all the same.
    return tensor.untyped_storage()._cdata
