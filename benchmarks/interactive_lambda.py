"""Interactive-lambda against Eq. 2 in its own order, and with its context kept (inference)."""

import torch
from _plain import interactive_lambda
from _ratio import ratio, show
from torch import Tensor

from moebius.blocks import InteractiveLambda
from moebius.models.optimized import FoldedInteractiveLambda

SIZES = ((64, 320), (32, 640), (16, 1280))


def compare(side: int, dim: int, context: Tensor) -> None:
    """Prints the ratios: forward with the context kept, and forward with backward."""
    size = (side, side)
    operator = InteractiveLambda(dim, 768, size=size).eval()
    kept = FoldedInteractiveLambda(operator)
    x = torch.randn(1, side * side, dim)
    with torch.no_grad():
        a, b = interactive_lambda(operator, x, context, size), kept(x, context, size)
        assert (a - b).norm() < 1e-5 * a.norm()
        timed = ratio(
            lambda: interactive_lambda(operator, x, context, size),
            lambda: kept(x, context, size),
        )
        show(f"interactive-lambda {side}x{side} forward, context kept", timed)
        projection = ratio(lambda: operator.to_q(x.mT.unsqueeze(3)), lambda: kept.to_q(x))
        show("  of which its query projection", projection)
    operator.train()
    timed = ratio(
        lambda: interactive_lambda(operator, x, context, size).sum().backward(),
        lambda: operator(x, context, size).sum().backward(),
        rounds=3,
    )
    show(f"interactive-lambda {side}x{side} forward and backward", timed)


if __name__ == "__main__":
    rows = torch.randn(1, 10, 768)
    for chosen in SIZES:
        compare(*chosen, rows)
