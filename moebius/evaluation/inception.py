"""Features of TensorFlow's Inception of 2015, for FID and IDS (protocols 1.3, F-A and F-B).

The network is torch-fidelity's. The two kinds of FID differ in how a picture is brought to
299 x 299 and scaled.
"""

from io import BytesIO
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moebius.evaluation.optional import import_optional
from moebius.evaluation.weights import WeightsFile, read_weights

FeatureKind = Literal["fid_a", "fid_b"]
INPUT_SIZE = 299
FEATURES = 2048


class InceptionFeatures(nn.Module):
    """(B, 3, H, W) uint8 to (B, 2048) float32.

    Args:
        weights: `find_weights("inception")`.

    Raises:
        ValueError: if torch-fidelity is missing or the weights are not of this network.
    """

    def __init__(self, weights: WeightsFile) -> None:
        super().__init__()
        fidelity = import_optional("torch_fidelity.feature_extractor_inceptionv3")
        # torch-fidelity unpickles whatever its file holds; it is given tensors only.
        file = BytesIO()
        torch.save(read_weights(weights), file)
        file.seek(0)
        try:
            self.fid_a = fidelity.FeatureExtractorInceptionV3("inception", ["2048"], file)
        except RuntimeError as error:
            raise ValueError(f"{weights.path} does not hold Inception's weights") from error
        *layers, _classifier = self.fid_a.children()
        self.trunk = nn.Sequential(*layers)

    def forward(self, pictures: Tensor, kind: FeatureKind) -> Tensor:
        """Features for one kind of FID.

        Args:
            pictures: (B, 3, H, W) uint8.
            kind: "fid_a": levels, resized as TensorFlow 1 did, (x - 128) / 128. "fid_b": [0, 1],
                resized by torch's bilinear filter without antialiasing, 2x - 1.
        """
        if kind == "fid_a":
            return self.fid_a(pictures)[0]
        size = (INPUT_SIZE, INPUT_SIZE)
        resized = F.interpolate(pictures.float() / 255, size, mode="bilinear", align_corners=False)
        return self.trunk(2 * resized - 1).flatten(1)
