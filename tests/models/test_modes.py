"""Saved weights are read by whom the umask lets."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from safetensors.torch import save_file

import moebius
from moebius.distill.checkpoints import write_checkpoint

TINY = {"widths": [8, 8, 16], "depths": [1, 1, 1], "norm_groups": 8, "heads": 4, "lcg_dim": 8}


@pytest.fixture(params=[0o022, 0o027, 0o077])
def mode(request: pytest.FixtureRequest) -> Iterator[int]:
    """What the umask leaves of a file."""
    before = os.umask(request.param)
    yield 0o666 & ~request.param
    os.umask(before)


def test_saved_weights_follow_the_umask(mode: int, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.mkdir()
    model = moebius.build("lmi_dw_mixffn", context_dim=8, latent_size=8, **TINY)
    model.save_pretrained(folder / "model")
    moebius.save_released(model, folder / "released.safetensors")
    state = model.state_dict()
    writers = {"student.safetensors": lambda path: save_file(state, path)}
    write_checkpoint(folder / "checkpoints", 1, writers, keep=1)
    files = list(folder.rglob("*.safetensors"))
    assert {file.stat().st_mode & 0o777 for file in files} == {mode} and len(files) == 3
