"""Seconds and peak memory of the pipeline for photographs of 512 px, 2048 px and 24 megapixels.

The released denoiser's size and a codec of SDXL's shape, both with made-up weights, which time and
memory do not depend on. One process a photograph, so that each has its own peak. The hole's side is
a quarter of the photograph's shorter side, but 128 px in the 24-megapixel one: that shall cost
little more than the 512 px photograph. Steps are few; 20 are extrapolated from them. The ratio of
times is that of CPU time, which a busy machine changes less.
"""

import json
import subprocess
import sys
import time

import torch
from _made_up import made_up_vae
from _memory import peak
from PIL import Image
from skimage import data

from moebius.inference.pipeline import InpaintPipeline
from moebius.models.denoiser import build
from moebius.models.schedule import build_scheduler

STEPS = 2
PHOTOGRAPHS = {  # name: (width, height, side of the hole)
    "512 px": (512, 512, 128),
    "2048 px": (2048, 2048, 512),
    "24 MP, hole of 128 px": (6000, 4000, 128),
}


def made_up_pipeline() -> InpaintPipeline:
    """226M parameters, and an autoencoder of 128-256-512-512 channels."""
    vae = made_up_vae(scaling_factor=0.13025)
    pipeline = InpaintPipeline(build("lmi_dw_mixffn").eval(), vae, build_scheduler())
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def photograph(width: int, height: int) -> Image.Image:
    """A built-in photograph, laid side by side until the picture is full."""
    tile, picture = Image.fromarray(data.astronaut()), Image.new("RGB", (width, height))
    for top in range(0, height, tile.height):
        for left in range(0, width, tile.width):
            picture.paste(tile, (left, top))
    return picture


def measure(width: int, height: int, side: int) -> dict[str, float]:
    """Fills one hole in the middle; seconds (of the call, of a step, of CPU) and peak GiB."""
    pipeline, picture = made_up_pipeline(), photograph(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    ends: list[float] = []
    begin, cpu = time.perf_counter(), time.process_time()
    pipeline(
        picture,
        [(left, top, left + side, top + side)],
        num_inference_steps=STEPS,
        callback_on_step_end=lambda *_: ends.append(time.perf_counter()),
    )
    seconds, cpu = time.perf_counter() - begin, time.process_time() - cpu
    step = (ends[-1] - ends[0]) / (len(ends) - 1)
    held = peak() / 2**30
    return {
        "seconds": seconds,
        "cpu": cpu,
        "step": step,
        "peak_gib": held,
    }


def main() -> None:
    """Prints a line a photograph, and the ratios to the first."""
    results = {}
    for name, sizes in PHOTOGRAPHS.items():
        command = [sys.executable, __file__, *map(str, sizes)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        results[name] = result = json.loads(done.stdout)
        base = results["512 px"]
        whole = result["seconds"] + (20 - STEPS) * result["step"]
        print(
            f"{name}: {STEPS} steps {result['seconds']:.1f} s (CPU {result['cpu']:.1f} s), "
            f"a step {result['step']:.1f} s, "
            f"20 steps about {whole:.0f} s; peak {result['peak_gib']:.2f} GiB; "
            f"ratio to 512 px: time {result['cpu'] / base['cpu']:.2f}, "
            f"memory {result['peak_gib'] / base['peak_gib']:.2f}",
            flush=True,
        )
    print(f"made-up weights, float32, {torch.get_num_threads()} threads")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(*map(int, sys.argv[1:]))))
    else:
        main()
