"""Lets torchvision's CUDA wheel be imported beside the CPU build of torch.

PyPI has no other torchvision for Linux. Its compiled operators do not load without CUDA's
libraries, and the import then fails on two operators that it describes but never got. Declaring
these is enough: models, transforms and weights are plain Python. Whoever calls one of the
operators is still refused.

Importing this module does it, and does nothing where torchvision is absent or whole.
"""

from contextlib import suppress
from importlib.machinery import PathFinder
from importlib.util import find_spec
from typing import Any

SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}


def declare_missing_operators() -> Any:
    """Declares the operators that torchvision's own library does not bring.

    Returns:
        What keeps them declared while it is referred to.
    """
    package = find_spec("torchvision")
    if package is None or package.submodule_search_locations is None:
        return None
    import torch

    compiled = PathFinder.find_spec("_C", package.submodule_search_locations)
    if compiled is not None and compiled.origin is not None:
        with suppress(OSError):
            torch.ops.load_library(compiled.origin)  # as torchvision does; twice is harmless
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name, schema in SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            library.define(schema)
    return library


_declared = declare_missing_operators()
