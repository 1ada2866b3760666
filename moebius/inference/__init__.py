"""Inpainting of photographs: the pipeline and what it is made of."""

import moebius.torchvision_schemas  # noqa: F401  (before diffusers, which may import torchvision)
