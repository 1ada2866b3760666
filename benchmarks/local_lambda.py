"""Local-lambda against convolution and einsum, at the student's three sizes.

The forward pass alone is that of inference, in the form of `Denoiser.optimized`.
"""

import torch
from _plain import local_lambda
from _ratio import CASES, DEVICE, ratio, show

from moebius.blocks import LocalLambda
from moebius.models.inference_forms import FoldedLocalLambda

SIZES = ((64, 320, 3.0), (32, 640, 3.0), (16, 1280, 6.0))
"""Side, channels, and what the forward pass shall gain."""
BOTH = 2.5
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


def compare(side: int, dim: int, target: float, dtype: torch.dtype, batch: int) -> None:
    """Shows the ratios, forward, and forward with backward."""
    operator, size = LocalLambda(dim).eval().to(DEVICE, dtype), (side, side)
    x = torch.randn(batch, side * side, dim, device=DEVICE, dtype=dtype)
    folded = FoldedLocalLambda(operator)
    with torch.no_grad():
        a, b = local_lambda(operator, x, size), folded(x, size)
        assert (a - b).norm() < TOLERANCE[dtype] * a.norm()
        timed = ratio(lambda: local_lambda(operator, x, size), lambda: folded(x, size))
    name = f"local-lambda {side}x{side}, {str(dtype).removeprefix('torch.')}, batch {batch}"
    show(f"{name}, forward", timed, at_least=target)
    operator.train()
    timed = ratio(
        lambda: local_lambda(operator, x, size).sum().backward(),
        lambda: operator(x, size).sum().backward(),
        rounds=3,
    )
    show(f"{name}, forward and backward", timed, at_least=BOTH)


if __name__ == "__main__":
    for case in CASES:
        for chosen in SIZES:
            compare(*chosen, *case)
