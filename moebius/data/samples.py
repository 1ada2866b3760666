"""Crops with holes: what a model trains on and is scored on (protocols 2.3, traps 17 and 18)."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from moebius.data.holes import draw_hole
from moebius.data.limits import within
from moebius.data.manifest import Record
from moebius.data.pictures import Pictures
from moebius.data.sample_spec import SampleSpec
from moebius.data.transforms import UnreadableImage, to_tensor

__all__ = ["CATEGORIES", "InpaintingSamples", "Sample", "SampleSpec", "fixed_pairs"]

logger = logging.getLogger(__name__)

CATEGORIES = ("background", "foreground")
DRAWS_PER_PAIR = 100
"""Samples that `fixed_pairs` looks at for each pair before it gives up."""


class Sample(TypedDict):
    """One crop; a DataLoader's default collation stacks it."""

    image: torch.Tensor
    """float32 (3, size, size), RGB in [-1, 1], without the hole cut out."""
    mask: torch.Tensor
    """float32 (1, size, size), 1 = hole."""
    category: torch.Tensor
    """int64 scalar, an index into `CATEGORIES`."""
    index: int
    """What `InpaintingSamples.draw` takes to draw it again in its epoch."""
    name: str
    """Name of the record that it shows."""


class InpaintingSamples(Dataset[Sample]):
    """An endless, numbered stream of samples.

    Sample number n is always the same: epoch n // len, item n % len of that epoch's permutation.
    So a run resumes by going on at n, and workers share the stream by taking disjoint numbers.
    An epoch, `len`, holds every record once, and the foreground ones more often where
    `foreground_share` asks for it.

    A record whose picture or mask cannot be read is named once in the log, and the next readable
    one of the epoch's permutation stands in for it. Each process keeps its own count.

    Args:
        records: what to draw from.
        spec: how to draw.
        max_unreadable: share of the records above which a draw fails.
        timeout_s: seconds that one picture and its mask may take to be read; `None` is for ever.

    Raises:
        ValueError: no records, or `extra_foreground_mask` without a foreground record.
    """

    def __init__(
        self,
        records: Sequence[Record],
        spec: SampleSpec,
        max_unreadable: float = 0.01,
        timeout_s: float | None = None,
    ) -> None:
        if not records:
            raise ValueError("no records to draw samples from")
        self.records = list(records)
        self.spec = spec
        self.max_unreadable, self.timeout_s = max_unreadable, timeout_s
        self._foreground = [n for n, r in enumerate(self.records) if r.category == "foreground"]
        self._objects = [r.mask for r in self.records if r.category == "foreground" and r.mask]
        if spec.extra_foreground_mask and not self._foreground:
            raise ValueError("extra_foreground_mask needs foreground records: there are none")
        self._repeats = self._count_repeats()
        self._reasons: dict[int, str] = {}
        self._orders: dict[int, NDArray[np.int64]] = {}
        self._pictures = Pictures()

    def __len__(self) -> int:
        """Items of an epoch; numbers beyond it belong to later epochs."""
        return len(self.records) + self._repeats

    def __getitem__(self, n: int) -> Sample:
        """Draw sample number n of the stream."""
        return self.draw(*self.stream_position(n))

    @property
    def unreadable(self) -> list[str]:
        """Names of the records that this process found unreadable."""
        return [self.records[n].name for n in self._reasons]

    def stream_position(self, n: int) -> tuple[int, int]:
        """Epoch and index of sample number n, the arguments of `draw`."""
        epoch, position = divmod(n, len(self))
        return epoch, int(self._order(epoch)[position])

    def draw(self, epoch: int, index: int) -> Sample:
        """Draw one sample, which depends on nothing but (seed, epoch, index) and the files.

        Raises:
            ValueError: more than `max_unreadable` of the records cannot be read.
            TimeoutError: a record takes longer than `timeout_s`.
        """
        for item in self._stand_ins(epoch, index):
            number = self._record_number(item)
            if number in self._reasons:
                continue
            # A fresh generator: what stands in must not depend on when the failure was noticed.
            draw = partial(self._draw_record, self.records[number], index, self._rng(epoch, index))
            try:
                return within(self.timeout_s, self._hanging(number), draw)
            except UnreadableImage as error:
                self._note_unreadable(number, error)
        raise ValueError(f"none of the {len(self.records)} images can be read: check the data")

    def _count_repeats(self) -> int:
        """Smallest r with (foreground + r) / (records + r) >= share."""
        if not self._foreground:
            return 0
        share = self.spec.foreground_share
        missing = share * len(self.records) - len(self._foreground)
        # Less a little, so that rounding does not turn an exact whole number into the next one.
        return max(0, math.ceil(missing / (1 - share) - 1e-9))

    def _record_number(self, item: int) -> int:
        repeat = item - len(self.records)
        return item if repeat < 0 else self._foreground[repeat % len(self._foreground)]

    def _rng(self, *key: int) -> np.random.Generator:
        # As a spawn key, (epoch,) and (epoch, 0) are different streams; plain entropy is padded.
        return np.random.default_rng(np.random.SeedSequence(self.spec.seed, spawn_key=key))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        if epoch not in self._orders:
            # Two epochs meet in the workers' queues; older ones are not needed again.
            if len(self._orders) == 2:
                self._orders.pop(next(iter(self._orders)))
            self._orders[epoch] = self._rng(epoch).permutation(len(self))
        return self._orders[epoch]

    def _stand_ins(self, epoch: int, index: int) -> Iterator[int]:
        """The item itself, then those after it in the permutation of its epoch."""
        yield index
        order = self._order(epoch)
        place = int(np.flatnonzero(order == index)[0])
        yield from (int(item) for item in np.roll(order, -place)[1:])

    def _hanging(self, number: int) -> str:
        record = self.records[number]
        return f"reading {record.name} ({record.image}; data.timeout_s is the limit)"

    def _note_unreadable(self, number: int, error: UnreadableImage) -> None:
        self._reasons[number] = str(error)
        logger.warning("skipped %s: %s", self.records[number].name, error)
        count, total = len(self._reasons), len(self.records)
        if count > self.max_unreadable * total:
            first = "; ".join(list(self._reasons.values())[:3])
            raise ValueError(
                f"{count} of {total} images are unreadable, more than the allowed share of "
                f"{self.max_unreadable:g} (max_unreadable): repair or remove them. First: {first}"
            ) from error

    def _draw_record(self, record: Record, index: int, rng: np.random.Generator) -> Sample:
        low, high = self.spec.short_sides
        image = self._pictures.resized(record.image, int(rng.integers(low, high + 1)))
        hole, top, left = draw_hole(record, self._objects, self.spec, image.size, rng)
        box = (left, top, left + self.spec.size, top + self.spec.size)
        pixels = np.asarray(image.crop(box))
        if rng.random() < self.spec.flip_probability:
            pixels, hole = pixels[:, ::-1], hole[:, ::-1]
        if rng.random() < self.spec.channel_shuffle_probability:
            pixels = pixels[..., rng.permutation(3)]
        return Sample(
            image=to_tensor(pixels),
            mask=torch.from_numpy(hole.astype(np.float32)).unsqueeze(0),
            category=torch.tensor(CATEGORIES.index(record.category)),
            index=index,
            name=record.name,
        )


