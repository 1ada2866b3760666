"""Work that every worker could do, done once: shared out by cost, its results gathered."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, distributed

from moebius.distill.world import World


def share_out(costs: Sequence[float], workers: int) -> list[int]:
    """The worker of each piece: the dearest first, each to whoever has the least to do so far."""
    owners, loads = [0] * len(costs), [0.0] * workers
    for piece in sorted(range(len(costs)), key=lambda piece: -costs[piece]):
        owners[piece] = loads.index(min(loads))
        loads[owners[piece]] += costs[piece]
    return owners


def gather(
    world: World,
    mine: Mapping[int, Tensor],
    owners: Sequence[int],
    shapes: Sequence[torch.Size],
    dtype: torch.dtype,
) -> list[Tensor]:
    """All pieces, on every worker, in one exchange.

    Args:
        world: every worker of it calls, with the same owners, shapes and dtype.
        mine: this worker's pieces by number.
        owners: the worker of each piece.
        shapes: of the pieces.
        dtype: of the pieces.
    """
    if world.size == 1:
        return [mine[piece] for piece in range(len(owners))]
    parts = [[p for p, owner in enumerate(owners) if owner == w] for w in range(world.size)]
    length = max(sum(shapes[piece].numel() for piece in part) for part in parts)
    sent = torch.zeros(length, dtype=dtype, device=world.device)
    for piece, into in _cut(sent, parts[world.rank], shapes):
        into.copy_(mine[piece])
    received = sent.new_empty(world.size * length)
    # As bytes: not every backend knows every type.
    distributed.all_gather_into_tensor(
        received.view(torch.uint8), sent.view(torch.uint8), group=world.group
    )
    found: dict[int, Tensor] = {}
    for part, segment in zip(parts, received.split(length), strict=True):
        found.update(_cut(segment, part, shapes))
    return [found[piece] for piece in range(len(owners))]


def _cut(
    segment: Tensor, pieces: Sequence[int], shapes: Sequence[torch.Size]
) -> list[tuple[int, Tensor]]:
    """Pieces one after the other in a flat tensor, as views of it."""
    views, start = [], 0
    for piece in pieces:
        end = start + shapes[piece].numel()
        views.append((piece, segment[start:end].view(shapes[piece])))
        start = end
    return views
