"""What fills holes for a score: our denoisers, results of anything else, and simple fills.

A method is small and can be pickled: it names weights, and `load` reads them where it runs. No
method but a denoiser with the release's start is shown the truth inside a hole.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from moebius.config import Sampling, load_json
from moebius.data.copies import here
from moebius.data.manifest import read_records
from moebius.evaluation.benchmark import Item
from moebius.evaluation.denoising import DenoiserFill, strength
from moebius.evaluation.listing import by_stem, describe_missing
from moebius.evaluation.pixels import read_picture
from moebius.inference.sampler import executed_steps
from moebius.models.codec import LatentCodec, load_codec
from moebius.models.denoiser import Denoiser
from moebius.models.loading import load_denoiser
from moebius.models.schedule import NOISE_OFFSET

Fill = Callable[[Sequence[Item]], Sequence[np.ndarray]]
"""Takes pictures with holes and returns whole pictures of their size, (size, size, 3) uint8."""

TELEA_RADIUS = 5


@dataclass(frozen=True)
class Method(ABC):
    """What is scored; write another by a name and these three.

    Its fields must be enough to load it in another process.
    """

    name: str
    """Folder of its results, and its name in tables."""

    as_is = False
    """Whether its pictures are scored without pasting the known pixels back."""

    @abstractmethod
    def load(self, sampling: Sampling, device: torch.device) -> Fill:
        """Read weights onto a device and return what fills holes."""

    @abstractmethod
    def provenance(self, names: Sequence[str]) -> dict[str, Any]:
        """What it is, with checksums: a result made with another is not reused.

        Args:
            names: ids of the benchmark's pictures.
        """

    def uses(self, sampling: Sampling) -> dict[str, Any]:
        """What of a protocol's sampling its pictures depend on."""
        return {}


@dataclass(frozen=True)
class DenoiserMethod(Method):
    """A denoiser of ours, a released checkpoint, or the teacher."""

    source: str
    """What `load_denoiser` takes."""
    arch: str | Mapping[str, Any] = "lmi_dw_mixffn"
    """Architecture of a released checkpoint."""
    codec: str | None = None
    """What `load_codec` takes; `None` is the saved pipeline's own."""

    def load(self, sampling: Sampling, device: torch.device) -> Fill:
        """See `Method.load`."""
        denoiser, codec = self._read()
        return DenoiserFill(denoiser.to(device), codec.to(device), sampling, self._noise_offset())

    def uses(self, sampling: Sampling) -> dict[str, Any]:
        """See `Method.uses`; the release asks for 20 steps and runs 19 (protocols, trap 2)."""
        steps = executed_steps(sampling.steps, strength(sampling))
        return {**sampling.model_dump(), "strength": strength(sampling), "executed_steps": steps}

    def provenance(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Method.provenance`."""
        denoiser, codec = self._read()
        return {
            "kind": "denoiser",
            "source": self.source,
            "arch": denoiser.architecture.name,
            "denoiser_sha256": tensors_checksum(denoiser),
            "codec": codec.name,
            "codec_sha256": tensors_checksum(codec),
            "noise_offset": self._noise_offset(),
            "made_up": self._made_up(),
        }

    def _read(self) -> tuple[Denoiser, LatentCodec]:
        source = here(self.source)
        denoiser = load_denoiser(source, self.arch)
        if self.codec is None and not (Path(source) / "vae").is_dir():
            raise ValueError(f"{self.source} is a denoiser without codec: name one with --codec")
        return denoiser, load_codec(self.codec or source)

    def _noise_offset(self) -> float:
        """Of the noise in the model's training, as a saved pipeline tells it."""
        path = Path(here(self.source)) / "model_index.json"
        saved = load_json(path) if path.is_file() else {}
        return saved.get("noise_offset", NOISE_OFFSET)

    def _made_up(self) -> list[str]:
        """What the run that trained it says of itself; see `moebius.assembly.train_run`."""
        path = Path(self.source).parent / "result.json"
        if not path.is_file() or not Path(self.source).is_dir():
            return []
        return [f"trained with {what}" for what in load_json(path).get("made_up", [])]


@dataclass(frozen=True)
class ResultsMethod(Method):
    """Pictures that anything else made, one for each of the benchmark's, by stem."""

    folder: str
    as_is: bool = False  # type: ignore[misc]

    def load(self, sampling: Sampling, device: torch.device) -> Fill:
        """See `Method.load`."""
        paths = by_stem(read_records(self.folder))
        return lambda items: [_same_size(paths[item.name], item) for item in items]

    def provenance(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Method.provenance`.

        Raises:
            ValueError: the folder has other stems than the benchmark.
        """
        paths = by_stem(read_records(self.folder))
        missing = [name for name in names if name not in paths]
        extra = sorted(paths.keys() - set(names))
        if missing:
            raise ValueError(describe_missing(f"{self.folder} lacks", missing, len(names)))
        if extra:
            raise ValueError(
                describe_missing(f"{self.folder} has beside the benchmark's", extra, len(paths))
            )
        digest = hashlib.sha256()
        for name in names:
            digest.update(hashlib.sha256(paths[name].read_bytes()).digest())
        return {"kind": "results", "folder": self.folder, "files_sha256": digest.hexdigest()}


@dataclass(frozen=True)
class MeanMethod(Method):
    """One colour: the mean of all known pixels of the picture."""

    def load(self, sampling: Sampling, device: torch.device) -> Fill:
        """See `Method.load`."""
        return lambda items: [_mean_fill(item) for item in items]

    def provenance(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Method.provenance`."""
        return {"kind": "fill", "fill": "mean of the known pixels"}


@dataclass(frozen=True)
class TeleaMethod(Method):
    """Telea's fast marching, OpenCV's INPAINT_TELEA."""

    def load(self, sampling: Sampling, device: torch.device) -> Fill:
        """See `Method.load`."""
        return lambda items: [_telea_fill(item) for item in items]

    def provenance(self, names: Sequence[str]) -> dict[str, Any]:
        """See `Method.provenance`."""
        return {"kind": "fill", "fill": f"OpenCV {cv2.__version__} Telea, radius {TELEA_RADIUS}"}


FILLS: dict[str, type[Method]] = {"mean": MeanMethod, "telea": TeleaMethod}


def tensors_checksum(module: torch.nn.Module) -> str:
    """SHA-256 of a module's tensors with their names, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _same_size(path: Path, item: Item) -> np.ndarray:
    picture = read_picture(path)
    if picture.shape != item.image.shape:
        height, width = picture.shape[:2]
        raise ValueError(
            f"result {path} is {width}x{height} pixels, the benchmark's pictures "
            f"{item.image.shape[1]}x{item.image.shape[0]}: resize it before it is scored"
        )
    return picture


def _mean_fill(item: Item) -> np.ndarray:
    known = item.image[~item.hole]
    colour = known.mean(axis=0) if len(known) else np.full(3, 127.5)
    return np.broadcast_to(colour.round().astype(np.uint8), item.image.shape)


def _telea_fill(item: Item) -> np.ndarray:
    cut = np.where(item.hole[..., None], np.uint8(0), item.image)
    return cv2.inpaint(cut, item.hole.astype(np.uint8), TELEA_RADIUS, cv2.INPAINT_TELEA)
