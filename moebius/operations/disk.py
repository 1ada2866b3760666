"""Bytes on the disk, counted and written for people."""

import os
from pathlib import Path

UNITS = ("B", "kB", "MB", "GB", "TB")


def disk_used(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; links are not followed."""
    try:
        if not path.is_dir() or path.is_symlink():
            return path.lstat().st_size
        entries = list(os.scandir(path))
    except OSError:  # removed meanwhile, or of someone else
        return 0
    return sum(disk_used(Path(entry.path)) for entry in entries)


def readable(count: int) -> str:
    """`1.4 GB`, in powers of a thousand."""
    size, unit = float(count), UNITS[0]
    for unit in UNITS:
        if size < 999.5 or unit == UNITS[-1]:
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "B" or size >= 99.5 else f"{size:.1f} {unit}"
