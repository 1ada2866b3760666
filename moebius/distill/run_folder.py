"""A run's folder: resolved configuration, environment, metrics, checkpoints.

config.yaml  environment.json  metrics.jsonl  tensorboard/  checkpoints/  samples/  result.json
model/  error.txt (the last failure)  trackers.json (ids there)  .process.json (who works on it)
"""

import json
import logging
import os
import platform
import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from moebius.config import Recipe, load_yaml
from moebius.config.secrets import hide_secrets, without_secrets
from moebius.data.copies import place_of, publish

logger = logging.getLogger(__name__)

PUBLISH_EVERY_S = 10.0
"""Seconds between metrics that are published between checkpoints."""

# A run may be prolonged or watched differently and is still the same run.
CHANGEABLE = (
    "training.steps",
    "training.log_every",
    "training.checkpoint_every",
    "training.keep_checkpoints",
    "data.workers",
    "data.latents_cache",
    "data.timeout_s",
    "validation.every",
    "trackers",
)
PACKAGES = (
    "torch",
    "diffusers",
    "ray",
    "numpy",
    "safetensors",
    "torchmetrics",
    "torch-fidelity",
    "lpips",
)


class RunFolder:
    """Files of one run under `path`; only rank 0 writes them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"
        self.metrics = path / "metrics.jsonl"
        self.samples = path / "samples"
        self.tensorboard = path / "tensorboard"
        self._published = time.monotonic()

    def check(self, recipe: Recipe) -> None:
        """Refuses a folder that holds a run of another configuration.

        Raises:
            ValueError: naming the keys that differ.
        """
        known = self.read_config()
        if known is None:
            return
        own = without_secrets(recipe.model_dump(mode="json", by_alias=True))
        changed = _differences(known, own)
        differing = [key for key in changed if key not in CHANGEABLE]
        if differing:
            raise ValueError(
                f"{self.path} holds a run with other settings ({', '.join(differing)}); "
                "choose another --out, or remove that folder"
            )

    def prepare(self, recipe: Recipe) -> None:
        """Writes configuration and environment, after `check`."""
        self.check(recipe)
        self.path.mkdir(parents=True, exist_ok=True)
        config = recipe.model_dump(mode="json", by_alias=True)
        write_text(self.path / "config.yaml", yaml.safe_dump(config, sort_keys=False))
        write_text(self.path / "environment.json", json.dumps(environment(), indent=1))

    def publish(self, now: bool = True) -> None:
        """Gives the object store, where the run is kept in one, what changed; only rank 0 does.

        Args:
            now: raise what the store says. Otherwise it is told now and then, and a store that
                does not answer is one line of the log: the next checkpoint waits for it.
        """
        if not now and time.monotonic() - self._published < PUBLISH_EVERY_S:
            return
        try:
            publish(self.path, exactly=(self.checkpoints.name,))
        except OSError as error:
            if now:
                raise
            logger.warning("%s is behind: %s", place_of(self.path), error)
        self._published = time.monotonic()

    def read_config(self) -> dict[str, Any] | None:
        """The configuration that the folder was made with, or `None`."""
        path = self.path / "config.yaml"
        return load_yaml(path) if path.is_file() else None

    def log(self, metrics: dict[str, float]) -> None:
        """Appends one line to `metrics.jsonl`."""
        with self.metrics.open("a") as file:
            file.write(json.dumps(metrics) + "\n")

    def rewind(self, step: int) -> None:
        """Forgets metrics of steps that will be taken again."""
        kept = [line for line in self.read_metrics() if line["step"] <= step]
        if self.metrics.is_file():
            write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))

    def read_metrics(self) -> list[dict[str, float]]:
        """All whole lines of `metrics.jsonl`."""
        if not self.metrics.is_file():
            return []
        lines = []
        for text in self.metrics.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except ValueError:  # a killed run leaves its last line cut
                continue
        return lines

    def write_result(self, result: dict[str, Any]) -> None:
        """Writes `result.json`, the sign that the run is finished."""
        write_text(self.path / "result.json", json.dumps(result, indent=1))

    def read_result(self, steps: int) -> dict[str, Any] | None:
        """The result of a run finished at `steps`, or `None`."""
        path = self.path / "result.json"
        if not path.is_file():
            return None
        result = json.loads(path.read_text())
        return result if result["step"] == steps else None


def write_text(path: Path, text: str) -> None:
    """Replaces a file's text atomically; secrets are left out, see `moebius.config.secrets`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(hide_secrets(text))
    os.replace(temporary, path)


def slug(label: str) -> str:
    """A label as a folder's name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", label).strip("._") or "trial"


def environment() -> dict[str, Any]:
    """Versions, git revision and machine."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "packages": versions,
        "git": _git_revision(),
        "machine": {"cpus": os.cpu_count(), "processor": platform.machine(), "gpu": gpu},
    }


def _git_revision() -> str | None:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True)
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() or None


def _differences(a: Any, b: Any, prefix: str = "") -> list[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        keys = sorted(a.keys() | b.keys())
        return [d for k in keys for d in _differences(a.get(k), b.get(k), f"{prefix}{k}.")]
    return [] if a == b else [prefix.rstrip(".")]
