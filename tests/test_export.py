"""The door `python -m moebius.export`: what it writes and what it refuses."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL

from moebius import export
from moebius.export import Options, main
from moebius.inference.pipeline import InpaintPipeline
from moebius.models.denoiser import build
from moebius.models.schedule import build_scheduler


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
    )
    denoiser = build(
        "lmi_dw_mixffn",
        widths=(8, 8, 8),
        depths=(1, 1, 1),
        norm_groups=4,
        heads=2,
        lcg_dim=8,
        context_dim=8,
        latent_size=8,
    )
    folder = tmp_path_factory.mktemp("model")
    pipeline = InpaintPipeline(
        denoiser, vae, build_scheduler(), licence="apache-2.0", provenance="made-up weights"
    )
    pipeline.save_pretrained(folder)
    return folder


def test_a_graph_that_disagrees_is_not_passed_off(model, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="pip install 'moebius-inpainting[export]'")
    monkeypatch.setattr(export, "disagreement", lambda *_: float("nan"))
    monkeypatch.setattr(export, "trace_onnx", lambda graph: None)
    monkeypatch.setattr(export, "write_onnx", lambda *_: None)
    with pytest.raises(RuntimeError, match=r"encoder\.onnx differs from PyTorch by nan"):
        main(Options(str(model), tmp_path / "set"))


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"model": "nowhere"}, "model folder nowhere not found"),
        ({"serve": 8000}, "--serve shows a page: use --format web"),
        ({"compile": True}, "--compile is for --format torch"),
        ({"out": Path(__file__)}, "is a file: give a folder with --out"),
    ],
)
def test_what_does_not_work_is_one_line(change, line, tmp_path):
    options = {"model": "nowhere", "out": tmp_path / "out", **change}
    with pytest.raises(ValueError, match=line) as error:
        main(Options(**options))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_folder_that_holds_no_model_is_one_line(tmp_path):
    (tmp_path / "model_index.json").write_text("{")
    with pytest.raises(ValueError, match="is not a model"):
        main(Options(str(tmp_path), tmp_path / "out"))


def test_torch_programs_run_at_other_sizes_and_come_with_a_manifest(model, tmp_path, monkeypatch):
    """The denoiser's program takes long to trace; the decoder stands for it."""
    whole = export.model_graphs
    monkeypatch.setattr(export, "model_graphs", lambda pipeline: whole(pipeline)[2:])
    main(Options(str(model), tmp_path / "set", format="torch"))
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert list(manifest["files"]) == ["decoder.pt2"]
    assert manifest["format"] == "torch.export"
    program = torch.export.load(tmp_path / "set" / "decoder.pt2").module()
    codec = InpaintPipeline.from_pretrained(model).codec
    for shape in ((1, 4, 8, 16), (3, 4, 12, 8)):
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            torch.testing.assert_close(program(latents), codec.decode(latents))
