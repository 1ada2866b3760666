"""In which order a run reads a set: every draw once an epoch, a few shards at a time.

A permutation of all draws would open every shard in every batch, which neither an object store nor
a page cache bears. So the shards are permuted, and the draws within groups of `GROUP` shards. The
shards hold a stream in its own, random order, so what lies together in a shard does not belong
together.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

GROUP = 4
"""Shards that are read at a time."""


class ShardOrder:
    """Where number n of a run's endless stream lies; nothing is kept but the last permutations.

    Args:
        draws: of every shard.
        seed: of the permutations.
        as_drawn: the first epoch takes the draws in the order that they were encoded in.
    """

    def __init__(self, draws: Sequence[int], seed: int, as_drawn: bool) -> None:
        self.draws = np.asarray(draws, np.int64)
        self.seed, self.as_drawn = seed, as_drawn
        self._epochs: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._groups: dict[tuple[int, int], NDArray[np.int64]] = {}

    def __len__(self) -> int:
        """Numbers of an epoch."""
        return int(self.draws.sum())

    def place(self, n: int) -> tuple[int, int]:
        """Shard and row of number n."""
        epoch, position = divmod(n, len(self))
        group = self._group(epoch, position)
        shards, ends = self._epoch(epoch)
        first = group * GROUP
        within = position - int(ends[first - 1] if first else 0)
        row = int(self._permutation(epoch, group)[within])
        for shard in shards[first : first + GROUP]:
            if row < self.draws[shard]:
                return int(shard), row
            row -= int(self.draws[shard])
        raise AssertionError("a group's permutation is as long as its shards")

    def group(self, n: int) -> tuple[int, int]:
        """Epoch and group of number n."""
        epoch, position = divmod(n, len(self))
        return epoch, self._group(epoch, position)

    def following(self, epoch: int, group: int) -> list[int]:
        """The shards that are read after a group."""
        if (group + 1) * GROUP >= len(self.draws):
            epoch, group = epoch + 1, -1
        first = (group + 1) * GROUP
        return [int(shard) for shard in self._epoch(epoch)[0][first : first + GROUP]]

    def _group(self, epoch: int, position: int) -> int:
        ends = self._epoch(epoch)[1]
        return int(np.searchsorted(ends, position, side="right")) // GROUP

    def _epoch(self, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The shards in turn, and the position after each."""
        if epoch not in self._epochs:
            _drop_oldest(self._epochs)
            shards = np.arange(len(self.draws))
            if not self._unshuffled(epoch):
                shards = self._rng(epoch).permutation(shards)
            self._epochs[epoch] = shards, np.cumsum(self.draws[shards])
        return self._epochs[epoch]

    def _permutation(self, epoch: int, group: int) -> NDArray[np.int64]:
        if (epoch, group) not in self._groups:
            _drop_oldest(self._groups)
            shards = self._epoch(epoch)[0][group * GROUP : (group + 1) * GROUP]
            rows = np.arange(self.draws[shards].sum())
            if not self._unshuffled(epoch):
                rows = self._rng(epoch, group).permutation(rows)
            self._groups[epoch, group] = rows
        return self._groups[epoch, group]

    def _unshuffled(self, epoch: int) -> bool:
        return self.as_drawn and epoch == 0

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=key))


def _drop_oldest(kept: dict) -> None:
    # Two meet in the workers' queues, at the border of an epoch or a group.
    if len(kept) == 2:
        kept.pop(next(iter(kept)))
