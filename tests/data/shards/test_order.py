"""The order of an epoch: every draw once, a few shards at a time, for any number of workers."""

from itertools import pairwise

import pytest

from moebius.data.latents import Numbers
from moebius.data.shards.order import GROUP, ShardOrder

SETS = ([5], [4, 4, 4, 2], [3] * 9 + [1], [1] * 13, [64] * 40 + [7])


def epoch(order: ShardOrder, number: int) -> list[tuple[int, int]]:
    return [order.place(number * len(order) + n) for n in range(len(order))]


def everything(draws: list[int]) -> set[tuple[int, int]]:
    return {(shard, row) for shard, count in enumerate(draws) for row in range(count)}


@pytest.mark.parametrize("draws", SETS, ids=len)
@pytest.mark.parametrize("as_drawn", [True, False])
def test_every_draw_comes_once_an_epoch(draws: list[int], as_drawn: bool):
    order = ShardOrder(draws, 0, as_drawn)
    epochs = [epoch(order, number) for number in range(3)]
    for taken in epochs:
        assert len(taken) == sum(draws) and set(taken) == everything(draws)
    if sum(draws) > 10:
        assert epochs[0] != epochs[1] != epochs[2]
    assert (epochs[0] == sorted(epochs[0])) == as_drawn


@pytest.mark.parametrize("as_drawn", [True, False])
def test_a_number_is_the_same_draw_whatever_was_asked_before(as_drawn: bool):
    draws = SETS[2]
    asked = epoch(ShardOrder(draws, 5, as_drawn), 1)
    order = ShardOrder(draws, 5, as_drawn)
    for n in (40, 3, 28, 55, 29, 0, 27):
        place = order.place(n)
        if n // len(order) == 1:
            assert place == asked[n % len(order)]
    other = ShardOrder(draws, 6, as_drawn)
    assert epoch(other, 1) != asked


def test_few_shards_are_open_at_a_time():
    order = ShardOrder([16] * 23, 1, as_drawn=False)
    taken = epoch(order, 0)
    for first in range(0, len(taken), GROUP * 16):
        group = taken[first : first + GROUP * 16]
        assert len({shard for shard, _ in group}) <= GROUP
        # Mixed, not one shard after the other.
        assert len({shard for shard, _ in group[:16]}) > 1 or len(group) < 32
    assert [shard for shard, _ in taken] != sorted(shard for shard, _ in taken)


def test_what_follows_a_group_is_known_ahead():
    draws = [3] * 10
    order = ShardOrder(draws, 2, as_drawn=True)
    groups: dict[tuple[int, int], set[int]] = {}
    for n in range(2 * len(order)):
        groups.setdefault(order.group(n), set()).add(order.place(n)[0])
    keys = list(groups)
    assert keys == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    for known, following in pairwise(keys):
        assert set(order.following(*known)) == groups[following]


@pytest.mark.parametrize("sizes", [(1, 1), (1, 2), (4, 1), (2, 6), (3, 4)])
def test_an_epoch_is_whole_over_a_resume_with_other_workers(sizes: tuple[int, int]):
    """24 draws in steps of 12: two steps an epoch, the second taken by another number of workers,
    each with its own order and its own loaders."""
    draws, taken = [5, 5, 5, 5, 4], list[tuple[int, int]]()
    for step, workers in enumerate(sizes, start=2):  # the second epoch
        for rank in range(workers):
            order = ShardOrder(draws, 7, as_drawn=True)
            for batch in Numbers(step, step + 1, 12, 12 // workers, rank, workers):
                taken += [order.place(n) for n in batch]
    assert len(taken) == 24 and set(taken) == everything(draws)
    alone = ShardOrder(draws, 7, as_drawn=True)
    assert taken == epoch(alone, 1)
