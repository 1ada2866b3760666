from pathlib import Path

import pytest
import torch

from moebius.evaluation.perceptual_distance import TRUNKS, PerceptualDistance
from moebius.evaluation.weights import find_weights, read_weights


def pictures(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (2, 3, 40, 48), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("key", TRUNKS)
def test_against_the_package_as_it_builds_itself(
    key: str, made_up_weights: Path, monkeypatch: pytest.MonkeyPatch
):
    import lpips
    from lpips.pretrained_networks import tv

    weights = find_weights(key, made_up_weights)
    with torch.device("meta"):
        trunk = getattr(tv, key)()
    features = {name.removeprefix("features."): x for name, x in read_weights(weights).items()}
    trunk.features.load_state_dict(features, assign=True)
    monkeypatch.setattr(tv, key, lambda pretrained: trunk)
    reference = lpips.LPIPS(net=TRUNKS[key], verbose=False)
    monkeypatch.undo()
    state = torch.random.get_rng_state()
    distance = PerceptualDistance(key, weights)
    assert torch.equal(torch.random.get_rng_state(), state)  # no global randomness is used
    x, y = pictures(0), pictures(1)
    found = distance(x, y)
    expected = reference(x / 255, y / 255, normalize=True).flatten()
    assert found.shape == (2,) and (found > 0).all() and not found.requires_grad
    torch.testing.assert_close(found, expected)
    assert distance(x, x).tolist() == [0, 0]


def test_weights_of_another_network_are_refused(made_up_weights: Path):
    with pytest.raises(ValueError, match="does not hold the weights of alexnet"):
        PerceptualDistance("alexnet", find_weights("inception", made_up_weights))
