"""Whole shards on this machine's disk: in their folder, or copied from an object store."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from moebius.data.shards.index import Shard
from moebius.data.shards.order import GROUP
from moebius.data.shards.storage import PARTIAL, LocalStorage, ObjectStorage, readable

KEPT_GROUPS = 2
"""Groups of shards that processes read at once: the border of two may lie in a batch."""
LOCKS = 16


class ShardFiles:
    """Maps shards into memory, each checked once by every process that reads it.

    Copies of an object store's shards are shared by the processes of a machine: one fetches, the
    others wait for it, and the least recently used go when the copies pass their budget.

    Args:
        storage: where the shards lie.
        folder: for copies.
        budget: bytes that copies may take.
    """

    def __init__(self, storage: LocalStorage | ObjectStorage, folder: Path, budget: float) -> None:
        self.storage, self.folder, self.budget = storage, folder, budget
        self._checked: set[str] = set()

    @property
    def copies(self) -> bool:
        """Whether shards are copied to this machine first."""
        return not isinstance(self.storage, LocalStorage)

    def check_budget(self, largest: int) -> None:
        """Refuses a budget that would drop shards while they are read.

        Args:
            largest: bytes of the largest shard.
        """
        # One more group is fetched ahead.
        least = (KEPT_GROUPS + 1) * GROUP * largest
        if self.copies and self.budget < least:
            raise ValueError(
                f"data.latents_cache is {self.budget / 1e9:g} GB: reading {self.storage.place} "
                f"takes {least / 1e9:.2g} GB or more"
            )

    def load(self, shard: Shard) -> dict[str, Tensor]:
        """A shard's tensors, mapped: only the pages that are read take memory.

        Raises:
            ValueError: the shard is missing, damaged or truncated.
        """
        if isinstance(self.storage, LocalStorage):
            return self._map(shard, self.storage.folder / shard.name)
        with self._lock(shard):
            return self._map(shard, self._copy(shard))

    def fetch(self, shard: Shard) -> None:
        """Copies a shard that will be read soon."""
        if self.copies:
            with self._lock(shard):
                self._copy(shard)

    def _map(self, shard: Shard, path: Path) -> dict[str, Tensor]:
        with readable(self.storage, f"shard {shard.name}"):
            if shard.name not in self._checked:
                with path.open("rb") as file:
                    self._check(shard, hashlib.file_digest(file, "sha256").hexdigest())
            try:
                with safe_open(path, "pt") as file:
                    return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            except SafetensorError as error:
                raise ValueError(f"shard {shard.name} at {self.storage.place}: {error}") from None

    def _copy(self, shard: Shard) -> Path:
        """The path of a shard's whole copy."""
        path = self.folder / shard.name
        if path.is_file() and not self._is_whole(shard, path):
            path.unlink()
        if not path.is_file():
            data = self.storage.read(shard.name)
            self._check(shard, hashlib.sha256(data).hexdigest())
            partial = path.with_name(path.name + PARTIAL)
            partial.write_bytes(data)
            os.replace(partial, path)
            self._drop_oldest()
        os.utime(path)
        return path

    def _is_whole(self, shard: Shard, path: Path) -> bool:
        if shard.name in self._checked:
            return True
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == shard.sha256

    def _check(self, shard: Shard, sha256: str) -> None:
        if sha256 != shard.sha256:
            raise ValueError(
                f"shard {shard.name} at {self.storage.place} does not match its checksum: delete "
                "it and run `python -m moebius.encode` again"
            )
        self._checked.add(shard.name)

    def _drop_oldest(self) -> None:
        files = [path for path in self.folder.iterdir() if "-" in path.name]
        stats = {path: path.stat() for path in files}
        used = sum(stat.st_size for stat in stats.values())
        for path in sorted(files, key=lambda path: stats[path].st_mtime):
            if used <= self.budget:
                return
            # Whoever has it mapped still reads it.
            path.unlink(missing_ok=True)
            used -= stats[path].st_size

    @contextmanager
    def _lock(self, shard: Shard) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        number = int(shard.name.partition("-")[0]) % LOCKS
        with (self.folder / f"lock{number}").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield
