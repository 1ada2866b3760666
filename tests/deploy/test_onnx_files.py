import sys

import numpy as np
import pytest
import torch

from moebius.deploy import onnx_files
from moebius.deploy.graphs import model_graphs
from moebius.deploy.onnx_files import disagreement, require_onnx, trace_onnx, write_onnx
from moebius.models.denoiser import category_ids


@pytest.mark.parametrize("size", [(1, 8, 8), (3, 4, 20), (2, 16, 12)])
@pytest.mark.parametrize("name", ["encoder", "denoiser", "decoder"])
def test_onnxruntime_agrees_with_pytorch_at_sizes_other_than_the_traced(
    exported, graphs, name, size
):
    """8 is the trained side; elsewhere the position tables are resampled in the graph."""
    assert disagreement(graphs[name], exported / f"{name}.onnx", *size) < 1e-5


def test_the_denoiser_graph_is_guidance_of_the_denoiser(pipeline, graphs):
    latents, mask, masked, timestep, scale = graphs["denoiser"].example(2, 8, 4)
    sample = torch.cat([latents, mask, masked], dim=1)
    with torch.no_grad():
        background, foreground = (
            pipeline.denoiser(sample, timestep, category_ids(torch.full((2,), i))).sample
            for i in (0, 1)
        )
        found = graphs["denoiser"].module(latents, mask, masked, timestep, scale)
    assert not torch.allclose(background, foreground)
    expected = foreground + scale * (background - foreground)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


def test_other_operators_export_too(make_pipeline, tmp_path):
    """Gated linear attention, whose number of chunks depends on the size."""
    _, graph, _ = model_graphs(make_pipeline("gla_ca_conv_ffn"))
    write_onnx(trace_onnx(graph), tmp_path, "denoiser", "fp32")
    for size in ((1, 8, 8), (2, 4, 20)):
        assert disagreement(graph, tmp_path / "denoiser.onnx", *size) < 1e-4


def test_half_weights_halve_the_file_and_keep_the_picture(graphs, tmp_path):
    model = trace_onnx(graphs["decoder"])
    sizes = {}
    for precision in ("fp32", "fp16"):
        copy = type(model)()
        copy.CopyFrom(model)
        write_onnx(copy, tmp_path, precision, precision)
        sizes[precision] = (tmp_path / f"{precision}.data").stat().st_size
        assert disagreement(graphs["decoder"], tmp_path / f"{precision}.onnx", 1, 8, 8) < 2e-3
    assert sizes["fp16"] < 0.52 * sizes["fp32"]


def test_a_weight_beyond_half_precision_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match=r"weight w does not fit.*--dtype fp32"):
        onnx_files._halved(np.array([7e4], np.float32), "w")


@pytest.mark.parametrize("name", ["onnx", "onnxruntime"])
def test_a_missing_library_is_one_line(monkeypatch, name):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"^{name} is not installed: pip install .*\[export\]"):
        require_onnx()
