"""Run folders in an object store (`s3://`, `gs://`, ...): each process works on a copy of its own.

Stores have no renaming and no appending, which runs need. So a worker brings its run's folder
here, works in it as in any other, and publishes what changed; the store is what counts: a copy
that differs when it is brought again gives way. What is no copy is left alone by all of this.
"""

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from moebius.data.origins import ORIGIN, local_files, origin_of, same, under
from moebius.data.shards.storage import PARTIAL, open_files
from moebius.data.urls import is_url, join

Role = Literal["driver", "worker", "reader", "outline"]
"""Whose copy it is. A run's driver, workers and readers may share a machine; only one writes."""

VARIABLE = "MOEBIUS_COPIES"
"""Where copies lie; by default `~/.cache/moebius/copies`."""
OUTLINED = 1 << 20
"""Bytes of a file above which an outline has its name and size alone."""
SIGNS = ("manifest.json", "result.json")
"""Files that say that others are whole: published after those."""
AT_ONCE = 4
"""Files that travel at the same time."""
GLANCE_S = 5.0
"""Seconds between two looks at a file that others write."""

_glanced: dict[Path, float] = {}


# --- places -----------------------------------------------------------------------------------


def open_place(place: str, role: Role) -> Path:
    """The folder to work in: of a URL the copy, which is still to be brought; else the folder.

    Raises:
        ValueError: a URL that pyarrow does not know, one that holds a secret, or that leads out.
    """
    if not is_url(place):
        return Path(place)
    if ".." in urlsplit(place).path.split("/"):
        raise ValueError(f"{place} must not hold '..'")
    place = join(place)  # without a last slash
    _, root = open_files(place)
    scheme, query = urlsplit(place).scheme, urlsplit(place).query
    server = f"{scheme}-{sha256(query.encode()).hexdigest()[:8]}" if query else scheme
    copy = _copies() / role / server / root.strip("/")
    if place_of(copy) != place:  # else it lies in a copy already
        copy.mkdir(parents=True, exist_ok=True)
        # Written whole: others on this machine open the same place.
        partial = copy / f"{ORIGIN}.{os.getpid()}{PARTIAL}"
        partial.write_text(place)
        os.replace(partial, copy / ORIGIN)
    return copy


def place_of(path: Path) -> str:
    """What a path stands for on every machine: a copy's URL, else the absolute path."""
    origin = origin_of(path)
    return str(path.absolute()) if origin is None else origin.url(path)


def shown(path: Path) -> str:
    """A path as its user knows it: of a copy the URL."""
    return place_of(path) if is_copy(path) else str(path)


def is_copy(path: Path) -> bool:
    """Whether a path lies in a copy."""
    return origin_of(path) is not None


def forget(path: Path) -> None:
    """Removes a copy that everything was published of."""
    if is_copy(path):
        shutil.rmtree(path, ignore_errors=True)


# --- to and fro -------------------------------------------------------------------------------


def bring(
    path: Path, without: Collection[str] = (), keep: bool = False, large: int | None = None
) -> Path:
    """Makes a file or folder of a copy what the store holds, and returns it.

    Args:
        path: in a copy; anything else is left alone.
        without: names of folders to leave as they are, at any depth.
        keep: leave what the store does not hold: others may be about to publish it.
        large: bytes above which a file comes as so many zeros; only for an outline.

    Raises:
        OSError: the store does not answer.
    """
    origin = origin_of(path)
    if origin is None:
        return path
    with origin.locked():
        there = origin.listing(path, without)
        for name in local_files(path, without):
            if name not in there and not keep:
                under(path, name).unlink(missing_ok=True)
        changed = [name for name, info in there.items() if not same(under(path, name), info)]
        _at_once(lambda name: origin.fetch(under(path, name), there[name], large), changed)
        _remove_empty(path)
    return path


def here(source: str) -> str:
    """What a name stands for on this machine: of a URL a reader's copy, else the name itself.

    Raises:
        ValueError: the store does not answer, or holds nothing there.
    """
    if not is_url(source):
        return source
    copy = open_place(source, "reader")
    try:
        bring(copy)
    except OSError as error:
        raise ValueError(f"{source} cannot be read: {error}") from None
    if not local_files(copy, ()):
        raise ValueError(f"nothing is at {source}")
    return str(copy)


def outline(place: str | Path) -> Path:
    """A folder to look at: of a URL a copy in which what is large has its name and size alone.

    Raises:
        ValueError: the store does not answer.
    """
    if not is_url(place):
        return Path(place)
    copy = open_place(str(place), "outline")
    try:
        return bring(copy, large=OUTLINED)
    except OSError as error:
        raise ValueError(f"{place} cannot be read: {error}") from None


def glance(path: Path) -> None:
    """Brings a file that others write, now and then; a store that does not answer is asked later.

    Args:
        path: in a copy; anything else is left alone.
    """
    now = time.monotonic()
    if now - _glanced.get(path, -GLANCE_S) < GLANCE_S or not is_copy(path):
        return
    _glanced[path] = now
    try:
        bring(path)
    except OSError:
        return


def publish(path: Path, exactly: Collection[str] = (), without: Collection[str] = ()) -> None:
    """Gives the store what changed in a file or folder of a copy; the signs of being whole last.

    Args:
        path: in a copy; anything else is left alone.
        exactly: folders of `path` of which the store is to hold nothing that is not here.
        without: names of folders to leave as they are, at any depth.

    Raises:
        OSError: the store does not take it.
    """
    origin = origin_of(path)
    if origin is None:
        return
    there, here = origin.listing(path, without), local_files(path, without)
    changed = [n for n in here if n not in there or not same(under(path, n), there[n])]
    for signs in (False, True):
        turn = [name for name in changed if _is_sign(path, name) == signs]
        _at_once(lambda name: origin.send(under(path, name)), turn)
    gone = [n for n in there if n not in here and n.partition("/")[0] in exactly]
    # The other way round: what says that others are whole goes before them.
    for name in sorted(gone, key=lambda name: not _is_sign(path, name)):
        origin.delete(under(path, name))


def discard(path: Path) -> None:
    """Removes a file, of a copy also from the store."""
    path.unlink(missing_ok=True)
    origin = origin_of(path)
    if origin is not None and origin.listing(path, ()):
        origin.delete(path)


def names_there(path: Path) -> list[str]:
    """Names of the files that the store holds below a folder of a copy."""
    origin = origin_of(path)
    assert origin is not None, f"{path} is no copy"
    return sorted(origin.listing(path, ()))


# --- within -----------------------------------------------------------------------------------


def _copies() -> Path:
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "moebius" / "copies")


def _is_sign(path: Path, name: str) -> bool:
    return under(path, name).name in SIGNS


def _remove_empty(path: Path) -> None:
    """A checkpoint's folder without files is none."""
    for folder, _, _ in os.walk(path, topdown=False):
        if Path(folder) != path and not os.listdir(folder):
            os.rmdir(folder)


def _at_once(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(work, names):
            pass
