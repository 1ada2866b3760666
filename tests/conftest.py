"""Shared by tests: a recipe small enough for seconds, an S3 server."""

import logging
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

# Tests share two cores with Ray's processes; more threads a process only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import moebius.torchvision_schemas  # noqa: F401  (reads it; before diffusers)

TINY_RECIPE: dict[str, Any] = {
    "extends": "builtin",
    "model": {
        "widths": [8, 8, 16],
        "norm_groups": 8,
        "heads": 4,
        "lcg_dim": 16,
        "context_dim": 8,
        "latent_size": 8,
    },
    "teacher": {"train": {"model": {"widths": [8, 8, 16, 16]}, "training": {"steps": 3}}},
    "data": {"size": 64, "short_side": [64, 96], "cache": 16},
    "training": {"steps": 6, "global_batch": 4, "log_every": 2, "checkpoint_every": 2},
    "validation": {"pairs": 2, "steps": 2, "pictures": 2},
}


@pytest.fixture
def tiny_recipe() -> dict[str, Any]:
    """A mapping for `read_recipe` that trains in seconds."""
    return yaml.safe_load(yaml.safe_dump(TINY_RECIPE))


@pytest.fixture
def write_yaml(tmp_path: Path):
    """Writes a mapping as a YAML file and returns its path."""

    def write(name: str, data: dict[str, Any]) -> Path:
        path = tmp_path / name
        path.write_text(yaml.safe_dump(data))
        return path

    return write


# --- object stores ----------------------------------------------------------------------------


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


# --- under pytest-xdist -----------------------------------------------------------------------

PROCESSES = "processes"
"""The group of files that start clusters, servers or browsers: two at once would starve."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The group begins first: it takes longest."""
    if config.getoption("loadgroup", False):
        items.sort(key=lambda item: not _starts_processes(item.path))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays with one worker, which builds what its tests share once."""
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        # By the source, not by xdist's marks: with pytest 9.2, those no longer reach a scheduler.
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return PROCESSES if _starts_processes(config.rootpath / file) else file

    config.option.loadscopereorder = False  # by the number of tests; ours are in order
    return ByFile(config, log)


@cache
def _starts_processes(path: Path) -> bool:
    text = path.read_text()
    return "mark.ray" in text or "browser_page" in text
