"""One of W workers that step Muon with equal gradients (by test_sharing.py): RANK SIZE FOLDER."""

import sys
from pathlib import Path

import torch
from torch import Tensor, distributed, nn

from moebius.distill import optimizer as module
from moebius.distill.optimizer import Muon
from moebius.distill.world import World

# Some shapes more often than others, one flattened from a convolution, fewer than two for each.
SHAPES = [(24, 8), (8, 24), (8, 24), (8, 24), (8, 6, 2, 2), (5, 3), (40, 40)]
STEPS = 3


def make(world: World | None) -> tuple[list[nn.Parameter], Muon]:
    """Parameters that start alike everywhere, one of them for AdamW."""
    generator = torch.Generator().manual_seed(0)
    parameters = [nn.Parameter(torch.randn(s, generator=generator)) for s in [*SHAPES, (7,)]]
    return parameters, Muon(parameters[:-1], parameters[-1:], 1e-2, world=world)


def take_steps(parameters: list[nn.Parameter], optimizer: Muon, steps: range) -> None:
    """Updates by gradients that depend on the step alone."""
    for step in steps:
        generator = torch.Generator().manual_seed(1 + step)
        for parameter in parameters:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()


def main(rank: int, size: int, folder: Path) -> None:
    """Steps, and saves weights, state and how many matrices were orthogonalised here."""
    store = f"file://{folder / 'store'}"
    distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=size)
    counted: list[int] = []
    orthogonalize = module.orthogonalize

    def counting(stack: Tensor) -> Tensor:
        counted.append(len(stack))
        return orthogonalize(stack)

    module.orthogonalize = counting
    parameters, optimizer = make(World.current())
    take_steps(parameters, optimizer, range(STEPS))
    weights = [parameter.detach() for parameter in parameters]
    torch.save((weights, optimizer.state_dict(), sum(counted)), folder / f"rank{rank}.pt")
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