def fixed_pairs(
    records: Sequence[Record],
    spec: SampleSpec,
    count: int,
    seed: int,
    timeout_s: float | None = None,
) -> list[Sample]:
    """Draw the crops and holes of a validation set, as they are: no flips, no dilation.

    Args:
        records: what to draw from, in turn.
        spec: how to draw; its `seed` is not used.
        count: how many pairs.
        seed: the same seed gives the same pairs.
        timeout_s: seconds that one picture and its mask may take to be read.

    Returns:
        `count` samples whose holes take from 0.1 to 0.5 of the crop.

    Raises:
        ValueError: too few such holes turn up, or too many records are unreadable.
    """
    spec = replace(
        spec,
        seed=seed,
        max_hole=0.5,
        dilation_probability=0.0,
        flip_probability=0.0,
        channel_shuffle_probability=0.0,
    )
    samples = InpaintingSamples(records, spec, timeout_s=timeout_s)
    pairs: list[Sample] = []
    for n in range(DRAWS_PER_PAIR * count):
        if len(pairs) == count:
            break
        sample = samples[n]
        if 0.1 <= float(sample["mask"].mean()) <= 0.5:
            pairs.append(sample)
    if len(pairs) < count:
        raise ValueError(
            f"only {len(pairs)} of {count} holes take 0.1 to 0.5 of the crop: "
            "choose another background_mask or other records"
        )
    return pairs
