"""Finds the runs, sweeps and evaluations below a folder by the files that they leave."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Kind = Literal["run", "sweep", "evaluation"]

INNER = {
    "benchmark",
    "checkpoints",
    "latents",
    "model",
    "ray",
    "results",
    "samples",
    "shards",
    "tensorboard",
    "wandb",
}
"""Folders of a run, sweep or evaluation in which there are no others."""


@dataclass(frozen=True)
class Found:
    """A folder, and what it holds."""

    path: Path
    kind: Kind


def find(root: Path) -> list[Found]:
    """Everything below `root`, itself included, each sweep before its trials.

    Raises:
        ValueError: there is no such folder.
    """
    if not root.is_dir():
        raise ValueError(f"no folder at {root}: name one that holds runs")
    return list(_walk(root))


def _walk(folder: Path) -> Iterator[Found]:
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:  # of someone else
        return
    names = {entry.name for entry in entries}
    kind = _kind(names)
    if kind is not None:
        yield Found(folder, kind)
    for entry in entries:
        # A link may lead out of the folder, or back into it.
        if entry.is_dir(follow_symlinks=False) and not _is_inner(entry.name, kind):
            yield from _walk(Path(entry.path))


def _kind(names: set[str]) -> Kind | None:
    if "trials" in names:
        return "sweep"
    if names & {"config.yaml", "metrics.jsonl"}:
        return "run"
    if "settings.json" in names and names & {"shards", "results"}:
        return "evaluation"
    return None


def _is_inner(name: str, kind: Kind | None) -> bool:
    return name.startswith(".") or (kind is not None and name in INNER)
