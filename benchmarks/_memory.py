"""What this process holds and held at most, as Linux counts it.

`getrusage` will not do: its maximum begins with that of the process that started this one.
"""

import ctypes
import gc
from pathlib import Path

PROCESS = Path("/proc/self")


def resident() -> int:
    """Bytes that this process holds now; `peak` begins anew.

    What the heap has free goes back first: what is measured next would fill it unseen.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    (PROCESS / "clear_refs").write_text("5")
    return _bytes("VmRSS")


def peak() -> int:
    """The most bytes that it held since `resident` was called, or since it began."""
    return _bytes("VmHWM")


def _bytes(key: str) -> int:
    lines = (PROCESS / "status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))
