"""Where pictures come from: the built-in photographs, a manifest, or a folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

from moebius.config import read_object
from moebius.data.photographs import builtin_paths

Category = Literal["background", "foreground"]

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
"""Files of a folder that count as images, upper case too."""

_KEYS = ("image", "mask", "category", "prompt")


@dataclass(frozen=True)
class Record:
    """One picture to train on or to score."""

    image: Path
    mask: Path | None
    """White = hole. Of a foreground item its object, of a background item a place to fill."""
    category: Category
    name: str
    """How logs and tables call the picture: the path as its source gives it."""

    def __post_init__(self) -> None:
        if self.category == "foreground" and self.mask is None:
            raise ValueError('a foreground item needs a "mask" of its object')


def read_records(source: str | Path) -> list[Record]:
    """List the pictures of a source; no image is opened.

    Args:
        source: `builtin` (the training photographs), `builtin:train`, `builtin:validation`, a
            `.jsonl` manifest, or a folder, searched with its subfolders. Photographs and folders
            hold background pictures without masks. A manifest has one JSON object a line, with
            `image`, `category` (`background` or `foreground`; the release calls it `prompt`) and,
            where it has one, `mask`. Relative paths start at the manifest's folder and must stay
            in it, so that a manifest that came with its pictures shows nothing else of this
            machine; whole paths are its writer's own choice, and so are links in the folder.

    Returns:
        The records in the order of the source; those of a folder are sorted.

    Raises:
        ValueError: the source is not there, is empty, or has a bad line (`file:line: ...`).
    """
    check_source(source)
    kind, _, split = str(source).partition(":")
    if kind == "builtin":
        return [_background(path, path.stem) for path in builtin_paths(split or "train")]
    path = Path(source)
    return _read_folder(path) if path.is_dir() else _read_manifest(path)


def check_source(source: str | Path) -> None:
    """Refuses a source that is not there, without listing it.

    Raises:
        ValueError: it is neither built in nor a folder nor a manifest.
    """
    kind, _, split = str(source).partition(":")
    if kind == "builtin":
        builtin_paths(split or "train")
        return
    path = Path(source)
    if os.path.isdir(path):  # unlike Path's, false for names that no file can have
        return
    if not os.path.isfile(path):
        raise ValueError(
            f"no data at {str(path)!r}: give a .jsonl manifest, a folder, or 'builtin'"
        )
    if path.suffix != ".jsonl":
        raise ValueError(
            f"{str(path)!r} is not a manifest: give a .jsonl file, a folder, or 'builtin'"
        )


def _background(path: Path, name: str) -> Record:
    return Record(path, None, "background", name)


def _read_folder(folder: Path) -> list[Record]:
    files = (path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    # A leading dot marks what a file system keeps for itself, such as macOS' ._photo.jpg.
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in files
        if path.is_file() and not path.name.startswith(".")
    )
    if not names:
        raise ValueError(
            f"no images in folder {str(folder)!r}: it needs {', '.join(sorted(SUFFIXES))}"
        )
    return [_background(folder / name, name) for name in names]


def _read_manifest(path: Path) -> list[Record]:
    records = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            # utf-8-sig: editors on Windows begin a file with a byte order mark.
            text = line.decode("utf-8-sig").strip()
            if text:
                records.append(parse_line(text, path.parent))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}:{number}: not text: save the file as UTF-8") from error
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    if not records:
        raise ValueError(f"manifest {path} is empty: write one JSON object a line")
    return records


def parse_line(text: str, folder: Path) -> Record:
    """Read one line of a manifest.

    Args:
        text: a JSON object.
        folder: where relative paths start.

    Raises:
        ValueError: what is wrong with the line, and what to write instead.
    """
    item = _parse_object(text)
    name = _path_text(item, "image")
    if name is None:
        raise ValueError('"image" is missing: give the path of the picture')
    mask = _path_text(item, "mask")
    return Record(
        _locate("image", name, folder),
        None if mask is None else _locate("mask", mask, folder),
        _category(item),
        name,
    )


def _parse_object(text: str) -> dict[str, Any]:
    try:
        item = read_object(text)
    except ValueError as error:
        raise ValueError(f'{error}: write one object a line, {{"image": ..., ...}}') from None
    unknown = [key for key in item if key not in _KEYS]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r}: use only {', '.join(_KEYS)}")
    return item


def _category(item: dict[str, Any]) -> Category:
    # The released manifests call it prompt.
    given = [key for key in ("category", "prompt") if key in item]
    if len(given) != 1:
        raise ValueError('give one "category": "background" or "foreground"')
    value = item[given[0]]
    if value not in get_args(Category):
        raise ValueError(f'"{given[0]}" is {value!r}: use "background" or "foreground"')
    return cast(Category, value)


def _path_text(item: dict[str, Any], key: str) -> str | None:
    value = item.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise ValueError(f'"{key}" is {value!r}: give a path as text')
    return value


def _locate(key: str, text: str, folder: Path) -> Path:
    if os.path.isabs(text):
        return Path(text)
    inside = os.path.normpath(text)
    if inside.split(os.sep)[0] == os.pardir:
        raise ValueError(
            f'"{key}" {text!r} leaves the manifest\'s folder: give an absolute path or move it in'
        )
    return folder / inside
