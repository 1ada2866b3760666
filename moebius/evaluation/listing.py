"""Which pictures of a folder a benchmark takes, and what they are called."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from moebius.config import Images
from moebius.data.manifest import Record, read_records

CELEBA_LABELS = {"train": "0", "validation": "1", "test": "2"}
CELEBA_COUNTS = {"train": 24_183, "validation": 2_993, "test": 2_824}
"""Pictures of CelebA-HQ in each partition of CelebA (protocols, trap 14)."""
CELEBA_MAPPING, CELEBA_PARTITION = "CelebA-HQ-to-CelebA-mapping.txt", "list_eval_partition.txt"
SHOWN = 5
"""Missing names that an error lists."""


@dataclass(frozen=True)
class Entry:
    """One picture of a benchmark before its geometry."""

    name: str
    """Id: the file's stem, with the crop's number where there are several."""
    path: Path


def list_entries(images: Images, source: str, ids: str | None, limit: int | None) -> list[Entry]:
    """List what a benchmark scores, sorted by name; pictures are opened for `min_side` only.

    Args:
        images: the protocol's choice.
        source: what `read_records` takes.
        ids: text file of stems, one a line, in place of the protocol's choice.
        limit: the caller scores so many at most, so that fewer than the whole set may be there.

    Raises:
        ValueError: nothing there, stems that are not unique, or another number of pictures.
    """
    found = by_stem(read_records(source))
    if ids is not None:
        return _entries(_named(found, ids, source), images.crops)
    names = sorted(found)
    if images.ids is not None:
        first, last = images.ids
        names = [name for name in names if name.isdecimal() and first <= int(name) <= last]
    if images.celeba_partition is not None:
        names = _celeba(names, source, images.celeba_partition)
    if images.min_side > 1:
        names = [name for name in names if _short_side(found[name]) >= images.min_side]
    wanted = images.count // images.crops
    names = names[:wanted] if images.take == "first" else names
    entries = _entries({name: found[name] for name in names}, images.crops)
    partial = limit is not None and limit <= len(entries) <= images.count
    if len(entries) != images.count and not partial:
        raise ValueError(
            f"the protocol scores {images.count:,} pictures, {source} gives {len(entries):,}: "
            "complete it, name yours by --ids, or score the first N by --limit N"
        )
    return entries


def by_stem(records: Sequence[Record]) -> dict[str, Path]:
    """Paths by stem, in the order of the records.

    Raises:
        ValueError: two files have the same stem.
    """
    paths: dict[str, Path] = {}
    for record in records:
        stem = record.image.stem
        if stem in paths:
            raise ValueError(
                f"{paths[stem]} and {record.image} have the same stem, by which files are paired: "
                "rename one"
            )
        paths[stem] = record.image
    return paths


def describe_missing(text: str, missing: Sequence[str], total: int) -> str:
    """One line that counts what is missing and names the first."""
    shown = ", ".join(missing[:SHOWN]) + (", ..." if len(missing) > SHOWN else "")
    line = f"{text} {len(missing):,} of {total:,} pictures: {shown}"
    return " ".join(line.split())  # names may hold anything


def _entries(paths: Mapping[str, Path], crops: int) -> list[Entry]:
    if crops == 1:
        return [Entry(name, path) for name, path in paths.items()]
    return [Entry(f"{name}-{n:03d}", path) for name, path in paths.items() for n in range(crops)]


def _named(found: Mapping[str, Path], ids: str, source: str) -> dict[str, Path]:
    lines = _read_lines(Path(ids), "the list of --ids")
    names = [Path(line).stem if Path(line).suffix else line for line in lines]
    missing = [name for name in names if name not in found]
    if missing or not names:
        raise ValueError(describe_missing(f"{source}, by {ids}, lacks", missing, len(names)))
    return {name: found[name] for name in sorted(names)}


def _celeba(names: Sequence[str], source: str, partition: str) -> list[str]:
    """Those numbers of CelebA-HQ whose picture lies in a partition of CelebA."""
    folder = Path(source)
    places = (folder, folder.parent)
    mapping, labels = (
        _read_lines(next((p / name for p in places if (p / name).is_file()), folder / name), name)
        for name in (CELEBA_MAPPING, CELEBA_PARTITION)
    )
    label_of = dict(line.split()[:2] for line in labels)
    # The mapping's columns: number in CelebA-HQ, number in CelebA, file name in CelebA.
    rows = [line.split() for line in mapping[1:]]
    chosen = {row[0] for row in rows if label_of.get(row[2]) == CELEBA_LABELS[partition]}
    if len(chosen) != CELEBA_COUNTS[partition]:
        raise ValueError(
            f"{CELEBA_MAPPING} and {CELEBA_PARTITION} give {len(chosen):,} pictures for "
            f"{partition}, not {CELEBA_COUNTS[partition]:,}: get both files anew"
        )
    return [name for name in names if name.isdecimal() and str(int(name)) in chosen]


def _read_lines(path: Path, what: str) -> list[str]:
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read {what} at {path}: {error}") from None
    return [line.strip() for line in lines if line.strip()]


def _short_side(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return min(image.size)
    # Pillow's decoders answer broken files with nearly any exception.
    except Exception as error:
        raise ValueError(f"cannot read {path}: {' '.join(str(error).split())}") from None
