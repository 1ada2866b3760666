"""Shared by tests that run whole recipes: a sweep small enough for seconds."""

import os
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


# --- under pytest-xdist -----------------------------------------------------------------------

PROCESSES = "processes"
"""The group of tests that start clusters, servers or browsers: two at once would starve."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Puts what starts processes into one group, which begins first: it takes longest."""
    if not config.getoption("loadgroup", False):
        return
    for item in items:
        if _starts_processes(item):
            item.add_marker(pytest.mark.xdist_group(PROCESSES))
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A file stays with one worker, which builds what its tests share once."""
    from xdist.scheduler import LoadGroupScheduling

    class ByFile(LoadGroupScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return super()._split_scope(nodeid).partition("::")[0]

    config.option.loadscopereorder = False  # by the number of tests; ours are in order
    return ByFile(config, log)


def _starts_processes(item: pytest.Item) -> bool:
    module = getattr(item, "module", None)
    return item.get_closest_marker("ray") is not None or hasattr(module, "browser_page")
