"""Where runs are kept: `$MOEBIUS_STORAGE`, else `runs`; never a job's temporary copy.

That is a folder that every node sees, or a URL of an object store, see `moebius.data.copies`.
"""

import logging
import os
import re
from pathlib import Path
from uuid import uuid4

from moebius.data.copies import bring, open_place
from moebius.data.origins import probe
from moebius.data.shards.storage import first_line
from moebius.data.urls import is_url, join, parent_of

logger = logging.getLogger(__name__)

VARIABLE = "MOEBIUS_STORAGE"
# Ray unpacks a job's --working-dir below this folder and removes it when nothing uses it any more.
TEMPORARY = "runtime_resources"
LEFT_THERE = ("checkpoints", "ray", "model", "latents", "tensorboard")
"""What a driver does not need of a run in an object store."""


def runs_folder() -> str | Path:
    """Where runs are kept that name no folder of their own."""
    place = os.environ.get(VARIABLE) or "runs"
    return place if is_url(place) else Path(place)


def run_folder(given: str | Path | None, name: str) -> Path:
    """The folder of a run as in `kept_folder`; of a URL, the driver's copy, brought here.

    What is large, and a driver seldom needs, stays there (`LEFT_THERE`).

    Raises:
        ValueError: as in `kept_folder`; or the object store of a URL does not answer.
    """
    place = str(given) if given is not None else None
    if place is None and is_url(os.environ.get(VARIABLE, "")):
        place = join(os.environ[VARIABLE], name)
    if place is None or not is_url(place):
        return kept_folder(given, name)
    # What runs share lies beside them.
    open_place(parent_of(place), "driver")
    folder = open_place(place, "driver")
    try:
        probe(place, f".seen-{uuid4().hex}")
        return bring(folder, without=LEFT_THERE)
    except OSError as error:
        raise ValueError(f"{place} cannot be reached: {first_line(error)}") from None


def kept_folder(given: str | Path | None, name: str) -> Path:
    """The folder that was given, or `name` where runs are kept.

    A job that names no place has its runs under the home of whoever runs the cluster, and says so.

    Args:
        given: what `--out` says, if anything.
        name: of the run, below the storage.

    Raises:
        ValueError: the folder is a URL, or would vanish with the job's copy of the working folder.
    """
    storage = os.environ.get(VARIABLE)
    folder = Path(runs_folder()) / name if given is None else Path(given)
    url = re.match(r"[A-Za-z][\w+.-]+:/", str(folder))
    if url is not None:
        raise ValueError(
            f"this is kept in a folder, not under {url.group()}: name one that every node sees in "
            "--out, see cluster/README.md"
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
