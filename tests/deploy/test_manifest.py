import hashlib
import json

import pytest


def test_the_manifest_fits_the_set(exported):
    manifest = json.loads((exported / "manifest.json").read_text())
    written = {path.name for path in exported.iterdir()}
    assert written == {*manifest["files"], "manifest.json"}
    assert written > {"pipeline.onnx", "denoiser.onnx", "denoiser.data"}
    for name, described in manifest["files"].items():
        content = (exported / name).read_bytes()
        assert len(content) == described["bytes"]
        assert hashlib.sha256(content).hexdigest() == described["sha256"]
    assert manifest["model"]["licence"] == "apache-2.0"
    assert manifest["model"]["provenance"] == "made-up weights"
    assert manifest["weights"] == "float32"
    assert max(manifest["largest_relative_difference_from_pytorch"].values()) < 1e-4
    assert manifest["sizes"]["multiple_pixels"] == 32
    assert manifest["sampling"]["alphas"][0] == pytest.approx(1 - 0.00085)
    assert manifest["graphs"]["denoiser"]["inputs"][0]["shape"] == ["batch", 4, "rows", "columns"]
