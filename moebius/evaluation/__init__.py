"""Inpainted pictures of a benchmark, their scores, and the tables and plots made of them."""

import moebius.torchvision_schemas  # noqa: F401  (before lpips and diffusers import torchvision)
