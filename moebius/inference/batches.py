"""What one command fills: photographs, their masks and outputs, and the seed of each."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

from moebius.inference.files import LOSSLESS_SUFFIXES, is_picture, output_format


@dataclass(frozen=True)
class Item:
    """One photograph to fill.

    Attributes:
        mask: None where boxes are given.
        outputs: one a result.
        seeds: one a result.
    """

    image: Path
    mask: Path | None
    outputs: tuple[Path, ...]
    seeds: tuple[int, ...]

    @property
    def finished(self) -> bool:
        """Whether every output is there; they are written whole or not at all."""
        return all(path.exists() for path in self.outputs)


@dataclass(frozen=True)
class Batch:
    """Items, and what of the folders cannot be filled.

    Attributes:
        missing: photographs without a mask, or that share a name with another.
        unused: masks without a photograph.
    """

    items: list[Item]
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)


def single(image: Path, mask: Path | None, output: Path, count: int, seed: int) -> Batch:
    """One photograph; several results go to out_1.png, out_2.png, ..., from seed, seed + 1, ..."""
    output_format(output)
    return _checked(Batch([_item(image, mask, output, count, seed)]))


def folder(images: Path, masks: Path | None, output: Path, count: int, seed: int) -> Batch:
    """The photographs of a folder, with masks of the same stem, or one mask for all.

    A lossless format is kept, everything else becomes PNG. Seeds derive from the file's stem, so
    that a folder that is resumed or grows gets the pictures of one that was done at once.

    Raises:
        ValueError: no photograph, or outputs that would overwrite inputs.
    """
    photographs = sorted(path for path in images.iterdir() if path.is_file() and is_picture(path))
    if not photographs:
        raise ValueError(f"{images}: no photograph in this folder")
    if masks is not None and masks.is_dir() and masks.samefile(images):
        raise ValueError(f"{masks}: holds photographs and masks, keep them in two folders")
    by_stem = _by_stem(masks) if masks is not None and masks.is_dir() else None
    items, missing, stems = [], [], set()
    for path in photographs:
        mask = masks if by_stem is None else by_stem.get(path.stem)
        if path.stem in stems:
            missing.append(f"{path}: another photograph has this name, too")
        elif by_stem is not None and mask is None:
            missing.append(f"{path}: no mask {path.stem}.* in {masks}")
        else:
            suffix = path.suffix if path.suffix.lower() in LOSSLESS_SUFFIXES else ".png"
            own = derived_seed(seed, path.stem)
            items.append(_item(path, mask, output / f"{path.stem}{suffix}", count, own))
        stems.add(path.stem)
    unused = [str(by_stem[stem]) for stem in sorted(by_stem.keys() - stems)] if by_stem else []
    return _checked(Batch(items, missing, unused))


def derived_seed(seed: int, name: str) -> int:
    """A seed of 62 bits for a name, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 2


def _item(image: Path, mask: Path | None, output: Path, count: int, seed: int) -> Item:
    outputs = [output]
    if count > 1:
        outputs = [output.with_stem(f"{output.stem}_{n}") for n in range(1, count + 1)]
    return Item(image, mask, tuple(outputs), tuple(range(seed, seed + count)))


def _by_stem(masks: Path) -> dict[str, Path]:
    """A folder's pictures by their stem.

    Raises:
        ValueError: two of one stem.
    """
    found: dict[str, Path] = {}
    for path in sorted(path for path in masks.iterdir() if path.is_file() and is_picture(path)):
        if path.stem in found:
            raise ValueError(f"{path} and {found[path.stem].name} are masks of one name: keep one")
        found[path.stem] = path
    return found


def _checked(batch: Batch) -> Batch:
    """Refuses to overwrite inputs, whatever way a path to them is written."""
    inputs = {path.resolve() for item in batch.items for path in (item.image, item.mask) if path}
    for item in batch.items:
        for path in item.outputs:
            if path.resolve() in inputs:
                raise ValueError(f"{path}: would overwrite an input, choose another output")
    return batch
