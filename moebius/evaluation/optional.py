"""Libraries that only the evaluation needs."""

from importlib import import_module
from typing import Any

import moebius.torchvision_schemas  # noqa: F401  (before any of them imports torchvision)


def import_optional(name: str) -> Any:
    """Imports a module of the extra `evaluate`.

    Raises:
        ValueError: if its library is missing.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise ValueError(
            f"{name.partition('.')[0]} is missing ({error}): "
            "pip install 'moebius-inpainting[evaluate]'"
        ) from error
