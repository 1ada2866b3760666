"""The losses, their balance, the distillation step and the loop around it."""

import moebius.torchvision_schemas  # noqa: F401  (before diffusers, which may import torchvision)
from moebius.distill.perceptual import ELatentLPIPS

__all__ = ["ELatentLPIPS"]
