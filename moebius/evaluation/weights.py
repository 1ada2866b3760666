"""Weights of the networks behind FID, IDS and LPIPS: where they are, and whether they are real."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.error import URLError

import torch
from torch import Tensor

from moebius.models.released import read_tensors

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PublishedFile:
    """A file of weights as its authors publish it."""

    name: str
    """Ends in the first eight digits of its SHA-256."""
    address: str
    other_names: tuple[str, ...] = ()
    """What others call the same file."""

    @property
    def prefix(self) -> str:
        """First digits of the SHA-256 of the real file."""
        return Path(self.name).stem.rpartition("-")[2]


PUBLISHED_FILES = {
    # The weights of TensorFlow's Inception of 2015, converted; torch-fidelity's copy is the same.
    "inception": PublishedFile(
        "pt_inception-2015-12-05-6726825d.pth",
        "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
        "pt_inception-2015-12-05-6726825d.pth",
        ("weights-inception-2015-12-05-6726825d.pth",),
    ),
    "alexnet": PublishedFile(
        "alexnet-owt-7be5be79.pth",
        "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    ),
    "vgg16": PublishedFile(
        "vgg16-397923af.pth",
        "https://download.pytorch.org/models/vgg16-397923af.pth",
    ),
}


@dataclass(frozen=True)
class WeightsFile:
    """A file of weights on this machine."""

    path: Path
    sha256: str
    made_up: bool
    """Whether its checksum is not the published one."""

    @property
    def note(self) -> str | None:
        """What has to stand beside every score made with it, or None for the real file."""
        return f"made-up or altered weights (sha256 {self.sha256})" if self.made_up else None


def find_weights(key: str, folder: Path | str | None = None) -> WeightsFile:
    """Looks in a folder, then among torch.hub's checkpoints, then at the published address.

    Args:
        key: of `PUBLISHED_FILES`.
        folder: where to look first; None leaves it out.

    Raises:
        ValueError: if the folder is none, or if the file is nowhere and cannot be fetched.
    """
    published, cache = PUBLISHED_FILES[key], Path(torch.hub.get_dir()) / "checkpoints"
    if folder is not None and not Path(folder).is_dir():
        raise ValueError(f"{folder} is not a folder of weights: it should hold {published.name}")
    folders = [cache] if folder is None else [Path(folder), cache]
    names = (published.name, *published.other_names)
    places = [place / name for place in folders for name in names]
    path = next((place for place in places if place.is_file()), None) or _fetch(published, cache)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    weights = WeightsFile(path, sha256, not sha256.startswith(published.prefix))
    if weights.note:
        logger.warning("%s: %s; its scores are not comparable", path, weights.note)
    return weights


def _fetch(published: PublishedFile, cache: Path) -> Path:
    path = cache / published.name
    logger.info("fetching %s", published.address)
    try:
        cache.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(published.address, str(path), published.prefix)
    except (URLError, OSError, RuntimeError) as error:
        raise ValueError(
            f"weights {published.name} are missing and could not be fetched ({error}): get them "
            f"from {published.address} and name their folder with --weights"
        ) from error
    return path


def read_weights(weights: WeightsFile) -> Mapping[str, Tensor]:
    """Reads a state dict, tensors only.

    Raises:
        ValueError: if the file holds anything else.
    """
    try:
        return read_tensors(weights.path)
    except ValueError as error:
        raise ValueError(f"{error}; fetch it anew") from None
