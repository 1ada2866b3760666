"""Shared by tests of scores: pictures, and networks of the right shape with made-up weights."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import moebius.torchvision_schemas  # noqa: F401  (before torchvision)
from moebius.evaluation.weights import PUBLISHED_FILES


def made_up_state(module: torch.nn.Module) -> dict[str, Tensor]:
    """He-initialised weights, no biases, statistics that change nothing."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, tensor in module.state_dict().items():
        if tensor.ndim > 1:
            scale = (2 / tensor[0].numel()) ** 0.5
            state[name] = scale * torch.randn(tensor.shape, generator=generator)
        else:
            keep = name.endswith(("bn.weight", "running_var"))
            state[name] = torch.full(tensor.shape, int(keep), dtype=tensor.dtype)
    return state


def build_inception() -> torch.nn.Module:
    """torch-fidelity's network without weights, on the meta device."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class WithoutWeights(FeatureExtractorInceptionV3):
        def load_state_dict(self, state):  # type: ignore[override]
            pass

    file = BytesIO()
    torch.save({}, file)
    file.seek(0)
    with torch.device("meta"):
        return WithoutWeights("inception", ["2048"], file)


@pytest.fixture(scope="session")
def made_up_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all of `PUBLISHED_FILES`, seeded."""
    from torchvision.models import alexnet, vgg16

    folder = tmp_path_factory.mktemp("weights")
    with torch.device("meta"):
        trunks = {"alexnet": alexnet().features, "vgg16": vgg16().features}
    networks = {"inception": build_inception()}
    networks |= {name: torch.nn.ModuleDict({"features": net}) for name, net in trunks.items()}
    for name, network in networks.items():
        torch.save(made_up_state(network), folder / PUBLISHED_FILES[name].name)
    return folder


@pytest.fixture(scope="session")
def scored() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Results, truth (3, 48, 56, 3) and holes (3, 48, 56): noise in the holes of photographs."""
    from skimage import data

    photo, rng = data.astronaut(), np.random.default_rng(0)
    truth = np.stack([photo[y : y + 48, 180:236] for y in (50, 150, 300)])
    holes = np.zeros(truth.shape[:3], bool)
    for hole, (top, left) in zip(holes, ((0, 4), (20, 30), (8, 8)), strict=True):
        hole[top : top + 24, left : left + 20] = True
    results = np.where(holes[..., None], rng.integers(0, 256, truth.shape, np.uint8), truth)
    return results, truth, holes
