"""A saved model's `config.json` of any content is its weights', or one line names it."""

import json
from pathlib import Path

import pytest
from fuzzing import RUNS, answer, mutated, spliced_bytes
from hypothesis import given

import moebius
from moebius.models.denoiser import check_saved

STAGE = {"width": 8, "depth": 1, "self": "local_lambda", "cross": "cross_attention"}
TINY = {"norm_groups": 4, "heads": 2, "lcg_dim": 8, "context_dim": 8, "latent_size": 4}


@RUNS
@pytest.mark.parametrize("kind", ["document", "bytes"])
def test_any_config_of_a_model(fuzz, kind: str, tmp_path: Path):
    moebius.build({"stages": [STAGE], **TINY}).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    text = path.read_text()
    documents = mutated(json.loads(text), strange=False).map(lambda data: json.dumps(data).encode())
    seen = set[bytes]()

    @fuzz
    @given(documents if kind == "document" else spliced_bytes(text.encode()))
    def check(data: bytes):
        if data not in seen:  # a case in four is the file as it was
            path.write_bytes(data)
            answer(lambda: check_saved(tmp_path), str(tmp_path))
        seen.add(data)

    check()
