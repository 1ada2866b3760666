"""Local-lambda against convolution and einsum, at the student's three sizes."""

import torch
from _plain import local_lambda
from _ratio import ratio, show

from moebius.blocks import LocalLambda

SIZES = ((64, 320), (32, 640), (16, 1280))


def compare(side: int, dim: int) -> None:
    """Prints the ratios, forward, and forward with backward."""
    operator, size = LocalLambda(dim).eval(), (side, side)
    x = torch.randn(1, side * side, dim)
    with torch.no_grad():
        a, b = local_lambda(operator, x, size), operator(x, size)
        assert (a - b).norm() < 1e-5 * a.norm()
        timed = ratio(lambda: local_lambda(operator, x, size), lambda: operator(x, size))
    show(f"local-lambda {side}x{side} forward", timed)
    operator.train()
    timed = ratio(
        lambda: local_lambda(operator, x, size).sum().backward(),
        lambda: operator(x, size).sum().backward(),
        rounds=3,
    )
    show(f"local-lambda {side}x{side} forward and backward", timed)


if __name__ == "__main__":
    for chosen in SIZES:
        compare(*chosen)
