"""One denoising step of the 226M student, 512 px: its inference form against the plain one.

On a CPU with batch 2 (guidance), in float32 and bfloat16, each against the plain form in float32.
On a GPU in bfloat16 with batch 1 and 48: eager, compiled and as a CUDA graph, against the plain
form in bfloat16; and milliseconds a step and pictures a second of 20 steps (the paper: 26.01 ms a
step on an L40S).
"""

import torch
from _plain import plain_operators
from _ratio import DEVICE, ratio, show

import moebius
from moebius.models.denoiser import Denoiser, DenoiserOutput, category_ids

STEPS = 20
SIDE = 64
GPU_FORMS = {
    "eager": {},
    "compiled": {"compile": True},
    "CUDA graph": {"graph": True},
    "compiled, CUDA graph": {"compile": True, "graph": True},
}


def inputs(batch: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Made-up latents, one timestep, and both categories in turns."""
    sample = torch.randn(batch, 9, SIDE, SIDE, device=DEVICE)
    ids = category_ids(torch.arange(batch, device=DEVICE) % 2)
    return sample, torch.tensor(500, device=DEVICE), ids


def plain_step(model: Denoiser, *given: torch.Tensor) -> DenoiserOutput:
    """With both operators as they are written down."""
    with plain_operators():
        return model(*given)


def on_cpu(model: Denoiser) -> None:
    """Shows the ratios in float32 and in bfloat16, each to the plain form in float32."""
    given = inputs(2)
    for name, dtype, target in (("float32", None, 2.0), ("bfloat16", torch.bfloat16, 3.0)):
        fast = model.optimized(dtype)
        timed = ratio(lambda: plain_step(model, *given), lambda fast=fast: fast(*given), rounds=2)
        show(f"student step 512 px, batch 2, {name} against float32", timed, at_least=target)


def on_gpu(model: Denoiser) -> None:
    """Shows every form's ratio in bfloat16, and what a step and a picture cost."""
    half = model.to(torch.bfloat16)
    for batch in (1, 48):
        sample, timestep, ids = inputs(batch)
        given = sample.bfloat16(), timestep, ids
        for name, options in GPU_FORMS.items():
            fast = half.optimized(**options)
            timed = ratio(
                lambda given=given: plain_step(half, *given),
                lambda fast=fast, given=given: fast(*given),
                rounds=20,
            )
            show(f"student step 512 px, batch {batch}, bfloat16, {name}", timed)
            pictures = batch / (STEPS * timed[1])
            print(
                f"  {1000 * timed[1]:.2f} ms a step, {pictures:.2f} pictures a second", flush=True
            )


@torch.inference_mode()
def main() -> None:
    """Shows what the device at hand is measured by."""
    model = moebius.build("lmi_dw_mixffn").eval().to(DEVICE)
    (on_cpu if DEVICE.type == "cpu" else on_gpu)(model)


if __name__ == "__main__":
    main()
