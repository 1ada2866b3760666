"""Shared by the tests of shards: samples, a codec, a finished set."""

import shutil
from pathlib import Path

import pytest
from made_latents import make_codec, make_samples, make_set

from moebius.data.samples import InpaintingSamples
from moebius.models.codec import LatentCodec


@pytest.fixture(scope="session")
def codec() -> LatentCodec:
    return make_codec()


@pytest.fixture(scope="session")
def samples(tmp_path_factory) -> InpaintingSamples:
    return make_samples(tmp_path_factory.mktemp("photographs"), 10)


@pytest.fixture(scope="session")
def made_once(samples, codec, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "latents"
    make_set(str(folder), samples, codec, masks=3, shard_draws=4)
    return folder


@pytest.fixture
def latents(made_once: Path, tmp_path: Path) -> Path:
    """Ten photographs, three masks each: 30 draws in 8 shards, to be changed at will."""
    return Path(shutil.copytree(made_once, tmp_path / "latents"))
