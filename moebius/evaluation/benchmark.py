"""What exactly is scored: pictures and holes of a protocol, written once and shared by methods.

    benchmark/settings.json  manifest.jsonl  images/<id>.png  masks/<id>.png (white = hole)

A line of the manifest has the id, the file it came from and the mask's origin, the checksums of
both pictures' pixels, and the hole's share.
"""

import hashlib
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field

from moebius.config import (
    Polarity,
    Probability,
    Protocol,
    Scoring,
    Strict,
    load_json,
    load_json_lines,
    parse,
)
from moebius.config.plain import dotted
from moebius.config.secrets import without_secrets
from moebius.data.transforms import load_image
from moebius.distill.run_folder import write_text
from moebius.evaluation.geometry import to_square
from moebius.evaluation.listing import Entry, list_entries
from moebius.evaluation.mask_sets import check_mean_hole, draw_hole, pair_masks, read_published
from moebius.evaluation.pixels import checksum, read_hole, read_picture, write_png

MANIFEST, SETTINGS = "manifest.jsonl", "settings.json"


@dataclass(frozen=True)
class Item:
    """One picture to fill and to score."""

    name: str
    image: np.ndarray
    """The truth, (size, size, 3) uint8."""
    hole: np.ndarray
    """(size, size) bool."""


class Line(Strict):
    """One line of the manifest."""

    id: Annotated[str, Field(pattern=r"^[^/\x00]+$")]
    """Names the picture's files, so it leads to no other folder."""
    source: str
    mask: str
    """Generator, or file of the published set."""
    image_sha256: str
    mask_sha256: str
    """Both of pixels, see `pixels.checksum`."""
    hole: Probability


@dataclass(frozen=True)
class Benchmark:
    """A benchmark on disk."""

    folder: Path

    @cached_property
    def lines(self) -> dict[str, Line]:
        """Every picture's line by id, in the manifest's order; ValueError for a broken one."""
        found = load_json_lines(self.folder / MANIFEST)
        lines = (parse(Line, line, where) for where, line in found)
        return {line.id: line for line in lines}

    @property
    def names(self) -> list[str]:
        """All ids."""
        return list(self.lines)

    @cached_property
    def sha256(self) -> str:
        """Checksum of the manifest, and so of everything that is scored."""
        return hashlib.sha256((self.folder / MANIFEST).read_bytes()).hexdigest()

    @property
    def mean_hole(self) -> float:
        """Share of the hole, averaged over pictures."""
        return float(np.mean([line.hole for line in self.lines.values()]))

    def read(self, name: str) -> Item:
        """Read a picture and its hole, and hold them against the manifest.

        Raises:
            ValueError: a file is gone or has changed.
        """
        line, image = self.lines[name], self.folder / "images" / f"{name}.png"
        mask = self.folder / "masks" / f"{name}.png"
        item = Item(name, read_picture(image), read_hole(mask))
        if (checksum(item.image), checksum(item.hole)) != (line.image_sha256, line.mask_sha256):
            raise ValueError(
                f"{image} or its mask is not what the manifest says: remove {self.folder} and the "
                "results beside it, and start again"
            )
        return item


def prepare_benchmark(
    protocol: Protocol,
    scoring: Scoring,
    folder: Path,
    begin: Callable[[int], Callable[[], None]] = lambda total: lambda: None,
) -> Benchmark:
    """Writes a benchmark's pictures and holes, or checks that the folder's are these.

    Args:
        protocol: what is scored.
        scoring: where it comes from.
        folder: to write to; made where it is not there.
        begin: told how many pictures will be written; what it returns is called after each.

    Raises:
        ValueError: another benchmark is there, or files are missing, broken or do not fit.
    """
    settings = _settings(protocol, scoring)
    if (folder / MANIFEST).is_file():
        check_settings(folder / SETTINGS, settings)
        return Benchmark(folder)
    source = settings["source"]
    if source is None:
        raise ValueError(f"{protocol.title} needs --images: {protocol.images.about}")
    entries = list_entries(protocol.images, source, scoring.ids, scoring.limit)
    published = None
    if scoring.masks is not None:
        by_order = protocol.masks.published is not None and protocol.masks.published.pair == "order"
        published = pair_masks(scoring.masks, [entry.name for entry in entries], by_order)
    entries = entries[: scoring.limit]
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    advance = begin(len(entries))

    def prepare(entry: Entry) -> Line:
        mask = None if published is None else published[entry.name]
        line = _prepare(entry, protocol, mask, settings["white"], folder)
        advance()
        return line

    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and drawing free Python's lock
        lines = list(pool.map(prepare, entries))
    origin = scoring.masks or protocol.masks.generator
    check_mean_hole([line.hole for line in lines], protocol.masks.mean_hole, origin)
    write_text(folder / SETTINGS, json.dumps(settings, indent=1))
    write_text(folder / MANIFEST, "".join(json.dumps(line.model_dump()) + "\n" for line in lines))
    return Benchmark(folder)


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuses to go on in a folder that was made with other settings.

    Raises:
        ValueError: naming what differs.
    """
    known, settings = load_json(path), without_secrets(settings)
    differing = sorted(
        dotted((key,))
        for key in known.keys() | settings.keys()
        if known.get(key) != settings.get(key)
    )
    if differing:
        raise ValueError(
            f"{path.parent} was made with other settings ({', '.join(differing)}); choose another "
            "--out or --name, or remove that folder"
        )


def polarity(protocol: Protocol, scoring: Scoring) -> Polarity | None:
    """What white means in the folder of published masks; `None` where masks are drawn.

    Raises:
        ValueError: neither the protocol nor the command line says it.
    """
    if scoring.masks is None:
        return None
    published = protocol.masks.published
    white = scoring.white or (None if published is None else published.white)
    if white is None:
        raise ValueError(f"say what white means in {scoring.masks}: --white hole or --white known")
    return white


def _settings(protocol: Protocol, scoring: Scoring) -> dict[str, Any]:
    """All that decides pictures and holes."""
    source = scoring.images or protocol.images.source
    return {
        "images": protocol.images.model_dump(mode="json", exclude={"about"}),
        "source": _absolute(source),
        "ids": _absolute(scoring.ids),
        "limit": scoring.limit,
        "geometry": protocol.geometry,
        "size": protocol.size,
        "masks": _absolute(scoring.masks)
        or protocol.masks.model_dump(mode="json", include={"generator", "area", "seed"}),
        "white": polarity(protocol, scoring),
    }


def _absolute(path: str | None) -> str | None:
    return str(Path(path).absolute()) if path is not None and Path(path).exists() else path


def _prepare(
    entry: Entry, protocol: Protocol, mask: Path | None, white: Polarity | None, folder: Path
) -> Line:
    image = to_square(load_image(entry.path), protocol, entry.name)
    if mask is None:
        hole, origin = draw_hole(protocol.masks, entry.name, protocol.size), "drawn"
    else:
        assert white is not None, "published masks have a polarity"
        hole, origin = read_published(mask, protocol.size, white), mask.name
        if not hole.any():
            raise ValueError(f"mask {mask} has no hole: white means {white}, see --white")
    write_png(folder / "images" / f"{entry.name}.png", image)
    write_png(folder / "masks" / f"{entry.name}.png", hole)
    return Line(
        id=entry.name,
        source=entry.path.name,
        mask=origin,
        image_sha256=checksum(image),
        mask_sha256=checksum(hole),
        hole=round(float(hole.mean()), 6),
    )
