"""Door: a model as graphs that run without Python (`python -m moebius.export --model DIR ...`)."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from diffusers.utils.logging import disable_progress_bar
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from moebius.console import guard, print_table
from moebius.deploy.graphs import Graph, model_graphs
from moebius.deploy.manifest import describe, write_manifest
from moebius.deploy.onnx_files import (
    Precision,
    disagreement,
    require_onnx,
    trace_onnx,
    write_onnx,
)
from moebius.deploy.onnx_pipeline import pipeline_onnx, read_schedule
from moebius.deploy.website import fetch_runtime, make_server, write_page
from moebius.inference.pipeline import InpaintPipeline

CACHE = Path("~/.cache/moebius")
ALLOWED = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest relative difference of one call from PyTorch, whose weights are float32."""
PIPELINE = "pipeline"


@dataclass(frozen=True)
class Options:
    """Write a model's graphs, a manifest beside them and, for the web, a page that runs them."""

    model: str
    """Model folder, or a repository on the Hub."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """Folder to write to."""
    format: Literal["onnx", "torch", "web"] = "onnx"
    """onnx: encoder, denoiser, decoder and the whole pipeline; torch: torch.export programs;
    web: a static page with the ONNX graphs and onnxruntime-web."""
    dtype: Precision = "fp16"
    """How ONNX weights are stored; arithmetic is float32."""
    codec: str | None = None
    """Latent codec in place of the model's own: builtin, a folder, or a repository on the Hub."""
    variant: str | None = None
    """Which checkpoint of a released repository, such as ft_places2."""
    compile: bool = False
    """With torch: also compile libraries for this machine by AOTInductor."""
    serve: int | None = None
    """With web: then serve the page on this port of localhost."""


def main(options: Options) -> None:
    """Runs the command.

    Raises:
        ValueError: no model, a missing library, or options that do not go together.
        RuntimeError: a graph does not agree with PyTorch.
    """
    if options.serve is not None and options.format != "web":
        raise ValueError(f"--serve shows a page: use --format web, not {options.format}")
    if options.compile and options.format != "torch":
        raise ValueError(f"--compile is for --format torch, not {options.format}")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"{options.out} is a file: give a folder with --out")
    if options.format != "torch":
        require_onnx()
    runtime = fetch_runtime(CACHE.expanduser()) if options.format == "web" else None
    pipeline = InpaintPipeline.from_pretrained(
        options.model, codec=options.codec, variant=options.variant
    )
    options.out.mkdir(parents=True, exist_ok=True)
    if options.format == "torch":
        names = export_torch(pipeline, options.out, options.compile)
    else:
        names = export_onnx(pipeline, options.out, options.dtype, whole=options.format == "onnx")
    if runtime is not None:
        names += write_page(options.out, runtime)
    _show(options.out, names)
    if options.serve is not None:
        _serve(options.out, options.serve)


def export_onnx(
    pipeline: InpaintPipeline, folder: Path, dtype: Precision, whole: bool = True
) -> list[str]:
    """Writes the ONNX set and its manifest.

    Args:
        pipeline: the model, on the CPU, in float32.
        folder: an existing one.
        dtype: how weights are stored.
        whole: also the graph from picture to picture.

    Returns:
        The names of the files.
    """
    schedule, graphs = read_schedule(pipeline.scheduler), model_graphs(pipeline)
    models: dict[str, Any] = {}
    agreement = {}
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        for graph in progress.track(graphs, description="Tracing"):
            models[graph.name] = write_onnx(trace_onnx(graph), folder, graph.name, dtype)
            agreement[graph.name] = check(graph, folder, dtype)
    names = [f"{name}.{kind}" for name in models for kind in ("onnx", "data")]
    if whole:
        joined = pipeline_onnx(
            models,
            schedule,
            factor=graphs[0].factor,
            multiple=graphs[0].multiple,
            channels=pipeline.codec.channels,
        )
        names.append(f"{PIPELINE}.onnx")
        (folder / names[-1]).write_bytes(joined.SerializeToString())
    described = describe(
        pipeline,
        graphs,
        schedule,
        format="onnx",
        weights={"fp16": "float16, widened on loading", "fp32": "float32"}[dtype],
        arithmetic="float32",
        largest_relative_difference_from_pytorch=agreement,
    )
    return [*names, write_manifest(folder, described, names).name]


def check(graph: Graph, folder: Path, dtype: Precision) -> float:
    """Largest relative difference from PyTorch, at a size other than the traced one.

    Raises:
        RuntimeError: it is too large.
    """
    rows, columns = graph.multiple, 2 * graph.multiple
    found = disagreement(graph, folder / f"{graph.name}.onnx", 1, rows, columns)
    if not found <= ALLOWED[dtype]:
        raise RuntimeError(
            f"{graph.name}.onnx differs from PyTorch by {found:.1e}, {ALLOWED[dtype]:.0e} allowed: "
            "do not use it"
        )
    return found


def export_torch(pipeline: InpaintPipeline, folder: Path, compile: bool) -> list[str]:
    """Writes `torch.export` programs, compiled ones where asked, and the manifest."""
    from moebius.deploy.torch_files import compile_program, export_program

    graphs, names = model_graphs(pipeline), []
    with Progress(transient=True, console=Console(stderr=True)) as progress:
        for graph in progress.track(graphs, description="Exporting"):
            program = export_program(graph)
            names.append(f"{graph.name}.pt2")
            torch.export.save(program, folder / names[-1])
            compiled = f"{graph.name}.compiled.pt2"
            if compile and compile_program(program, folder / compiled):
                names.append(compiled)
    schedule = read_schedule(pipeline.scheduler)
    described = describe(pipeline, graphs, schedule, format="torch.export", weights="float32")
    return [*names, write_manifest(folder, described, names).name]


def _show(folder: Path, names: Sequence[str]) -> None:
    table = Table(title=f"Wrote {folder}")
    table.add_column("File")
    table.add_column("MB", justify="right")
    sizes = {name: (folder / name).stat().st_size / 1e6 for name in names}
    for name, size in (*sizes.items(), ("together", sum(sizes.values()))):
        table.add_row(name, f"{size:.2f}")
    print_table(table)


def _serve(folder: Path, port: int) -> None:
    try:
        server = make_server(folder, port)
    except OSError as error:
        raise ValueError(f"port {port} of localhost cannot be used: {error.strerror}") from None
    with server:
        Console().print(f"http://127.0.0.1:{server.server_address[1]} (Ctrl+C stops)")
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    disable_progress_bar()
    guard(lambda: main(tyro.cli(Options, prog="python -m moebius.export")))
