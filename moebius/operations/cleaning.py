"""What can be made again or is of no use any more, and its removal.

Never the newest whole checkpoint, a model, metrics or results, and nothing of what is running.
"""

import re
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from moebius.distill.checkpoints import checkpoints_of, find_damage
from moebius.distill.occupation import occupation
from moebius.operations.disk import disk_used
from moebius.operations.finding import Found, find
from moebius.operations.records import Record, read_record

_LEFT_BY_A_KILL = re.compile(r"\..+\.(partial|\d+)|.+\.[0-9a-f]{32}\.tmp")
"""Of `write_checkpoint`, `copy_model` and `warm_start`; of `write_text`; of `cache_latents`."""


@dataclass(frozen=True)
class Item:
    """One thing to remove."""

    path: Path
    why: str
    disk: int
    """Bytes."""
    owner: Path
    """The run or sweep whose it is."""


@dataclass(frozen=True)
class Plan:
    """What to remove, and what is left alone because it runs or cannot be read."""

    items: list[Item]
    kept: list[Record]


def plan_cleaning(root: Path) -> Plan:
    """Looks below `root`; removes nothing.

    Raises:
        ValueError: there is no such folder.
    """
    found = find(root)
    records = [read_record(one) for one in found]
    busy = {record.path for record in records if record.state == "running"}
    broken = {record.path for record in records if record.state == "broken"}
    items = [
        Item(path, why, disk_used(path), one.path)
        for one in found
        if one.path not in broken and not _is_busy(one.path, busy)
        for path, why in _removable(one)
    ]
    if not _is_busy(root, busy):
        shared = [(path, why) for path, why in _caches(root) if all(i.path != path for i in items)]
        items += [Item(path, why, disk_used(path), root) for path, why in shared]
    return Plan(items, [record for record in records if record.path in busy | broken])


def remove(items: Iterable[Item]) -> Iterator[Item]:
    """Removes what `plan_cleaning` found, unless its owner has begun to run since; yields it."""
    for item in items:
        near = [item.owner, *item.owner.parents, *(found.path for found in find(item.owner))]
        if any(occupation(folder) == "held" for folder in near):
            continue
        if item.path.is_dir():
            shutil.rmtree(item.path)
        else:
            item.path.unlink(missing_ok=True)
        yield item


def _is_busy(path: Path, busy: set[Path]) -> bool:
    """What runs may be it, hold it, or share its caches."""
    return any(path == b or path in b.parents or b in path.parents for b in busy)


def _removable(found: Found) -> Iterator[tuple[Path, str]]:
    if found.kind == "evaluation":
        return
    yield from _old_checkpoints(found.path / "checkpoints")
    yield from _leftovers(found.path)
    yield from _leftovers(found.path / "checkpoints")
    if (found.path / "ray").is_dir() and not (found.path / "ray").is_symlink():
        yield found.path / "ray", "Ray's own state: runs go on without it"
    if found.kind == "sweep":
        yield from _caches(found.path)


def _caches(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((folder / "latents").glob("*")):
        if path.suffix == ".safetensors" and path.is_file() and not path.is_symlink():
            yield path, "cached latents: encoded again when needed"
    yield from _leftovers(folder / "latents")


def _old_checkpoints(root: Path) -> Iterator[tuple[Path, str]]:
    """Every checkpoint but the newest whole one; none where no one is whole."""
    written = [path for path in checkpoints_of(root) if not path.is_symlink()]
    for n, newest in enumerate(written):
        if find_damage(newest) is None:
            yield from ((path, "damaged checkpoint") for path in written[:n])
            yield from (
                (path, "older than the newest whole checkpoint") for path in written[n + 1 :]
            )
            return


def _leftovers(folder: Path) -> Iterator[tuple[Path, str]]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if _LEFT_BY_A_KILL.fullmatch(path.name) and not path.is_symlink():
            yield path, "left half-written by a killed process"
