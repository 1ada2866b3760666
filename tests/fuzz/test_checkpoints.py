"""Any file of weights gives tensors, or one line that names it and says why not."""

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from fuzzing import RUNS, Choices, answer, cases, mutated, spliced_bytes
from hypothesis import given
from safetensors.torch import save

from moebius.models.released import load_released, read_tensors

STATE = {"diff_model.a": torch.zeros(2, 3), "embedding_layer.weight": torch.ones(4)}


def torch_saved(what: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(what, file, **options)
    return file.getvalue()


BIN = (
    torch_saved(STATE),
    torch_saved(STATE, _use_new_zipfile_serialization=False),
    torch_saved({"state_dict": STATE}),
    torch_saved([1, "x"]),
)
HEADERS = (
    {"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}},
    {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]},
        "b": {"dtype": "I64", "shape": [], "data_offsets": [4, 12]},
    },
)


def described(header: Any) -> bytes:
    """A file of safetensors with any header, whose length is right."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(24)


def read(path: Path) -> None:
    state = answer(lambda: read_tensors(path), str(path))
    assert state is None or all(isinstance(value, torch.Tensor) for value in state.values())


@RUNS
def test_any_file_of_torch(fuzz, tmp_path: Path):
    path = tmp_path / "weights.bin"

    @fuzz
    @given(spliced_bytes(*BIN))
    def check(data: bytes):
        path.write_bytes(data)
        read(path)

    check()


@RUNS
@pytest.mark.parametrize(
    "files",
    [mutated(*HEADERS, strange=False).map(described), spliced_bytes(save(STATE))],
    ids=["header", "bytes"],
)
def test_any_safetensors(fuzz, files, tmp_path: Path):
    path = tmp_path / "weights.safetensors"

    @fuzz
    @given(files)
    def check(data: bytes):
        path.write_bytes(data)
        read(path)

    check()


@RUNS
def test_any_state_dict(fuzz):
    model = torch.nn.Module()
    model.lcg, model.unet = torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2)
    tensors = (
        torch.zeros(2, 2),
        torch.zeros(2),
        torch.zeros(0),
        torch.ones(2, 2, dtype=torch.int8),
    )
    keys = (
        "embedding_layer.weight",
        "diff_model.weight",
        "diff_model.bias",
        "",
        "lcg.weight",
        "\n",
    )

    def states(choices: Choices) -> dict[str, torch.Tensor]:
        state = {"diff_model.weight": torch.zeros(2, 2), "diff_model.bias": torch.zeros(2)}
        for _ in range(choices.number(4)):
            state[choices.one_of(keys)] = choices.one_of(tensors)
        return state

    @fuzz
    @given(cases(states))
    def check(state: dict[str, torch.Tensor]):
        answer(lambda: load_released(model, state), "state dict")

    check()
