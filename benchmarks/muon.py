"""Muon's step for the 226M student's matrices: equal shapes together against one by one."""

from collections import Counter

import torch
from _ratio import ratio, show

import moebius
from moebius.distill.optimizer import orthogonalize, split_parameters


@torch.no_grad()
def main() -> None:
    """Prints the ratio for the matrices of at most a hundred thousand entries, and for all."""
    with torch.device("meta"):
        matrices = split_parameters(moebius.build("lmi_dw_mixffn"))[0]
    shapes = Counter(matrix.flatten(1).shape for matrix in matrices)
    for name, largest in (("small matrices", 10**5), ("all matrices", 10**9)):
        stacks = [torch.randn(n, *s) for s, n in shapes.items() if s.numel() <= largest]

        def alone(stacks: list[torch.Tensor] = stacks) -> None:
            for stack in stacks:
                for matrix in stack:
                    orthogonalize(matrix)

        def together(stacks: list[torch.Tensor] = stacks) -> None:
            for stack in stacks:
                orthogonalize(stack)

        show(f"Newton-Schulz, {name} ({sum(map(len, stacks))})", ratio(alone, together, rounds=2))


if __name__ == "__main__":
    main()
