"""Encoding a stream's draws to shards, each on its own: whoever makes it, the same bytes on a CPU.

A set is complete when every shard's name, which holds its checksum, is in the listing; so what is
missing after a kill is known without a journal, and `index.json` comes last.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from typing import cast

import torch
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader

from moebius.data.latents import ENCODE_BATCH, encode_pixels
from moebius.data.samples import InpaintingSamples
from moebius.data.shards.index import (
    INDEX,
    SETTINGS,
    SHARD_NAME,
    Encoding,
    Index,
    Shard,
    differing,
    read_as,
    shard_name,
)
from moebius.data.shards.storage import Storage
from moebius.models.codec import LatentCodec

STORED = {
    "clean": torch.bfloat16,
    "masked": torch.bfloat16,
    "mask": torch.uint8,
    "category": torch.uint8,
}
"""Tensors of a shard, each with the draws along its first axis; see `LatentSample`."""


def draw_bytes(codec: LatentCodec, size: int) -> int:
    """What one draw takes in a shard: two moments of two pictures, the mask and the category."""
    cells = (size // codec.factor) ** 2
    return 2 * 2 * codec.channels * cells * torch.bfloat16.itemsize + cells + 1


def claim(storage: Storage, encoding: Encoding, dry_run: bool = False) -> list[int]:
    """Numbers of the shards that a storage still lacks.

    Args:
        storage: where the set goes.
        encoding: the set.
        dry_run: only look; else a storage that is empty is marked with the settings.

    Raises:
        ValueError: it holds a set of other settings, or other files.
    """
    files = storage.sizes()
    if SETTINGS in files:
        wrong = differing(read_as(Encoding, storage, SETTINGS), encoding)
        if wrong:
            raise ValueError(
                f"{storage.place} was encoded with other settings ({', '.join(wrong)}): choose "
                "another --out, or remove what is there"
            )
    elif files:
        raise ValueError(f"{storage.place} holds other files: choose an empty --out")
    elif not dry_run:
        storage.write(SETTINGS, _json(encoding))
    made = _made(files)
    return [number for number in range(encoding.shards) if number not in made]


def finish(storage: Storage, encoding: Encoding) -> Index:
    """Writes the index of a set whose shards are all there."""
    files = storage.sizes()
    made = _made(files)
    index = Index(
        encoding=encoding,
        shards=[
            Shard(name=made[n], bytes=files[made[n]], draws=len(encoding.numbers(n)))
            for n in range(encoding.shards)
        ],
    )
    storage.write(INDEX, _json(index))
    storage.tidy()
    return index


class ShardWriter:
    """Encodes shards of a set.

    Args:
        samples: the stream.
        codec: on the device that encodes.
        storage: where shards go.
        encoding: the whole set.
        loaders: processes that decode photographs; 0 decodes in this one.
    """

    def __init__(
        self,
        samples: InpaintingSamples,
        codec: LatentCodec,
        storage: Storage,
        encoding: Encoding,
        loaders: int = 0,
    ) -> None:
        self.samples, self.codec, self.storage = samples, codec, storage
        self.encoding, self.loaders = encoding, loaders

    def __call__(self, number: int) -> int:
        """Makes one shard; returns its number of draws."""
        numbers = self.encoding.numbers(number)
        parts: dict[str, list[Tensor]] = defaultdict(list)
        loader: DataLoader = DataLoader(
            self.samples, ENCODE_BATCH, sampler=numbers, num_workers=self.loaders
        )
        for batch in loader:
            encoded = encode_pixels(self.codec, batch["image"], batch["mask"], batch["category"])
            for key, tensor in cast(dict[str, Tensor], encoded).items():
                parts[key].append(tensor.to(STORED[key]).cpu())
        data = save({key: torch.cat(tensors) for key, tensors in parts.items()})
        self.storage.write(shard_name(number, data), data)
        return len(numbers)


def _made(files: Mapping[str, int]) -> dict[int, str]:
    """Names of the shards that are there, by number; of two GPUs' versions of one, the first."""
    names = sorted(name for name in files if re.fullmatch(SHARD_NAME, name))
    return {int(name.partition("-")[0]): name for name in reversed(names)}


def _json(model: Encoding | Index) -> bytes:
    return json.dumps(model.model_dump(mode="json"), indent=1).encode()
