"""The manifest beside exported graphs: what they take, how to sample, where they came from."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from moebius.deploy.graphs import Graph, Port
from moebius.deploy.onnx_pipeline import Schedule
from moebius.distill.run_folder import environment
from moebius.inference.pipeline import InpaintPipeline

MANIFEST = "manifest.json"
STEPS = 20
"""What the page starts with."""


def describe(
    pipeline: InpaintPipeline, graphs: Iterable[Graph], schedule: Schedule, **export: Any
) -> dict[str, Any]:
    """The manifest but for `files`.

    Args:
        pipeline: of which the graphs were made.
        graphs: its graphs.
        schedule: constants of its noise.
        export: how the files were written: format, weights, agreement.
    """
    graphs, made_with = list(graphs), environment()
    architecture, codec = pipeline.denoiser.architecture, pipeline.codec
    multiple, factor = graphs[0].multiple, graphs[0].factor
    return {
        **export,
        "made_with": {key: made_with[key] for key in ("packages", "git")},
        "model": {
            "architecture": architecture.name,
            "parameters": pipeline.denoiser.num_parameters(),
            "licence": pipeline.config["licence"],
            "provenance": pipeline.config["provenance"],
        },
        "sizes": {
            "trained_pixels": architecture.latent_size * factor,
            "multiple_pixels": multiple * factor,
            "multiple_cells": multiple,
            "pixels_per_cell": factor,
            "latent_channels": codec.channels,
        },
        "latents": {
            "scaling_factor": codec.vae.config["scaling_factor"],
            "shift_factor": codec.vae.config["shift_factor"] or 0.0,
            "meaning": "latents outside the graphs are scaled: nothing is left to multiply",
        },
        "sampling": {
            "scheduler": "DDIM, leading spacing, eta 0, predicts noise",
            "steps": STEPS,
            "guidance_scale": pipeline.config["guidance_scale"],
            "noise_offset": pipeline.config["noise_offset"],
            "train_steps": len(schedule.alphas),
            "steps_offset": schedule.offset,
            "final_alpha": schedule.final_alpha,
            "alphas": [float(alpha) for alpha in schedule.alphas],
        },
        "graphs": {
            graph.name: {
                "inputs": [_port(port) for port in graph.inputs],
                "output": _port(graph.output),
            }
            for graph in graphs
        },
    }


def write_manifest(folder: Path, described: dict[str, Any], names: Iterable[str]) -> Path:
    """Adds bytes and SHA-256 of the folder's files and writes `manifest.json`."""
    files = {
        name: {"bytes": (folder / name).stat().st_size, "sha256": _sha256(folder / name)}
        for name in sorted(names)
    }
    path = folder / MANIFEST
    path.write_text(json.dumps({**described, "files": files}, indent=1) + "\n")
    return path


def _port(port: Port) -> dict[str, Any]:
    return {
        "name": port.name,
        "shape": list(port.shape),
        "dtype": "float32",
        "meaning": port.meaning,
    }


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
