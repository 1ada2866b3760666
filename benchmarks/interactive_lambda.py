"""Interactive-lambda against Eq. 2 in its own order, and with its context kept (inference)."""

import torch
from _plain import interactive_lambda
from _ratio import CASES, DEVICE, ratio, show

from moebius.blocks import InteractiveLambda
from moebius.models.inference_forms import FoldedInteractiveLambda

SIZES = ((64, 320), (32, 640), (16, 1280))
KEPT, BOTH = 3.0, 2.5
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def compare(side: int, dim: int, dtype: torch.dtype, batch: int) -> None:
    """Shows the ratios: forward with the context kept, and forward with backward."""
    size = (side, side)
    operator = InteractiveLambda(dim, 768, size=size).eval().to(DEVICE, dtype)
    kept = FoldedInteractiveLambda(operator)
    x = torch.randn(batch, side * side, dim, device=DEVICE, dtype=dtype)
    context = torch.randn(batch, 10, 768, device=DEVICE, dtype=dtype)
    name = f"interactive-lambda {side}x{side}, {str(dtype).removeprefix('torch.')}, batch {batch}"
    with torch.no_grad():
        a, b = interactive_lambda(operator, x, context, size), kept(x, context, size)
        assert (a - b).norm() < TOLERANCE[dtype] * a.norm()
        timed = ratio(
            lambda: interactive_lambda(operator, x, context, size),
            lambda: kept(x, context, size),
        )
        show(f"{name}, forward, context kept", timed, at_least=KEPT)
    operator.train()
    timed = ratio(
        lambda: interactive_lambda(operator, x, context, size).sum().backward(),
        lambda: operator(x, context, size).sum().backward(),
        rounds=3,
    )
    show(f"{name}, forward and backward", timed, at_least=BOTH)


if __name__ == "__main__":
    for case in CASES:
        for chosen in SIZES:
            compare(*chosen, *case)
