"""`torch.export` programs of the graphs, and libraries that AOTInductor compiles of them."""

import logging
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from moebius.deploy.forms import graph_forms
from moebius.deploy.graphs import Graph

MAX_BATCH = 31
"""diffusers' upsampling takes another path from 64 samples on, two for every picture."""
MAX_UNITS = 512
"""Longest side, in multiples of `Graph.multiple` latent cells."""

logger = logging.getLogger(__name__)


def export_program(graph: Graph) -> ExportedProgram:
    """The graph with dynamic batch and size."""
    batch = Dim("batch", max=MAX_BATCH)
    units = {
        "rows": Dim("row_units", min=2, max=MAX_UNITS),
        "columns": Dim("column_units", min=2, max=MAX_UNITS),
    }
    dims = {"batch": batch}
    for cells, pixels in (("rows", "height"), ("columns", "width")):
        dims[cells] = graph.multiple * units[cells]
        dims[pixels] = graph.multiple * graph.factor * units[cells]
    shapes = tuple(
        {i: dims[side] for i, side in enumerate(port.shape) if isinstance(side, str)}
        for port in graph.inputs
    )
    with torch.no_grad(), graph_forms():
        return torch.export.export(
            graph.module.eval(), graph.example(2, *graph.sides()), dynamic_shapes=shapes
        )


def compile_program(program: ExportedProgram, path: Path) -> bool:
    """Compiles a program for this machine into a package that `aoti_load_package` reads.

    Returns:
        Whether it worked; if not, one warning says why.
    """
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))
    except Exception as error:  # compilers fail in ways of their own
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        logger.warning("%s was not compiled by AOTInductor: %s", path.name, reason)
        return False
    return True
