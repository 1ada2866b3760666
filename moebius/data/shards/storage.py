"""Where shards lie: a folder, or an object store that pyarrow reaches (`s3://`, `gs://`, ...)."""

from __future__ import annotations

import os
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator

PARTIAL = ".part"
"""How a file ends that is being written."""


class Storage(Protocol):
    """Files of one flat folder; each is written whole or not at all."""

    place: str
    """As it was given: a path or URL, for messages."""

    def sizes(self) -> dict[str, int]:
        """Bytes of every whole file, by name; none where the folder is not there."""
        ...

    def read(self, name: str) -> bytes:
        """A file's bytes.

        Raises:
            ValueError: it is missing or cannot be read.
        """
        ...

    def write(self, name: str, data: bytes) -> None:
        """Writes or replaces a file."""
        ...

    def tidy(self) -> None:
        """Removes what killed writers left."""
        ...


def open_storage(place: str) -> LocalStorage | ObjectStorage:
    """The storage at a path or URL; `file://` is a folder.

    Raises:
        ValueError: a URL that pyarrow does not know, or one that holds a secret.
    """
    if "://" not in place:
        return LocalStorage(place, Path(place))
    if place.startswith("file://"):
        return LocalStorage(place, Path(urlsplit(place).path))
    return ObjectStorage(place)


@cache
def open_files(place: str) -> tuple[Any, str]:
    """The file system of a URL, and the path in it; one of each a process.

    Raises:
        ValueError: a URL that pyarrow does not know, or one that holds a secret.
    """
    if "@" in urlsplit(place).netloc:
        # It would go into configurations, logs and model cards.
        raise ValueError(
            f"{place.rpartition('@')[2]}: keep credentials out of the URL; AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY are read from the environment"
        )
    try:
        from pyarrow import fs
    except ImportError:
        raise ValueError(
            f"{place} needs pyarrow: pip install 'moebius-inpainting[cluster]'"
        ) from None
    try:
        files, root = fs.FileSystem.from_uri(place)
    except (OSError, ValueError) as error:
        raise ValueError(f"{place} cannot be reached: {first_line(error)}") from None
    if not root:
        raise ValueError(f"{place} cannot be reached: it names no bucket")
    return files, root


class LocalStorage:
    """A folder of this machine or of a shared file system."""

    def __init__(self, place: str, folder: Path) -> None:
        self.place, self.folder = place, folder

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        if not self.folder.is_dir():
            return {}
        with os.scandir(self.folder) as entries:
            files = [entry for entry in entries if entry.is_file()]
            return {f.name: f.stat().st_size for f in files if not f.name.endswith(PARTIAL)}

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        with readable(self, name):
            return (self.folder / name).read_bytes()

    def write(self, name: str, data: bytes) -> None:
        """See `Storage`; the bytes are on the disk before the file has its name."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / f"{name}.{uuid4().hex}{PARTIAL}"
        try:
            with partial.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, self.folder / name)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise

    def tidy(self) -> None:
        """See `Storage`."""
        for partial in self.folder.glob(f"*{PARTIAL}"):
            partial.unlink(missing_ok=True)


class ObjectStorage:
    """A prefix of a bucket, through `pyarrow.fs`; an object appears once it is written whole."""

    def __init__(self, place: str) -> None:
        self.place = place
        self._files, self._root = open_files(place)
        from pyarrow import fs

        self._selector = fs.FileSelector(self._root, allow_not_found=True)

    def __reduce__(self) -> tuple[Any, ...]:
        # Opened anew in another process: a connection does not travel.
        return ObjectStorage, (self.place,)

    def sizes(self) -> dict[str, int]:
        """See `Storage`."""
        try:
            found = self._files.get_file_info(self._selector)
        except OSError as error:
            raise ValueError(f"{self.place} cannot be read: {first_line(error)}") from None
        return {info.base_name: info.size for info in found if info.is_file}

    def read(self, name: str) -> bytes:
        """See `Storage`."""
        with readable(self, name), self._files.open_input_stream(f"{self._root}/{name}") as file:
            return file.read()

    def write(self, name: str, data: bytes) -> None:
        """See `Storage`."""
        try:
            with self._files.open_output_stream(f"{self._root}/{name}") as file:
                file.write(data)
        except OSError as error:
            raise ValueError(
                f"{self.place}/{name} cannot be written: {first_line(error)}"
            ) from None

    def tidy(self) -> None:
        """See `Storage`: an upload that was cut never shows; buckets expire its parts."""


@contextmanager
def readable(storage: Storage, name: str) -> Iterator[None]:
    """Says in one line which file is missing or cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise ValueError(f"{name} is missing at {storage.place}") from None
    except OSError as error:
        raise ValueError(f"{name} at {storage.place}: {first_line(error)}") from None


def first_line(error: Exception) -> str:
    """Of what an error says, or its kind."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
