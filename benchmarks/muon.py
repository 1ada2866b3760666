"""Muon's step for the 226M student's matrices: equal shapes together against one by one."""

from collections import Counter

import torch
from _ratio import ratio, show

import moebius
from moebius.distill.optimizer import orthogonalize, split_parameters

SMALL = 10**5
"""Entries."""


@torch.no_grad()
def main() -> None:
    """Prints the ratio for the matrices that are small enough for a call to cost more than work."""
    with torch.device("meta"):
        matrices = split_parameters(moebius.build("lmi_dw_mixffn"))[0]
    shapes = Counter(matrix.flatten(1).shape for matrix in matrices)
    stacks = [torch.randn(n, *shape) for shape, n in shapes.items() if shape.numel() <= SMALL]

    def alone() -> None:
        for stack in stacks:
            for matrix in stack:
                orthogonalize(matrix)

    def together() -> None:
        for stack in stacks:
            orthogonalize(stack)

    count = sum(map(len, stacks))
    show(f"Newton-Schulz, {count} small matrices", ratio(alone, together, rounds=2))


if __name__ == "__main__":
    main()
