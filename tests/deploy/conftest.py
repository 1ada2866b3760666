"""A model small enough to export in seconds, and its exported graphs, made once."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from moebius.deploy.graphs import Graph, model_graphs
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.codec import load_codec
from moebius.models.denoiser import build
from moebius.models.schedule import build_scheduler


def small_pipeline(arch: str = "lmi_dw_mixffn") -> InpaintPipeline:
    """Made-up weights, whose predictions are large enough to matter in a picture."""
    torch.manual_seed(0)
    denoiser = build(
        arch,
        widths=(16, 16, 32),
        depths=(1, 1, 1),
        norm_groups=8,
        heads=4,
        lcg_dim=16,
        context_dim=8,
        latent_size=8,
    ).eval()
    with torch.no_grad():
        for parameter in denoiser.unet.conv_out.parameters():
            parameter.mul_(10)
        for buffer_name, buffer in denoiser.named_buffers():
            if buffer_name.endswith("running_mean"):
                buffer.normal_(0, 0.1)
    return InpaintPipeline(
        denoiser,
        load_codec("builtin").vae,
        build_scheduler(),
        licence="apache-2.0",
        provenance="made-up weights",
    )


@pytest.fixture(scope="session")
def make_pipeline() -> Callable[..., InpaintPipeline]:
    return small_pipeline


@pytest.fixture(scope="session")
def pipeline() -> InpaintPipeline:
    return small_pipeline()


@pytest.fixture(scope="session")
def graphs(pipeline) -> dict[str, Graph]:
    return {graph.name: graph for graph in model_graphs(pipeline)}


@pytest.fixture(scope="session")
def exported(pipeline, tmp_path_factory) -> Path:
    """The ONNX set of the small pipeline in float32, with its manifest."""
    pytest.importorskip("onnx", reason="pip install 'moebius-inpainting[export]'")
    pytest.importorskip("onnxruntime", reason="pip install 'moebius-inpainting[export]'")
    from moebius.export import Options, main

    model, folder = tmp_path_factory.mktemp("model"), tmp_path_factory.mktemp("onnx")
    pipeline.save_pretrained(model)
    main(Options(str(model), folder, dtype="fp32"))
    return folder
