"""Denoisers, the codec, and how both are built, counted, loaded and saved."""

import moebius.torchvision_schemas  # noqa: F401  (before diffusers, which may import torchvision)
