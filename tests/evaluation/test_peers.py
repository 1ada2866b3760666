"""Peers through diffusers, with a stand-in for its pipelines: none can be downloaded here."""

import ast
import sys
from pathlib import Path
from types import ModuleType

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from moebius.config import Sampling
from moebius.evaluation import peers
from moebius.evaluation.benchmark import Item
from moebius.evaluation.peers import PEERS, Peer, find_peer

CPU = torch.device("cpu")


class FakePipeline:
    """Paints noise of its generator, and remembers what it was called with."""

    loaded: tuple
    calls: list

    @classmethod
    def from_pretrained(cls, hub, **options):
        cls.loaded, cls.calls = (hub, options), []
        return cls()

    def to(self, device):
        self.device = device

    def set_progress_bar_config(self, **options):
        pass

    def __call__(self, **arguments):
        type(self).calls.append(arguments)
        shape = (arguments["height"], arguments["width"], 3)
        noise = torch.randint(256, shape, generator=arguments["generator"])
        image = Image.fromarray(noise.numpy().astype(np.uint8))
        return type("Output", (), {"images": [image]})()


@pytest.fixture
def items() -> list[Item]:
    hole = np.zeros((16, 16), bool)
    hole[:, :8] = True
    return [Item(name, np.full((16, 16, 3), 200, np.uint8), hole) for name in "ab"]


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_called_as_diffusers_wants_it(name, items, monkeypatch):
    peer = find_peer(name)(name)
    assert hasattr(diffusers, peer.pipeline), "the class that it names exists"
    monkeypatch.setattr(diffusers, peer.pipeline, FakePipeline)
    made = peer.load(Sampling(side=32), CPU)(items)
    assert [picture.shape for picture in made] == [(16, 16, 3)] * 2
    assert FakePipeline.loaded == (peer.hub, {"torch_dtype": torch.float32})
    call = FakePipeline.calls[0]
    assert (call["height"], call["width"], call["prompt"]) == (32, 32, "")
    assert call["num_inference_steps"] == peer.steps and call["guidance_scale"] == peer.guidance
    image, mask = np.asarray(call["image"]), np.asarray(call["mask_image"])
    assert mask[0, 0] == 255 and mask[0, -1] == 0, "white is the hole"
    assert (image[:, 0] == peers.GREY).all() and (image[:, -1] == 200).all(), "the truth is cut out"


@pytest.mark.parametrize("name", PEERS)
def test_the_pipelines_take_these_arguments(name):
    """By diffusers' source: without transformers, its classes cannot be looked into."""
    peer = find_peer(name)("x")
    folder = Path(diffusers.__file__).parent / "pipelines"
    [source] = [p for p in folder.rglob("*.py") if f"class {peer.pipeline}(" in p.read_text()]
    tree = ast.parse(source.read_text())
    [found] = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == peer.pipeline]
    [call] = [n for n in found.body if isinstance(n, ast.FunctionDef) and n.name == "__call__"]
    known = {argument.arg for argument in call.args.args}
    assert {"image", "mask_image", "height", "width", "generator"} <= known
    assert peer.arguments().keys() <= known


def test_noise_belongs_to_the_id(items, monkeypatch):
    monkeypatch.setattr(diffusers, "FluxFillPipeline", FakePipeline)
    fill = find_peer("FLUX.1-Fill-dev")("x").load(Sampling(side=16), CPU)
    first, second = fill(items), fill(items[::-1])
    assert np.array_equal(first[0], second[1]) and not np.array_equal(first[0], first[1])


def test_a_peer_of_ones_own_is_found_by_its_module(monkeypatch):
    class Mine(Peer):
        hub, pipeline, steps, guidance = "owner/name", "AutoPipelineForInpainting", 30, 7.5

    module = ModuleType("my_peers")
    module.Mine, module.other = Mine, int
    monkeypatch.setitem(sys.modules, "my_peers", module)
    assert find_peer("my_peers.Mine") is Mine
    for wrong in ("my_peers.other", "my_peers.None", "nowhere.Mine", "Mine"):
        with pytest.raises(ValueError, match=rf"unknown peer '{wrong}': use FLUX.1-Fill-dev, "):
            find_peer(wrong)


def test_provenance_names_the_revision_and_what_is_asked(monkeypatch):
    monkeypatch.setattr(
        peers, "hf_hub_download", lambda hub, file: f"/cache/snapshots/abc123/{file}"
    )
    found = find_peer("SD3.5-inpainting")("x").provenance([])
    assert found["revision"] == "abc123" and found["arguments"]["strength"] == 1.0


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("no route\nto host"), "no weights of .* and the Hub does not give them: no route"),
        (ImportError("\nrequires transformers"), "needs more libraries .*pip install transformers"),
    ],
)
def test_what_is_missing_is_one_clear_line(error, message, monkeypatch):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(diffusers, "FluxFillPipeline", type("X", (), {"from_pretrained": fail}))
    with pytest.raises(ValueError, match=message) as caught:
        find_peer("FLUX.1-Fill-dev")("peer").load(Sampling(), CPU)
    assert "\n" not in str(caught.value)
    if isinstance(error, OSError):
        monkeypatch.setattr(peers, "hf_hub_download", fail)
        with pytest.raises(ValueError, match=message):
            find_peer("FLUX.1-Fill-dev")("peer").provenance([])
