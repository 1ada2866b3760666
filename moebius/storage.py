"""Where runs are kept: `$MOEBIUS_STORAGE`, else `runs`; never a job's temporary copy."""

import logging
import os
import re
from pathlib import Path

logger = logging.getLogger(__name__)

VARIABLE = "MOEBIUS_STORAGE"
# Ray unpacks a job's --working-dir below this folder and removes it when nothing uses it any more.
TEMPORARY = "runtime_resources"


def runs_folder() -> Path:
    """Where runs are kept that name no folder of their own."""
    return Path(os.environ.get(VARIABLE) or "runs")


def kept_folder(given: Path | None, name: str) -> Path:
    """The folder of a run: the one that was given, or `name` where runs are kept.

    A job that names no place has its runs under the home of whoever runs the cluster, and says so.

    Args:
        given: what `--out` says, if anything.
        name: of the run, below the storage.

    Raises:
        ValueError: the folder is a URL, or would vanish with the job's copy of the working folder.
    """
    storage = os.environ.get(VARIABLE)
    folder = given or runs_folder() / name
    url = re.match(r"[A-Za-z][\w+.-]+:/", str(folder))
    if url is not None:
        raise ValueError(
            f"runs are kept in folders, not under {url.group()}: mount the storage on every node, "
            "see cluster/README.md"
        )
    if TEMPORARY not in folder.absolute().parts:
        return folder
    if given is not None or storage:
        raise ValueError(
            f"{folder} would vanish with this job's copy of the working folder: give an absolute "
            f"path in --out or {VARIABLE}"
        )
    home = Path.home() / "moebius" / "runs" / name
    logger.warning("this job's working folder is a temporary copy: the run is kept in %s", home)
    return home
