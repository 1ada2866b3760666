"""Moebius: distilled latent-diffusion inpainting, from block registry to promoted model."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names load on first use, so that `import moebius` stays light.
_PUBLIC = {
    "build": "moebius.models.denoiser",
    "Denoiser": "moebius.models.denoiser",
    "load_released": "moebius.models.released",
    "save_released": "moebius.models.released",
    "InpaintPipeline": "moebius.inference.pipeline",
}
__all__ = ["Denoiser", "InpaintPipeline", "build", "load_released", "save_released"]

if TYPE_CHECKING:
    from moebius.inference.pipeline import InpaintPipeline
    from moebius.models.denoiser import Denoiser, build
    from moebius.models.released import load_released, save_released


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'moebius' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
