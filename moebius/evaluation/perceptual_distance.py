"""LPIPS: a learned distance between pictures (Zhang et al. 2018, arXiv 1801.03924)."""

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from moebius.evaluation.optional import import_optional
from moebius.evaluation.weights import WeightsFile, read_weights

TRUNKS: dict[str, str] = {"alexnet": "alex", "vgg16": "vgg"}
"""What lpips calls the files of `PUBLISHED_FILES`."""


class PerceptualDistance(nn.Module):
    """The lpips package's distance, version 0.1, linearly calibrated; frozen, in eval mode.

    Args:
        key: of `TRUNKS`.
        weights: `find_weights(key)`. The heads come with the package.

    Raises:
        ValueError: if lpips is missing or the weights are not of this trunk.
    """

    def __init__(self, key: str, weights: WeightsFile) -> None:
        super().__init__()
        lpips, trunk = import_optional("lpips"), TRUNKS[key]
        with torch.device("meta"), warnings.catch_warnings():  # meta: values are discarded
            warnings.simplefilter("ignore", UserWarning)  # lpips calls torchvision in its old way
            net = lpips.LPIPS(pretrained=False, net=trunk, pnet_rand=True, verbose=False)
        net.scaling_layer = lpips.ScalingLayer()
        heads_file = Path(lpips.__file__).parent / "weights" / "v0.1" / f"{trunk}.pth"
        heads = torch.load(heads_file, map_location="cpu", weights_only=True)
        state = dict(net.scaling_layer.state_dict(prefix="scaling_layer."))
        for name, head in heads.items():
            state[name] = head
            state[name.replace("lin", "lins.", 1)] = head  # the package names each head twice
        features = read_weights(weights)
        try:
            for name in net.net.state_dict():
                _slice, _, layer = name.partition(".")  # torchvision's numbering goes on inside
                state[f"net.{name}"] = features[f"features.{layer}"]
            net.load_state_dict(state, assign=True)
        except (KeyError, RuntimeError) as error:
            raise ValueError(f"{weights.path} does not hold the weights of {key}") from error
        self.net = net.requires_grad_(False).eval()

    def forward(self, results: Tensor, truth: Tensor) -> Tensor:
        """(B,) distances of two batches (B, 3, H, W) uint8."""
        return self.net(results / 127.5 - 1, truth / 127.5 - 1).flatten()
