"""Latents as training reads them: moments of the crop and of the masked crop, and the mask.

Shapes: B batch, h x w latent cells, C latent channels.
"""

import hashlib
import json
import logging
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TypedDict, cast
from uuid import uuid4

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from moebius.data.samples import InpaintingSamples
from moebius.models.codec import LatentCodec
from moebius.models.latents import latent_mask

logger = logging.getLogger(__name__)
ENCODE_BATCH = 16


class LatentSample(TypedDict):
    """What one sample needs after the codec, before noise; batched, each with a first B."""

    clean: Tensor
    """(2, C, h, w): mean and deviation of the crop's posterior, scaled."""
    masked: Tensor
    """(2, C, h, w): the same of the crop with its hole cut out."""
    mask: Tensor
    """(1, h, w), 1 = hole."""
    category: Tensor
    """0 background, 1 foreground."""


@torch.no_grad()
def encode_pixels(
    codec: LatentCodec, image: Tensor, mask: Tensor, category: Tensor
) -> LatentSample:
    """Encodes crops (B, 3, H, W) with masks (B, 1, H, W), on the codec's device."""
    image, mask, category = (t.to(codec.vae.device) for t in (image, mask, category))
    mean, std = codec.moments(torch.cat([image, image * (1 - mask)]))
    moments = torch.stack([mean, std], dim=1).float()
    clean, masked = moments.chunk(2)
    return LatentSample(
        clean=clean, masked=masked, mask=latent_mask(mask, codec.factor), category=category
    )


class CachedLatents(Dataset[LatentSample]):
    """The first `count` draws of a stream, encoded once; sample n is draw n modulo `count`."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = dict(tensors)

    def __len__(self) -> int:
        return len(self.tensors["category"])

    def __getitem__(self, n: int) -> LatentSample:
        return cast(LatentSample, {key: t[n % len(self)] for key, t in self.tensors.items()})


def cache_latents(
    samples: InpaintingSamples,
    codec: LatentCodec,
    count: int,
    folder: Path,
) -> CachedLatents:
    """Encodes the first `count` draws into one file of `folder`, or reads what it holds already.

    The file's name is a digest of what the draws depend on: records, how they are drawn, and the
    codec's weights. A picture that changes under its name is not noticed.
    """
    path = folder / f"{_digest(samples, codec, count)}.safetensors"
    if path.is_file():
        return CachedLatents(load_file(path))
    parts: dict[str, list[Tensor]] = defaultdict(list)
    for batch in DataLoader(samples, ENCODE_BATCH, sampler=range(count)):
        encoded = encode_pixels(codec, batch["image"], batch["mask"], batch["category"])
        for key, tensor in cast(dict[str, Tensor], encoded).items():
            parts[key].append(tensor.cpu())
    tensors = {key: torch.cat(batches) for key, batches in parts.items()}
    folder.mkdir(parents=True, exist_ok=True)
    # Trials on several machines may encode at once: each its own file, the last one stays.
    temporary = folder / f".{uuid4().hex}.tmp"
    save_file(tensors, temporary)
    os.replace(temporary, path)
    logger.info("encoded %d draws into %s", count, path)
    return CachedLatents(load_file(path))


def _digest(samples: InpaintingSamples, codec: LatentCodec, count: int) -> str:
    described = {
        "records": [(str(r.image), str(r.mask), r.category) for r in samples.records],
        "spec": asdict(samples.spec),
        "codec": codec.digest(),
        "count": count,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


class Numbers:
    """Sample numbers of one worker, batch by batch, from a step on (a batch sampler).

    Step s takes numbers s*G to (s+1)*G of the stream; worker r of W takes the r-th share of them,
    in micro-batches. So a stream's order does not depend on the number of workers.
    """

    def __init__(
        self, first_step: int, steps: int, global_batch: int, micro_batch: int, rank: int, size: int
    ) -> None:
        share = global_batch // size
        assert share * size == global_batch and share % micro_batch == 0
        self.first_step, self.steps, self.global_batch = first_step, steps, global_batch
        self.micro_batch, self.start, self.share = micro_batch, rank * share, share

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.first_step, self.steps):
            first = step * self.global_batch + self.start
            for n in range(first, first + self.share, self.micro_batch):
                yield list(range(n, n + self.micro_batch))

    def __len__(self) -> int:
        return (self.steps - self.first_step) * (self.share // self.micro_batch)
