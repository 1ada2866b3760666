"""The node by ComfyUI's interface, without ComfyUI."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch
from made_server import hole, photo, save_model

from moebius.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from moebius.comfyui.nodes import _cached_pipeline
from moebius.serving import model as serving_model

NODE = NODE_CLASS_MAPPINGS["MoebiusInpaint"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_model(tmp_path_factory.mktemp("model"))


def image() -> torch.Tensor:
    return torch.from_numpy(np.asarray(photo())).float()[None] / 255


def mask() -> torch.Tensor:
    return torch.from_numpy(np.asarray(hole())).float()[None] / 255


def run(folder: str, image: torch.Tensor, mask: torch.Tensor, **options: Any) -> torch.Tensor:
    required = NODE.INPUT_TYPES()["required"]
    defaults = {
        name: options_[0]["default"] for name, (_, *options_) in required.items() if options_
    }
    given = defaults | {"steps": 1, "model": folder} | options
    (result,) = getattr(NODE(), NODE.FUNCTION)(image=image, mask=mask, **given)
    return result


def test_inputs_are_what_the_function_takes():
    types = NODE.INPUT_TYPES()
    names = list(inspect.signature(getattr(NODE, NODE.FUNCTION)).parameters)[1:]
    assert [*types["required"], *types["optional"]] == names
    assert NODE.RETURN_TYPES == ("IMAGE",)
    assert NODE_DISPLAY_NAME_MAPPINGS.keys() == NODE_CLASS_MAPPINGS.keys()


def test_only_the_hole_changes_and_known_floats_stay(folder: str):
    before = image() * 0.7391  # no multiples of 1/255
    after = run(folder, before, mask(), dilation=0)
    assert after.shape == before.shape and after.dtype == torch.float32
    changed = (after != before).any(-1)[0].numpy()
    known = np.asarray(hole()) == 0
    assert changed[~known].mean() > 0.9 and not changed[known].any()


def test_a_batch_counts_its_seed_on(folder: str):
    both = run(folder, image().repeat(2, 1, 1, 1), mask(), seed=3)
    assert torch.equal(both[1:], run(folder, image(), mask()[0], seed=4))
    assert not torch.equal(both[0], both[1])


def test_the_model_is_loaded_once(folder: str):
    assert _cached_pipeline(folder) is _cached_pipeline(folder)


@pytest.mark.parametrize(
    ("image_shape", "mask_shape"),
    [((1, 8, 9, 3), (1, 9, 8)), ((8, 9, 3), (8, 9)), ((2, 8, 9, 3), (3, 8, 9))],
)
def test_shapes_that_do_not_fit_are_named(folder: str, image_shape, mask_shape):
    with pytest.raises(ValueError, match=r"has shape \("):
        run(folder, torch.zeros(image_shape), torch.zeros(mask_shape))


def test_without_a_model_the_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(serving_model, "BUILTIN", tmp_path)
    with pytest.raises(ValueError, match=r"no built-in model in .*: name one"):
        run("", image(), mask())
