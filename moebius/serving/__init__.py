"""Inpainting for many: what a server checks of an upload, and its deployment on Ray Serve."""

import moebius.torchvision_schemas  # noqa: F401  (before diffusers, which may import torchvision)
