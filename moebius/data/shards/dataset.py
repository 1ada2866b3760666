"""Encoded draws as training reads them; no photograph is opened, no codec runs."""

from __future__ import annotations

import threading
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from moebius.data.latents import LatentSample
from moebius.data.shards.files import KEPT_GROUPS, ShardFiles
from moebius.data.shards.index import Index, read_index
from moebius.data.shards.order import GROUP, ShardOrder
from moebius.data.shards.storage import open_storage

COPIES = Path("~/.cache/moebius/latents")


class StoredLatents(Dataset[LatentSample]):
    """An endless, numbered stream over a set of shards, in the place of `InpaintingSamples`.

    An epoch is every draw of the set once: each photograph `masks` times, each time with its own
    crop and hole. Number n is the same draw in every process, for any number of workers, so
    `Numbers` shares it out and a resumed run goes on at n. With the seed that the set was encoded
    with, the first epoch is the stream that was encoded, draw for draw; any other is shuffled, see
    `ShardOrder`.

    Args:
        place: folder or URL that `python -m moebius.encode` filled.
        seed: of the order.
        cache_bytes: for copies of an object store's shards on this machine.
        copies: their folder.

    Raises:
        ValueError: no index, or a damaged one; `cache_bytes` is too small.
    """

    def __init__(
        self, place: str, seed: int, cache_bytes: float = 32e9, copies: Path = COPIES
    ) -> None:
        storage = open_storage(place)
        self.place = place
        self.index: Index = read_index(storage)
        self.order = ShardOrder(
            [shard.draws for shard in self.index.shards],
            seed,
            as_drawn=seed == self.index.encoding.spec.get("seed"),
        )
        self._files = ShardFiles(storage, copies.expanduser(), cache_bytes)
        self._files.check_budget(max(shard.bytes for shard in self.index.shards))
        self._mapped: OrderedDict[int, dict[str, Tensor]] = OrderedDict()
        self._ahead: tuple[int, int] | None = None

    @property
    def start_method(self) -> str | None:
        """How loader processes must start: clients of object stores do not survive a fork."""
        return "spawn" if self._files.copies else None

    def __len__(self) -> int:
        """Draws of an epoch; numbers beyond it belong to later epochs."""
        return len(self.order)

    def __getitem__(self, n: int) -> LatentSample:
        """Number n of the stream, in the precision that it is stored in.

        Raises:
            ValueError: its shard is missing or damaged.
        """
        shard, row = self.order.place(n)
        self._look_ahead(n)
        stored = self._shard(shard)
        return LatentSample(
            clean=stored["clean"][row],
            masked=stored["masked"][row],
            mask=stored["mask"][row],
            category=stored["category"][row].long(),
        )

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_mapped": OrderedDict(), "_ahead": None}

    def _shard(self, number: int) -> dict[str, Tensor]:
        if number not in self._mapped:
            self._mapped[number] = self._files.load(self.index.shards[number])
            if len(self._mapped) > KEPT_GROUPS * GROUP:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(number)
        return self._mapped[number]

    def _look_ahead(self, n: int) -> None:
        """Fetches the next group of shards while this one is read."""
        group = self.order.group(n)
        if self._files.copies and group != self._ahead:
            self._ahead = group
            shards = self.order.following(*group)
            threading.Thread(None, self._fetch, "ahead", (shards,), daemon=True).start()

    def _fetch(self, shards: list[int]) -> None:
        # What is wrong with a shard is said by whoever reads it.
        with suppress(ValueError, OSError):
            for number in shards:
                self._files.fetch(self.index.shards[number])
