"""Shared by the tests of shards: samples, a codec, a finished set, and an S3 server."""

import logging
import shutil
from collections.abc import Iterator
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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(s3_server: str, monkeypatch) -> str:
    """URL of an empty folder in an S3 bucket, to be formatted with its name."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "made-up")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    from pyarrow import fs

    query = f"scheme=http&endpoint_override={s3_server}&region=us-east-1"
    files, _ = fs.FileSystem.from_uri(f"s3://photos?{query}&allow_bucket_creation=true")
    files.create_dir("photos")
    return f"s3://photos/{{}}?{query}"
