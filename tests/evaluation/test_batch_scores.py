import math
import pickle
from pathlib import Path

import numpy as np
import pytest

from moebius.evaluation.batch_scores import BatchScores


@pytest.mark.parametrize("kinds", [(), ("fid_a.fake",), ("fid_a.fake", "fid_b.real")])
def test_a_file_gives_back_every_bit(kinds: tuple[str, ...], tmp_path: Path):
    rng = np.random.default_rng(0)
    rows = [{"psnr": math.inf, "lpips": 0.1 + 0.2}, {"psnr": 1 / 3, "lpips": 1e-9}]
    batch = BatchScores(rows, {kind: rng.random((2, 2048), np.float32) for kind in kinds})
    batch.save(tmp_path / "batch.safetensors")
    loaded = BatchScores.load(tmp_path / "batch.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["batch.safetensors"]
    for found in (loaded, pickle.loads(pickle.dumps(batch))):
        assert found.rows == rows
        assert list(found.features) == list(kinds)
        assert all(np.array_equal(found.features[kind], batch.features[kind]) for kind in kinds)


def test_a_damaged_file_is_refused(tmp_path: Path):
    path = tmp_path / "batch.safetensors"
    BatchScores([{"psnr": 1.0}], {}).save(path)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match="remove it"):
        BatchScores.load(path)
