"""Run folders in an object store (`s3://`, `gs://`, ...): each process works on a copy of its own.

Stores have no renaming and no appending, which runs need. So a worker brings its run's folder
here, works in it as in any other, and publishes what changed; the store is what counts: a copy
that differs when it is brought again gives way. What is no copy is left alone by all of this.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit, urlunsplit

from moebius.data.shards.storage import PARTIAL, first_line, open_files

Role = Literal["driver", "worker", "reader", "outline"]
"""Whose copy it is. A run's driver, workers and readers may share a machine; only one writes."""

VARIABLE = "MOEBIUS_COPIES"
"""Where copies lie; by default `~/.cache/moebius/copies`."""
ORIGIN = ".origin"
"""File in a copy that holds its URL."""
LOCK = ".lock"
OUTLINED = 1 << 20
"""Bytes of a file above which an outline has its name and size alone."""
SIGNS = ("manifest.json", "result.json")
"""Files that say that others are whole: published after those."""
AT_ONCE = 4
"""Files that travel at the same time."""
BLOCK = 8 << 20
WAITS_S = (1.0, 3.0, 9.0, 27.0)
"""Seconds between tries of what a store refuses."""
GLANCE_S = 5.0
"""Seconds between two looks at a file that others write."""

Answer = TypeVar("Answer")


# --- places -----------------------------------------------------------------------------------


def is_url(place: str | Path) -> bool:
    """Whether a place is in an object store; `file://` is not."""
    return "://" in str(place) and not str(place).startswith("file://")


def join(place: str, *names: str) -> str:
    """A place below another: a URL keeps its query."""
    if not is_url(place):
        return str(Path(place, *names))
    parts = urlsplit(place)
    return urlunsplit(parts._replace(path=str(PurePosixPath(parts.path or "/", *names))))


def parent_of(place: str) -> str:
    """The URL of the folder that a URL's folder lies in.

    Raises:
        ValueError: it lies in none.
    """
    parts = urlsplit(place)
    path = PurePosixPath(parts.path or "/")
    if not path.name:
        raise ValueError(f"{place} names no folder in its bucket")
    return urlunsplit(parts._replace(path=str(path.parent)))


def open_place(place: str, role: Role) -> Path:
    """The folder to work in: of a URL the copy, which is still to be brought; else the folder.

    Raises:
        ValueError: a URL that pyarrow does not know, one that holds a secret, or that leads out.
    """
    if not is_url(place):
        return Path(place)
    if ".." in urlsplit(place).path.split("/"):
        raise ValueError(f"{place} must not hold '..'")
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
    origin = _origin(path)
    return str(path.absolute()) if origin is None else origin.url(path)


def shown(path: Path) -> str:
    """A path as its user knows it: of a copy the URL."""
    return place_of(path) if is_copy(path) else str(path)


def is_copy(path: Path) -> bool:
    """Whether a path lies in a copy."""
    return _origin(path) is not None


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
    origin = _origin(path)
    if origin is None:
        return path
    with origin.locked():
        there = origin.listing(path, without)
        for name in _local(path, without):
            if name not in there and not keep:
                _under(path, name).unlink(missing_ok=True)
        changed = [name for name, info in there.items() if not _same(_under(path, name), info)]
        _at_once(lambda name: origin.fetch(_under(path, name), there[name], large), changed)
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
    if not _local(copy, ()):
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
    origin = _origin(path)
    if origin is None:
        return
    there, here = origin.listing(path, without), _local(path, without)
    changed = [n for n in here if n not in there or not _same(_under(path, n), there[n])]
    for signs in (False, True):
        turn = [name for name in changed if _is_sign(path, name) == signs]
        _at_once(lambda name: origin.send(_under(path, name)), turn)
    gone = [n for n in there if n not in here and n.partition("/")[0] in exactly]
    # The other way round: what says that others are whole goes before them.
    for name in sorted(gone, key=lambda name: not _is_sign(path, name)):
        origin.delete(_under(path, name))


def discard(path: Path) -> None:
    """Removes a file, of a copy also from the store."""
    path.unlink(missing_ok=True)
    origin = _origin(path)
    if origin is not None and origin.listing(path, ()):
        origin.delete(path)


def names_there(path: Path) -> list[str]:
    """Names of the files that the store holds below a folder of a copy."""
    origin = _origin(path)
    assert origin is not None, f"{path} is no copy"
    return sorted(origin.listing(path, ()))


