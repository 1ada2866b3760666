"""Growth of a student step from 512 px to 1024 and 2048 px, batch 1: time and memory.

Memory is what a step needs beyond the weights. One process a size, so that each has its own peak.
"""

import json
import subprocess
import sys

import torch
from _memory import peak, resident
from _ratio import DEVICE, seconds, show

import moebius
from moebius.models.denoiser import category_ids

ROUNDS = {512: 3, 1024: 2, 2048: 1}
TARGETS = {1024: 4.3, 2048: 18.0}
CELL = 8


@torch.inference_mode()
def measure(side: int) -> dict[str, float]:
    """Seconds of a step, its context kept, and bytes beyond the weights."""
    fast = moebius.build("lmi_dw_mixffn").eval().to(DEVICE).optimized()
    sample = torch.randn(1, 9, side // CELL, side // CELL, device=DEVICE)
    ids = category_ids(torch.tensor([0], device=DEVICE))
    before = torch.cuda.memory_allocated() if DEVICE.type == "cuda" else resident()
    times = [seconds(lambda: fast(sample, 500, ids)) for _ in range(ROUNDS[side] + 1)]
    most = torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else peak()
    return {"seconds": min(times[1:]), "bytes": most - before}


def main() -> None:
    """Shows both ratios to 512 px."""
    measured = {}
    for side in ROUNDS:
        done = subprocess.run(
            [sys.executable, __file__, str(side)], stdout=subprocess.PIPE, text=True, check=True
        )
        measured[side] = json.loads(done.stdout)
    base = measured[512]
    for side, target in TARGETS.items():
        for key, unit, scale in (("seconds", "s", 1), ("bytes", "GiB", 2**30)):
            large, small = measured[side][key] / scale, base[key] / scale
            name = f"student step {side} px to 512 px, {'time' if unit == 's' else 'memory'}"
            show(name, (large, small, large / small), at_most=target, unit=unit)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
