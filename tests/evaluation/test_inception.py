from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from moebius.evaluation.inception import FEATURES, InceptionFeatures
from moebius.evaluation.weights import WeightsFile, find_weights


@pytest.fixture(scope="module")
def network(made_up_weights: Path) -> InceptionFeatures:
    return InceptionFeatures(find_weights("inception", made_up_weights))


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    levels = np.random.default_rng(0).integers(0, 256, (1, 3, 340, 320), np.uint8)
    return torch.from_numpy(levels)


def look(network: InceptionFeatures, picture: torch.Tensor, kind: str):
    """What enters the first layer, and the features."""
    seen = []
    hook = network.trunk[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    features = network(picture, kind)
    hook.remove()
    return seen[0], features


def test_the_kinds_differ_in_what_the_network_sees_only(network, picture):
    seen, features = look(network, picture, "fid_a")
    assert features.shape == (1, FEATURES) and features.dtype == torch.float32
    assert not features.requires_grad
    # TensorFlow 1 puts pixel i at i * 340 / 299, without torch's half pixel.
    assert torch.equal(seen[..., 0, 0], (picture[..., 0, 0].float() - 128) / 128)
    torch.testing.assert_close(network.trunk(seen).flatten(1), features)
    seen, features = look(network, picture, "fid_b")
    resized = F.interpolate(picture / 255, (299, 299), mode="bilinear", antialias=False)
    torch.testing.assert_close(seen, 2 * resized - 1)
    assert features.shape == (1, FEATURES)
    torch.testing.assert_close(features, network.trunk(seen).flatten(1))


def test_weights_of_another_network_are_refused(made_up_weights: Path):
    file = find_weights("alexnet", made_up_weights)
    with pytest.raises(ValueError, match="does not hold Inception's weights"):
        InceptionFeatures(WeightsFile(file.path, file.sha256, True))
