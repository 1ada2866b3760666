"""URLs of folders in object stores, such as `s3://bucket/runs?region=eu-west-1`."""

from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit, urlunsplit


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
