"""A copy of a folder in an object store, and where it comes from: listed, fetched, sent."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from moebius.data.shards.storage import PARTIAL, first_line, open_files
from moebius.data.urls import join

ORIGIN = ".origin"
"""File in a copy that holds its URL."""
LOCK = ".lock"
BLOCK = 8 << 20
WAITS_S = (1.0, 3.0, 9.0, 27.0)
"""Seconds between tries of what a store refuses."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Origin:
    """A copy and where it comes from; what is asked of its store is asked again where it refuses.

    Raises:
        OSError: the store refuses for longer than `WAITS_S`.
    """

    copy: Path
    place: str

    def url(self, path: Path) -> str:
        """Of a path in the copy."""
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

        return patient(look)

    def fetch(self, path: Path, info: Any, large: int | None = None) -> None:
        """Replaces a file by the store's; above `large` bytes by as many zeros."""
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
            patient(copy)
            _stamp(partial, info)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def send(self, path: Path) -> None:
        """Replaces the store's file, which appears once it is written whole."""
        files, target = self._target(path)

        def copy() -> None:
            with path.open("rb") as file, files.open_output_stream(target) as sink:
                shutil.copyfileobj(file, sink, BLOCK)

        try:
            patient(copy)
        except FileNotFoundError:
            if path.exists():
                raise
            return  # a tracker's, say, that went meanwhile
        (info,) = patient(lambda: files.get_file_info([target]))
        _stamp(path, info)

    def delete(self, path: Path) -> None:
        """Removes the store's file."""
        files, target = self._target(path)
        patient(lambda: files.delete_file(target))

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Workers of one machine share a copy: one of them brings it, the others wait."""
        with (self.copy / LOCK).open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _target(self, path: Path) -> tuple[Any, str]:
        files, root = open_files(self.place)
        return files, str(PurePosixPath(root, *path.absolute().relative_to(self.copy).parts))


def origin_of(path: Path) -> Origin | None:
    """Of the copy that a path lies in, or `None`."""
    path = path.absolute()
    for folder in (path, *path.parents):
        if (folder / ORIGIN).is_file():
            return Origin(folder, (folder / ORIGIN).read_text())
    return None


def under(path: Path, name: str) -> Path:
    """The path of a name as `Origin.listing` gives it."""
    return path / name if name else path


def local_files(path: Path, without: Collection[str]) -> list[str]:
    """Files of a copy, as `listing` names them; the store knows no links."""
    if path.is_file():
        return [""]
    found = (p for p in path.rglob("*") if p.is_file() and not p.is_symlink())
    names = (str(PurePosixPath(p.relative_to(path))) for p in found)
    return sorted(name for name in names if _counts(name, without))


def same(path: Path, info: Any) -> bool:
    """By size and time: both sides have the store's time once a file has travelled."""
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == info.size and status.st_mtime_ns == info.mtime_ns


def patient(ask: Callable[[], Answer]) -> Answer:
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


def _counts(name: str, without: Collection[str]) -> bool:
    """Whether a file is a run's: neither half-written nor this module's own."""
    parts = PurePosixPath(name).parts
    own = any(part.startswith(".") and not part.endswith(".json") for part in parts)
    return not own and not set(parts[:-1]) & set(without)


def _stamp(path: Path, info: Any) -> None:
    os.utime(path, ns=(info.mtime_ns, info.mtime_ns))
