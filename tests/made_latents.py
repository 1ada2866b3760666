"""A tiny codec, photographs of noise, and sets of latents that they give."""

from pathlib import Path

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from PIL import Image

from moebius.data.manifest import read_records
from moebius.data.samples import InpaintingSamples, SampleSpec
from moebius.data.shards.index import Index, describe_encoding
from moebius.data.shards.storage import open_storage
from moebius.data.shards.writer import ShardWriter, claim, finish
from moebius.models.codec import LatentCodec

SPEC = SampleSpec(size=32, seed=3)


def make_codec(seed: int = 0, name: str = "tiny", **config: float) -> LatentCodec:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vae = AutoencoderKL(
            block_out_channels=(4, 4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1,
            norm_num_groups=4,
            mid_block_add_attention=False,
            **config,
        )
    return LatentCodec(vae, name)


def make_samples(folder: Path, count: int = 4, spec: SampleSpec = SPEC) -> InpaintingSamples:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for n in range(count):
        pixels = rng.integers(0, 256, (40, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{n}.png")
    return InpaintingSamples(read_records(folder), spec)


def make_set(
    place: str, samples: InpaintingSamples, codec: LatentCodec, masks: int, shard_draws: int
) -> Index:
    """Encodes what a place lacks and finishes it."""
    storage = open_storage(place)
    encoding = describe_encoding(samples, codec, "photographs", masks, shard_draws)
    writer = ShardWriter(samples, codec, storage, encoding)
    for number in claim(storage, encoding):
        writer(number)
    return finish(storage, encoding)
