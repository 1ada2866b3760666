"""Checkpoints: written whole or not at all, and refused when a checksum differs."""

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from moebius.models.modes import let_read

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class NotSaved(RuntimeError):
    """A checkpoint that could not be written: which, why, and what is left on its disk."""


def checkpoint_name(step: int) -> str:
    """`step_000030`."""
    return f"step_{step:06d}"


def write_checkpoint(
    root: Path, step: int, writers: Mapping[str, Callable[[Path], None]], keep: int
) -> Path:
    """Writes `root/step_<step>` atomically; of it and those before, only the newest `keep` stay.

    Args:
        root: folder of the run's checkpoints.
        step: steps taken.
        writers: file name to what writes it.
        keep: checkpoints to leave. One of a later step, which this run refused when it resumed,
            neither counts nor goes.

    Raises:
        NotSaved: the disk is full, or refuses; what was there before stays.
    """
    final, partial = root / checkpoint_name(step), root / f".{checkpoint_name(step)}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
        for name, write in writers.items():
            write(partial / name)
            _sync(partial / name)
        let_read(partial)
        sums = {name: _sha256(partial / name) for name in writers}
        (partial / MANIFEST).write_text(json.dumps({"step": step, "sha256": sums}, indent=1))
        _sync(partial / MANIFEST)
        _sync(partial)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(partial, final)
        _sync(root)
    except Exception as error:  # each writer has its own for a full disk
        free = shutil.disk_usage(root.parent).free
        raise NotSaved(
            f"{final} cannot be written ({' '.join(str(error).split())}), {free / 2**20:,.0f} MiB "
            "are free there; the checkpoint before is kept: make room, and the same command goes on"
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    written = [path for path in checkpoints_of(root) if checkpoint_step(path) <= step]
    for old in written[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def newest_checkpoint(root: Path) -> Path | None:
    """The newest checkpoint whose files are there and unchanged; others are named in the log."""
    for folder in checkpoints_of(root):
        problem = find_damage(folder)
        if problem is None:
            return folder
        logger.warning("checkpoint %s is refused: %s", folder, problem)
    return None


def find_damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or `None`."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        if manifest["step"] != checkpoint_step(folder):
            return f"{MANIFEST} is of step {manifest['step']}"
        for name, expected in manifest["sha256"].items():
            if not (folder / name).is_file():
                return f"{name} is missing"
            if _sha256(folder / name) != expected:
                return f"{name} does not match its checksum"
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"{MANIFEST} is unreadable ({type(error).__name__})"
    return None


def checkpoints_of(root: Path) -> list[Path]:
    """Checkpoints by name, the newest first, whole or not."""
    found = [path for path in root.glob("step_*") if path.name[5:].isdigit()]
    return sorted(found, key=checkpoint_step, reverse=True)


def checkpoint_step(folder: Path) -> int:
    """The step in a checkpoint's name."""
    return int(folder.name.removeprefix("step_"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Brings a file or a folder's entries to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