def probe(url: str, name: str) -> None:
    """Writes a file below a URL, reads and removes it.

    Raises:
        OSError: the store does not answer, or refuses.
        ValueError: it gives back something else.
    """
    files, root = open_files(url)
    target = f"{root}/{name}"
    with files.open_output_stream(target) as stream:
        stream.write(name.encode())
    with files.open_input_stream(target) as stream:
        read = stream.read()
    files.delete_file(target)
    if read != name.encode():
        raise ValueError("it gives back something else than was written")


# --- within -----------------------------------------------------------------------------------

_glanced: dict[Path, float] = {}


@dataclass(frozen=True)
class _Origin:
    """A copy and where it comes from."""

    copy: Path
    place: str

    def url(self, path: Path) -> str:
        return join(self.place, *path.absolute().relative_to(self.copy).parts)

    def listing(self, path: Path, without: Collection[str]) -> dict[str, Any]:
        """What the store holds at a path, by name relative to it; of a file, the one name `""`."""
        from pyarrow import fs

        files, target = self._target(path)

        def look() -> dict[str, Any]:
            (itself,) = files.get_file_info([target])
            if itself.type == fs.FileType.File:
                return {"": itself}
            selector = fs.FileSelector(target, recursive=True, allow_not_found=True)
            found = files.get_file_info(selector)
            named = {i.path[len(target) + 1 :]: i for i in found if i.type == fs.FileType.File}
            return {name: info for name, info in named.items() if _counts(name, without)}

        return _patient(look)

    def fetch(self, path: Path, info: Any, large: int | None = None) -> None:
        files, target = self._target(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")

        def copy() -> None:
            with files.open_input_stream(target) as source, partial.open("wb") as file:
                if large is not None and info.size > large:
                    file.truncate(info.size)
                    return
                shutil.copyfileobj(source, file, BLOCK)

        try:
            _patient(copy)
            _stamp(partial, info)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def send(self, path: Path) -> None:
        files, target = self._target(path)

        def copy() -> None:
            # An object appears once it is written whole.
            with path.open("rb") as file, files.open_output_stream(target) as sink:
                shutil.copyfileobj(file, sink, BLOCK)

        _patient(copy)
        (info,) = _patient(lambda: files.get_file_info([target]))
        _stamp(path, info)

    def delete(self, path: Path) -> None:
        files, target = self._target(path)
        _patient(lambda: files.delete_file(target))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Workers of one machine share a copy: one of them brings it, the others wait."""
        with (self.copy / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _target(self, path: Path) -> tuple[Any, str]:
        files, root = open_files(self.place)
        return files, str(PurePosixPath(root, *path.absolute().relative_to(self.copy).parts))


def _copies() -> Path:
    return Path(os.environ.get(VARIABLE) or Path.home() / ".cache" / "moebius" / "copies")


def _origin(path: Path) -> _Origin | None:
    path = path.absolute()
    for folder in (path, *path.parents):
        if (folder / ORIGIN).is_file():
            return _Origin(folder, (folder / ORIGIN).read_text())
    return None


def _under(path: Path, name: str) -> Path:
    return path / name if name else path


def _is_sign(path: Path, name: str) -> bool:
    return _under(path, name).name in SIGNS


def _counts(name: str, without: Collection[str]) -> bool:
    """Whether a file is a run's: neither half-written nor this module's own."""
    parts = PurePosixPath(name).parts
    own = any(part.startswith(".") and not part.endswith(".json") for part in parts)
    return not own and not set(parts[:-1]) & set(without)


def _local(path: Path, without: Collection[str]) -> list[str]:
    """Files of a copy, as `listing` names them; the store knows no links."""
    if path.is_file():
        return [""]
    found = (p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    names = (str(PurePosixPath(p.relative_to(path))) for p in found)
    return sorted(name for name in names if _counts(name, without))


def _same(path: Path, info: Any) -> bool:
    """By size and time: both sides have the store's time once a file has travelled."""
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == info.size and status.st_mtime_ns == info.mtime_ns


def _stamp(path: Path, info: Any) -> None:
    os.utime(path, ns=(info.mtime_ns, info.mtime_ns))


def _remove_empty(path: Path) -> None:
    """A checkpoint's folder without files is none."""
    for folder, _, _ in os.walk(path, topdown=False):
        if Path(folder) != path and not os.listdir(folder):
            os.rmdir(folder)


def _at_once(work: Callable[[str], None], names: Iterable[str]) -> None:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(work, names):
            pass


def _patient(ask: Callable[[], Answer]) -> Answer:
    """Asks a store again where it refuses: it may be busy, or away for a moment."""
    for wait in (*WAITS_S, None):
        try:
            return ask()
        except FileNotFoundError:
            raise
        except OSError as error:
            if wait is None:
                raise OSError(first_line(error)) from None
            time.sleep(wait)
    raise AssertionError
