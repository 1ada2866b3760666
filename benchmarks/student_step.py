"""One denoising step of the 226M student, 512 px, batch 2 (guidance): its inference form."""

import torch
from _plain import plain_operators
from _ratio import ratio, show

import moebius
from moebius.models.denoiser import DenoiserOutput, category_ids


@torch.inference_mode()
def main() -> None:
    """Prints the ratios in float32 and in bfloat16, each to the plain form in float32."""
    model = moebius.build("lmi_dw_mixffn").eval()
    inputs = torch.randn(2, 9, 64, 64), 500, category_ids(torch.tensor([0, 1]))

    def plain() -> DenoiserOutput:
        with plain_operators():
            return model(*inputs)

    for name, dtype in (("float32", None), ("bfloat16", torch.bfloat16)):
        fast = model.optimized(dtype)
        timed = ratio(plain, lambda fast=fast: fast(*inputs), rounds=2)
        show(f"student step, {name} against float32", timed)


if __name__ == "__main__":
    main()
